//! What becomes of a packet.
//!
//! Every received frame ends in exactly one [`Verdict`], and every verdict has a counter, so the
//! sum of the counters is the number of frames received.

use std::fmt;

/// A backend's stable place in the snapshots that the packet path reads.
///
/// A slot number and a generation in 32 bits: a slot that is reused for another backend gets the
/// next generation, so whoever kept an old index misses instead of reaching a stranger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(u32);

impl BackendIndex {
    const GENERATION_BITS: u32 = 11;
    /// The number of slots there can be: about two million.
    pub const MAX_SLOTS: usize = 1 << (u32::BITS - Self::GENERATION_BITS);

    /// An index from its parts; both wrap at their width.
    pub const fn new(slot: usize, generation: u32) -> Self {
        let slot = (slot % Self::MAX_SLOTS) as u32;
        Self((slot << Self::GENERATION_BITS) | (generation % (1 << Self::GENERATION_BITS)))
    }

    /// The place in the snapshot's array of next hops.
    pub const fn slot(self) -> usize {
        (self.0 >> Self::GENERATION_BITS) as usize
    }

    /// How many times the slot had been given out before, modulo 2048.
    pub const fn generation(self) -> u32 {
        self.0 % (1 << Self::GENERATION_BITS)
    }
}

impl fmt::Debug for BackendIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

/// The end of a packet's journey.
///
/// What the variants carry is of one size, that of [`BackendIndex`]: so a verdict is passed on in two registers,
/// and is not put together and taken apart again for every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Rewritten in place for this backend; to be transmitted.
    Forward(BackendIndex),
    /// Turned in place into an answer to whoever sent it; to be transmitted.
    Answer(AnswerKind),
    /// A fragment that overtook the first of its datagram: kept until that one comes. It is counted
    /// again, under its last verdict, when it is let go of.
    Hold,
    /// What a VIP answered to a probe of ours; a copy goes to whoever sent it.
    Probe,
    /// Not for a VIP of ours; untouched. A driver that can hand it to the host does so; the
    /// AF_XDP driver cannot, but its XDP program has left such frames with the kernel already.
    Pass,
    /// Not to be sent anywhere, for this reason; untouched.
    Drop(DropReason),
}

impl Verdict {
    /// The verdict in a few words, such as `drop: no-service`; `name` tells what a backend is called.
    pub fn in_words(self, name: impl FnOnce(BackendIndex) -> String) -> String {
        match self {
            Self::Forward(index) => format!("forward to {}", name(index)),
            Self::Answer(kind) => format!("answer: {}", kind.as_str()),
            Self::Hold => "hold".to_owned(),
            Self::Probe => "probe: the answer to one of ours".to_owned(),
            Self::Pass => "pass: not for us".to_owned(),
            Self::Drop(reason) => format!("drop: {reason}"),
        }
    }

    /// The same, and behind it what the [reason](DropReason::meaning) of a drop means.
    pub fn in_full(self, name: impl FnOnce(BackendIndex) -> String) -> String {
        let text = self.in_words(name);
        match self {
            Self::Drop(reason) => format!("{text}. {}", reason.meaning()),
            _ => text,
        }
    }

    /// The [words](Self::in_words) in a text that [`in_full`](Self::in_full) made, whatever a reason was then said to mean;
    /// none if it made no such text. Behind `forward to ` any name is a backend's.
    pub fn words_in(text: &str) -> Option<&str> {
        const DROP: &str = "drop: ";
        if let Some(rest) = text.strip_prefix(DROP) {
            let (name, _) = rest.split_once(". ").unwrap_or((rest, ""));
            DropReason::from_name(name)?;
            return text.get(..DROP.len() + name.len());
        }
        let answers = AnswerKind::ALL.map(Self::Answer);
        let others = [Self::Hold, Self::Probe, Self::Pass].into_iter().chain(answers);
        let is_other = |other: Self| other.in_words(|_| String::new()) == text;
        (text.starts_with("forward to ") || { others }.any(is_other)).then_some(text)
    }
}

/// What a frame was turned into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum AnswerKind {
    /// An ARP reply or neighbour advertisement for a VIP.
    Neighbour,
    /// An ICMP or ICMPv6 echo reply from a VIP.
    Echo,
    /// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201).
    PacketTooBig,
    /// "Time exceeded": the packet had no hop left for the way to the backend.
    TimeExceeded,
}

impl AnswerKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 4] =
        [Self::Neighbour, Self::Echo, Self::PacketTooBig, Self::TimeExceeded];

    /// The kind's stable name, as used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Echo => "echo",
            Self::PacketTooBig => "packet-too-big",
            Self::TimeExceeded => "time-exceeded",
        }
    }
}

macro_rules! drop_reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident => $name:literal, )*) => {
        /// Why a packet that came for a VIP was not forwarded.
        ///
        /// Exhaustive on purpose: each reason has a stable name and a counter of its own, and
        /// none means "other".
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum DropReason {
            $( $(#[doc = $doc])+ $variant, )*
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason's stable name, as used in metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the reason means, in a sentence or two: the documentation of the variant.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends inside its Ethernet header or VLAN tags.
    EthernetTruncated => "ethernet-truncated",
    /// More than two VLAN tags.
    VlanTooDeep => "vlan-too-deep",
    /// The EtherType and the IP version field contradict each other.
    IpVersionMismatch => "ip-version-mismatch",
    /// The frame ends inside the IPv4 header.
    Ipv4Truncated => "ipv4-truncated",
    /// The IPv4 header length is below 20 bytes or beyond the packet (RFC 791 section 3.1).
    Ipv4HeaderLength => "ipv4-header-length",
    /// The IPv4 total length is below the header length or beyond the frame.
    Ipv4TotalLength => "ipv4-total-length",
    /// The frame ends inside the IPv6 header.
    Ipv6Truncated => "ipv6-truncated",
    /// The IPv6 payload length is beyond the frame.
    Ipv6PayloadLength => "ipv6-payload-length",
    /// The packet ends inside an IPv6 extension header.
    Ipv6ExtensionTruncated => "ipv6-extension-truncated",
    /// More IPv6 extension headers than the parser walks.
    Ipv6ExtensionsTooMany => "ipv6-extensions-too-many",
    /// The packet ends inside its TCP, UDP or SCTP header. First fragments too small to hold it
    /// (RFC 1858) count here.
    TransportTruncated => "transport-truncated",
    /// The packet comes from an address that is no unicast source (RFC 1122 section 3.2.1.3).
    MartianSource => "martian-source",
    /// An IPv6 routing header leads on to another address, or IPv4 options ask for a route, where the
    /// packet's destination has to be changed.
    SourceRouted => "source-routed",
    /// Source and destination are the same address.
    SourceIsVip => "source-is-vip",
    /// The frame carries our own MAC as its source: it has been through here.
    Looped => "looped",
    /// The VIP is ours, but no service covers this protocol and port.
    NoService => "no-service",
    /// The service has no backend that may take traffic.
    NoBackend => "no-backend",
    /// A later fragment, for a service that chooses by ports; or one of IPv6 whose protocol is
    /// behind extension headers that only the first fragment has. Only while fragments are not
    /// followed, and of ICMP errors that quote such a fragment.
    FragmentWithoutPorts => "fragment-without-ports",
    /// A later fragment that begins inside the transport header of the first (RFC 3128).
    FragmentOverlapsHeader => "fragment-overlaps-header",
    /// Another first fragment of a datagram, with other ports than the one before (RFC 5722).
    FragmentConflict => "fragment-conflict",
    /// A later fragment whose first one did not come in time.
    FragmentTimeout => "fragment-timeout",
    /// A later fragment that came before its first one, when no more could be kept waiting.
    FragmentsFull => "fragments-full",
    /// An ICMP error whose quotation is too short to tell whose it is.
    IcmpQuoteTruncated => "icmp-quote-truncated",
    /// An ICMP error to a VIP about a packet that the VIP did not send.
    IcmpQuoteStray => "icmp-quote-stray",
    /// An echo request to a VIP that is set not to answer, or one with IPv4 options.
    EchoRefused => "echo-refused",
    /// Larger than the way to the backend takes, and of a kind that is never answered.
    PacketTooBig => "packet-too-big",
    /// Larger than the way to the backend takes, and not to be fragmented here by configuration.
    FragmentationRefused => "fragmentation-refused",
    /// No hop left for the way to the backend, and of a kind that is never answered.
    HopLimitExceeded => "hop-limit-exceeded",
    /// Would be answered with an ICMP error, but there were too many of them lately (RFC 4443
    /// section 2.4 (f), RFC 1812 section 4.3.2.8).
    IcmpRateLimited => "icmp-rate-limited",
    /// Larger than the link it came by: several packets that were merged by LRO or GRO.
    Aggregated => "aggregated",
    /// The frame has not the room in front, or the worker none behind, that delivery takes.
    NoRoom => "no-room",
    /// The chosen backend has no resolved next hop in this snapshot.
    NextHopUnresolved => "next-hop-unresolved",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The inverse of [`DropReason::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// The position of this reason in [`DropReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn indices_keep_slot_and_generation_apart() {
        let index = BackendIndex::new(1_000_000, 2_047);
        assert_eq!((index.slot(), index.generation()), (1_000_000, 2_047));
        assert_ne!(index, BackendIndex::new(1_000_000, 2_048));
        assert_eq!(BackendIndex::new(1_000_000, 2_048).generation(), 0);
    }

    #[test]
    fn a_drop_in_full_is_its_name_and_its_documentation_on_one_line() {
        assert_eq!(
            Verdict::Drop(DropReason::Ipv4HeaderLength).in_full(|_| String::new()),
            "drop: ipv4-header-length. The IPv4 header length is below 20 bytes or beyond the packet (RFC 791 \
             section 3.1)."
        );
        for reason in DropReason::ALL {
            let meaning = reason.meaning();
            // Links and code would show as such in a text that nobody renders.
            assert!(!meaning.contains(['\n', '`', '[']) && !meaning.contains("  "), "{meaning}");
            assert!(meaning.ends_with('.'), "{meaning}");
        }
        assert_eq!(DropReason::from_name("other"), None);
    }

    #[test]
    fn the_words_of_every_verdict_are_found_in_its_text_and_in_no_other() {
        let drops = DropReason::ALL.iter().copied().map(Verdict::Drop);
        let answers = AnswerKind::ALL.map(Verdict::Answer);
        let rest = [Verdict::Hold, Verdict::Probe, Verdict::Pass];
        let forward = Verdict::Forward(BackendIndex::new(3, 0));
        for verdict in drops.chain(answers).chain(rest).chain([forward]) {
            let name = |_| "web. 1".to_owned();
            let (text, words) = (verdict.in_full(name), verdict.in_words(name));
            assert_eq!(Verdict::words_in(&text), Some(&*words));
        }
        let old = "drop: no-service. As it was put once.";
        assert_eq!(Verdict::words_in(old), Some("drop: no-service"));
        for other in
            ["", "drop: ", "drop: other. Why", "answer: ", "answer: echo ", "Hold", "a remark"]
        {
            assert_eq!(Verdict::words_in(other), None, "{other:?}");
        }
    }

    #[test]
    fn drop_reasons_are_numbered_in_order_and_named_apart() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert_eq!(DropReason::from_name(reason.as_str()), Some(*reason));
        }
    }
}
