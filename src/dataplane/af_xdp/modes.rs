//! Which of the kernel's ways are to be taken.

/// Where in the kernel the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// In the driver, or if that cannot be, in the generic hook.
    #[default]
    Auto,
    /// In the driver, before the kernel has made an `sk_buff` of the packet.
    Native,
    /// In the network core, after the driver: works on every interface and is slower.
    Generic,
}

/// Whether frames are copied between the driver's memory and ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CopyMode {
    /// Zero-copy where the driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy or an error.
    ZeroCopy,
    /// Copy, even if the driver could do without.
    Copy,
}

named!(
    AttachMode,
    "attach mode",
    "auto, native or generic",
    ["auto" => Auto, "native" => Native, "generic" => Generic]
);
named!(
    CopyMode,
    "copy mode",
    "auto, zero-copy or copy",
    ["auto" => Auto, "zero-copy" => ZeroCopy, "copy" => Copy]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_round_trip_through_text() {
        for mode in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for mode in [CopyMode::Auto, CopyMode::ZeroCopy, CopyMode::Copy] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("skb".parse::<AttachMode>().is_err());
        assert!("zerocopy".parse::<CopyMode>().is_err());
    }
}
