//! What only the driver knows: its name, its queues in use, which of them it spreads packets over, its
//! rings, and what it does to packets before anybody sees them.
//!
//! What a driver does not know of is `None`; that it could not be asked is an error.

use super::link::MAX_NAME;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL`, linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GFLAGS` with its `ETH_FLAG_RXVLAN` and `ETH_FLAG_LRO`, linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
const FLAG_RX_VLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;
/// `ETHTOOL_GGRO` and `ETHTOOL_GTXCSUM`, each with one word that is not zero if it is on.
const GET_GRO: u32 = 0x2b;
const GET_TX_CHECKSUM: u32 = 0x16;
/// `ETHTOOL_GDRVINFO`: of `struct ethtool_drvinfo` the driver's name comes right after the command.
const GET_DRIVER: u32 = 0x03;
const DRIVER_INFO_WORDS: usize = 49;
const DRIVER_NAME_WORDS: usize = 8;
/// `ETHTOOL_GRINGPARAM`; the indices are fields of `struct ethtool_ringparam`.
const GET_RINGS: u32 = 0x10;
const RX_RING_MOST: usize = 1;
const RX_RING: usize = 5;
/// `ETHTOOL_GRXFHINDIR`: the number of entries, then the entries.
const GET_INDIRECTION: u32 = 0x38;
/// More entries than any driver is known to have.
const MOST_INDIRECTIONS: usize = 4096;
/// `ETHTOOL_GCHANNELS`; the indices are fields of `struct ethtool_channels`.
const GET_CHANNELS: u32 = 0x3c;
const RX_COUNT: usize = 5;
const TX_COUNT: usize = 6;
const COMBINED_COUNT: usize = 8;

/// `ETHTOOL_GSSET_INFO` of `ETH_SS_FEATURES`: a mask of sets in two words, then the size of each.
const GET_SET_SIZES: u32 = 0x37;
const FEATURES: u32 = 4;
/// `ETHTOOL_GSTRINGS`: the set, how many there are, and names of 32 bytes.
const GET_STRINGS: u32 = 0x1b;
const NAME_WORDS: usize = 8;
/// More features than any kernel is known to have.
const MOST_FEATURES: usize = 512;
/// `ETHTOOL_GFEATURES`: the number of blocks, and for each 32 features four words of bits.
const GET_FEATURES: u32 = 0x3a;
const BLOCK_WORDS: usize = 4;
const ACTIVE: usize = 2;

/// How many queues are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Queues {
    pub(crate) receive: u32,
    pub(crate) transmit: u32,
    /// Whether they are channels for both directions, which `ethtool -L` calls `combined`.
    pub(crate) combined: bool,
}

/// How many queues are in use, or `None` where the driver cannot tell.
pub(crate) fn queues(interface: &str) -> io::Result<Option<Queues>> {
    let mut channels = [0; 9];
    channels[0] = GET_CHANNELS;
    // A channel is a queue of its own kind or one for both directions.
    let queues = ask(interface, &mut channels)?.map(|()| Queues {
        receive: channels[RX_COUNT].saturating_add(channels[COMBINED_COUNT]),
        transmit: channels[TX_COUNT].saturating_add(channels[COMBINED_COUNT]),
        combined: channels[COMBINED_COUNT] > 0,
    });
    Ok(queues.filter(|queues| queues.receive > 0))
}

/// Whether the driver takes VLAN tags out of received frames; `None` where it cannot tell.
pub(crate) fn strips_vlan_tags(interface: &str) -> io::Result<Option<bool>> {
    Ok(word(interface, GET_FLAGS)?.map(|flags| flags & FLAG_RX_VLAN != 0))
}

/// Whether the NIC merges packets (LRO); `None` where the driver cannot tell.
pub(crate) fn merges_in_hardware(interface: &str) -> io::Result<Option<bool>> {
    Ok(word(interface, GET_FLAGS)?.map(|flags| flags & FLAG_LRO != 0))
}

/// Whether the NIC merges packets by the rules of GRO; `None` where the kernel does not know of that.
pub(crate) fn merges_by_gro_in_hardware(interface: &str) -> io::Result<Option<bool>> {
    feature(interface, "rx-gro-hw")
}

/// Whether the kernel merges received packets (GRO).
pub(crate) fn merges_in_kernel(interface: &str) -> io::Result<Option<bool>> {
    Ok(word(interface, GET_GRO)?.map(|on| on != 0))
}

/// Whether checksums of what is sent are left to the device.
pub(crate) fn leaves_checksums(interface: &str) -> io::Result<Option<bool>> {
    Ok(word(interface, GET_TX_CHECKSUM)?.map(|on| on != 0))
}

/// The driver's name, as in `veth`.
pub(crate) fn driver(interface: &str) -> io::Result<Option<String>> {
    let mut info = [0; DRIVER_INFO_WORDS];
    info[0] = GET_DRIVER;
    if ask(interface, &mut info)?.is_none() {
        return Ok(None);
    }
    let name = info.get(1..1 + DRIVER_NAME_WORDS).unwrap_or_default();
    let name = name.iter().flat_map(|word| word.to_ne_bytes());
    let name: Vec<u8> = name.take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8(name).ok().filter(|name| !name.is_empty()))
}

/// Entries of the NIC's RX rings: what they have, and what they could have; `None` where there are none.
pub(crate) fn receive_ring(interface: &str) -> io::Result<Option<(u32, u32)>> {
    let mut rings = [0; 9];
    rings[0] = GET_RINGS;
    let rings = ask(interface, &mut rings)?.map(|()| (rings[RX_RING], rings[RX_RING_MOST]));
    Ok(rings.filter(|(_, most)| *most > 0))
}

/// The table by which the NIC spreads packets over queues; `None` where there is none.
pub(crate) fn indirection(interface: &str) -> io::Result<Option<Vec<u32>>> {
    let mut size = [GET_INDIRECTION, 0];
    let Some(entries) = ask(interface, &mut size)?.map(|()| size[1] as usize).filter(|n| *n > 0)
    else {
        return Ok(None);
    };
    if entries > MOST_INDIRECTIONS {
        return Err(io::Error::other(format!("a table of {entries} entries")));
    }
    // The kernel writes as many entries as it is told to have room for, and refuses any other number
    // than that of the table.
    let mut table = [0; 2 + MOST_INDIRECTIONS];
    table[0] = GET_INDIRECTION;
    table[1] = size[1];
    let answer = ask(interface, &mut table)?;
    Ok(answer.and_then(|()| table.get(2..2 + entries).map(<[u32]>::to_vec)))
}

/// Whether a feature is on, by the name that `ethtool -k` has for it; `None` if there is none of that name.
fn feature(interface: &str, name: &str) -> io::Result<Option<bool>> {
    let [first, second] = halves(1 << FEATURES);
    let mut sizes = [GET_SET_SIZES, 0, first, second, 0];
    let Some(count) = ask(interface, &mut sizes)?.map(|()| sizes[4] as usize).filter(|n| *n > 0)
    else {
        return Ok(None);
    };
    if count > MOST_FEATURES {
        return Err(io::Error::other(format!("{count} features")));
    }
    // The kernel writes as many names as there are, which is fixed when it is built.
    let mut names = [0; 3 + MOST_FEATURES * NAME_WORDS];
    names[..3].copy_from_slice(&[GET_STRINGS, FEATURES, sizes[4]]);
    if ask(interface, &mut names)?.is_none() {
        return Ok(None);
    }
    let (names, _) = names[3..3 + count * NAME_WORDS].as_chunks::<NAME_WORDS>();
    let is_it = |words: &[u32; NAME_WORDS]| {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.take_while(|byte| *byte != 0).eq(name.bytes())
    };
    let Some(number) = names.iter().position(is_it) else {
        return Ok(None);
    };
    let mut blocks = [0; 2 + MOST_FEATURES / 32 * BLOCK_WORDS];
    blocks[..2].copy_from_slice(&[GET_FEATURES, (MOST_FEATURES / 32) as u32]);
    let answer = ask(interface, &mut blocks)?;
    let active = answer.and_then(|()| blocks.get(2 + number / 32 * BLOCK_WORDS + ACTIVE));
    Ok(active.map(|active| active >> (number % 32) & 1 != 0))
}

/// A long word as the kernel reads it out of two.
fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    let (halves, _) = bytes.as_chunks::<4>();
    [halves[0], halves[1]].map(u32::from_ne_bytes)
}

/// The answer to a command that has but one word of it.
fn word(interface: &str, command: u32) -> io::Result<Option<u32>> {
    let mut words = [command, 0];
    Ok(ask(interface, &mut words)?.map(|()| words[1]))
}

/// One ethtool command: `words[0]` is the command, the answer is written over the rest. `None` if that is
/// nothing that the driver knows of.
///
/// `N` must be at least the size of that command's structure in 32-bit words. The callers above use commands
/// whose structures are of fixed size, but for two that say in their second word how much room there is, and
/// `GET_STRINGS`, of whose set the size has been asked for.
fn ask<const N: usize>(interface: &str, words: &mut [u32; N]) -> io::Result<Option<()>> {
    if interface.len() > MAX_NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() },
    };
    // SAFETY: SIOCETHTOOL takes an `ifreq`, which lives until the call returns, with a name ended
    // by a zero (it is shorter than the array) and a pointer to the command's structure, which is
    // `words`: exclusively borrowed, and as long as the kernel writes (see above).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) };
    if result >= 0 {
        return Ok(Some(()));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ethtool -k lo` shows: features of the first block and of the second.
    #[test]
    fn features_are_found_by_their_names() {
        let of = |name| feature("lo", name).unwrap();
        assert_eq!(of("rx-gro-hw"), Some(false));
        assert_eq!(of("tx-checksum-ip-generic"), Some(true));
        assert_eq!(of("loopback"), Some(true));
        assert_eq!(of("rx-gro-h"), None);
    }

    #[test]
    fn what_a_driver_does_not_know_of_is_no_failure_to_ask_it() {
        assert_eq!(queues("lo").unwrap(), None);
        assert_eq!(receive_ring("lo").unwrap(), None);
        assert_eq!(indirection("lo").unwrap(), None);
        assert_eq!(merges_in_hardware("lo").unwrap(), Some(false));
        fn refused<T>(question: fn(&str) -> io::Result<Option<T>>) -> Option<i32> {
            question("no-such-link").err()?.raw_os_error()
        }
        let all = [
            refused(queues),
            refused(strips_vlan_tags),
            refused(merges_in_hardware),
            refused(merges_by_gro_in_hardware),
            refused(merges_in_kernel),
            refused(leaves_checksums),
            refused(driver),
            refused(receive_ring),
            refused(indirection),
        ];
        assert_eq!(all, [Some(libc::ENODEV); 9]);
        let long = queues("a-name-that-no-interface-has").unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }
}
