//! What packets do to a flow: the one place where that is decided.

use crate::flow::{PacketInfo, PacketKind, Protocol, Segment, TcpFlags};
use std::fmt;

/// What a packet says about its flow. Only the client's half is ever seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Signal {
    /// A TCP segment that opens a connection: SYN without ACK, FIN or RST.
    Syn,
    /// A TCP segment with ACK and without SYN, FIN or RST: a client sends those only after it has
    /// heard from the backend (RFC 9293 section 3.10.7.4: all that is not SYN or RST has ACK).
    Data,
    /// The same with FIN.
    Fin,
    /// A TCP segment with RST. It proves nothing: whoever gets the SYN-ACK to a forged SYN sends one.
    Reset,
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp,
    /// A packet of any other protocol.
    Other,
    /// A packet that tells nothing of whether the client is alive: TCP flags that no client sends,
    /// or an ICMP error. It goes where the flow goes and changes nothing.
    Stray,
}

impl Signal {
    pub(in crate::balancer) const COUNT: usize = Self::Stray as usize + 1;

    /// The state of a flow of which this is the usual packet: it goes on as it was. See [`step`].
    pub(super) const fn steady(self) -> Option<State> {
        match self {
            Self::Data => Some(State::Established),
            Self::Udp | Self::Sctp | Self::Other => Some(State::Active),
            Self::Syn | Self::Fin | Self::Reset | Self::Stray => None,
        }
    }

    /// What a whole segment or datagram says, if that is nothing new: only then may its flow go on as it was. Else
    /// [`Signal::Stray`].
    #[inline(always)]
    pub(in crate::balancer) const fn steady_of<const N: usize>(segment: &Segment<N>) -> Self {
        const TELLING: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;
        match segment.protocol {
            Protocol::TCP if segment.tcp_flags.0 & TELLING == TcpFlags::ACK => Self::Data,
            Protocol::UDP => Self::Udp,
            _ => Self::Stray,
        }
    }

    /// What this packet says. Later fragments say nothing that could be told here: they have no
    /// ports, so their flow is not known.
    #[inline]
    pub fn of(packet: &PacketInfo) -> Self {
        if packet.kind != PacketKind::Ordinary && packet.kind != PacketKind::EchoRequest {
            return Self::Stray;
        }
        match packet.flow.protocol {
            Protocol::TCP => Self::of_tcp(packet.tcp_flags),
            Protocol::UDP => Self::Udp,
            Protocol::SCTP => Self::Sctp,
            _ => Self::Other,
        }
    }

    #[inline]
    fn of_tcp(flags: TcpFlags) -> Self {
        Self::TCP.get(usize::from(flags.0 % 32)).copied().unwrap_or(Self::Stray)
    }

    /// What TCP segments say, by their five lowest flags. A table, since no branch by them is predicted
    /// for all clients.
    const TCP: [Self; 32] = {
        let mut table = [Self::Stray; 32];
        let mut flags = 0;
        while flags < 32 {
            let segment = TcpFlags(flags);
            let [syn, fin, rst, ack] = [
                segment.has(TcpFlags::SYN),
                segment.has(TcpFlags::FIN),
                segment.has(TcpFlags::RST),
                segment.has(TcpFlags::ACK),
            ];
            table[flags as usize] = match (syn, fin, rst, ack) {
                (false, _, true, _) => Self::Reset,
                (true, false, false, false) => Self::Syn,
                (false, true, false, true) => Self::Fin,
                (false, false, false, true) => Self::Data,
                _ => Self::Stray,
            };
            flags += 1;
        }
        table
    };
}

/// What is known of a flow.
///
/// The first two are *unproven*: nothing shows that who sends has ever heard from a backend, so they
/// live in the share of the table that costs proven flows nothing. The order is the rank: what has
/// the lower one gives way. What is proven has a bit of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// A SYN has been seen, or several of the same connection.
    Opening = 1,
    /// One packet that is no SYN, of a flow that was not known. One more proves it.
    Single = 2,
    /// TCP: proven.
    Established = 4,
    /// Any other protocol: proven, as far as that can be told.
    Active = 5,
    /// TCP: proven, and then FIN or RST was seen.
    Closing = 6,
}

impl State {
    /// Whether nothing else may take the flow's place while it lives.
    pub const fn is_proven(self) -> bool {
        matches!(self, Self::Established | Self::Active | Self::Closing)
    }

    /// The lowest three bits are read.
    #[inline]
    pub(super) const fn from_bits(bits: u32) -> Option<Self> {
        const STATES: [Option<State>; 8] = [
            None,
            Some(State::Opening),
            Some(State::Single),
            None,
            Some(State::Established),
            Some(State::Active),
            Some(State::Closing),
            None,
        ];
        STATES[bits as usize % STATES.len()]
    }
}

/// What becomes of a known flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// It has this state now and its full time to live.
    Renew(State),
    /// It has this state now and the time of a closing one to live, unless less is left.
    Shorten(State),
    /// It is another flow with the same addresses and ports: forget the old one.
    Reselect,
}

/// The state that a packet of an unknown flow begins with; none if the flow is not worth a place.
///
/// FIN and RST of an unknown flow are the end of something: they are served and not remembered.
#[inline]
pub(super) const fn first(signal: Signal) -> Option<State> {
    match signal {
        Signal::Syn => Some(State::Opening),
        Signal::Data | Signal::Udp | Signal::Sctp | Signal::Other => Some(State::Single),
        Signal::Fin | Signal::Reset | Signal::Stray => None,
    }
}

/// The same of a flow that was there before and is not in the table: as [`step`] leaves a proven one. Of TCP
/// alone, where SYNs tell what is new.
#[inline]
pub(super) const fn resumed(signal: Signal) -> Option<State> {
    match signal {
        Signal::Data => Some(State::Established),
        // Else the ACK that follows would seem to go on with a connection that is over.
        Signal::Fin => Some(State::Closing),
        _ => first(signal),
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Single => "single",
            Self::Established => "established",
            Self::Active => "active",
            Self::Closing => "closing",
        })
    }
}

/// What a packet does to a known flow. `recent`: the flow was last heard of within the time in which
/// a SYN may be a late copy.
#[inline]
pub(super) const fn step(state: State, signal: Signal, recent: bool) -> Step {
    use Step::{Keep, Renew, Reselect, Shorten};
    match (state, signal) {
        (_, Signal::Stray) => Keep,
        // A retransmission for as long as the entry lives, and that is counted from the first SYN.
        (State::Opening, Signal::Syn) => Keep,
        // A copy that was overtaken, or the address and port used again.
        (State::Single | State::Established, Signal::Syn) if recent => Keep,
        (State::Single | State::Established, Signal::Syn) => Reselect,
        // The old connection is over; the new one must not inherit its short life.
        (State::Closing, Signal::Syn) => Reselect,

        (State::Opening | State::Single | State::Established, Signal::Data) => {
            Renew(State::Established)
        }
        (State::Opening | State::Single | State::Established, Signal::Fin) => {
            Shorten(State::Closing)
        }
        (State::Established, Signal::Reset) => Shorten(State::Closing),
        (State::Opening | State::Single, Signal::Reset) => Shorten(state),
        // A download whose client has said all it has to say, or a connection whose RST was forged
        // (RFC 5961 section 3): it goes on for as long as something is heard of it.
        (State::Closing, Signal::Data) => Renew(State::Closing),
        (State::Closing, Signal::Fin | Signal::Reset) => Keep,

        (State::Single | State::Active, Signal::Udp | Signal::Sctp | Signal::Other) => {
            Renew(State::Active)
        }
        // One key is of one protocol: only two keys with the same hash can meet here.
        (State::Active, _) | (_, Signal::Udp | Signal::Sctp | Signal::Other) => Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FiveTuple, Fragment};

    #[test]
    fn the_whole_table() {
        use State::{Active, Closing, Established, Opening, Single};
        use Step::{Keep, Renew, Reselect, Shorten};
        let signals = [Signal::Syn, Signal::Data, Signal::Fin, Signal::Reset, Signal::Stray];
        #[rustfmt::skip]
        let tcp = [
            // state, recent      SYN       DATA                FIN               RST                   stray
            (Opening, false,     [Keep,     Renew(Established), Shorten(Closing), Shorten(Opening),     Keep]),
            (Opening, true,      [Keep,     Renew(Established), Shorten(Closing), Shorten(Opening),     Keep]),
            (Single, false,      [Reselect, Renew(Established), Shorten(Closing), Shorten(Single),      Keep]),
            (Single, true,       [Keep,     Renew(Established), Shorten(Closing), Shorten(Single),      Keep]),
            (Established, false, [Reselect, Renew(Established), Shorten(Closing), Shorten(Closing),     Keep]),
            (Established, true,  [Keep,     Renew(Established), Shorten(Closing), Shorten(Closing),     Keep]),
            (Closing, false,     [Reselect, Renew(Closing),     Keep,             Keep,                 Keep]),
            (Closing, true,      [Reselect, Renew(Closing),     Keep,             Keep,                 Keep]),
        ];
        for (state, recent, steps) in tcp {
            for (signal, expected) in signals.into_iter().zip(steps) {
                assert_eq!(step(state, signal, recent), expected, "{state:?} {signal:?} {recent}");
            }
        }
        for signal in [Signal::Udp, Signal::Sctp, Signal::Other] {
            assert_eq!(step(Single, signal, true), Renew(Active));
            assert_eq!(step(Active, signal, false), Renew(Active));
            assert_eq!(step(Active, Signal::Stray, false), Keep);
        }
        let begins = [Some(Opening), Some(Single), None, None, None];
        assert_eq!(signals.map(first), begins);
        assert_eq!([Signal::Udp, Signal::Sctp, Signal::Other].map(first), [Some(Single); 3]);
        let resumes = [Some(Opening), Some(Established), Some(Closing), None, None];
        assert_eq!(signals.map(resumed), resumes);
        assert_eq!([Signal::Udp, Signal::Sctp, Signal::Other].map(resumed), [Some(Single); 3]);
    }

    #[test]
    fn only_what_a_client_says_after_the_first_half_of_the_handshake_is_data() {
        const SYN: u8 = TcpFlags::SYN;
        const ACK: u8 = TcpFlags::ACK;
        const FIN: u8 = TcpFlags::FIN;
        const RST: u8 = TcpFlags::RST;
        for (flags, signal) in [
            (SYN, Signal::Syn),
            (SYN | 0xc0, Signal::Syn), // ECN setup (RFC 3168 section 6.1.1)
            (SYN | ACK, Signal::Stray),
            (SYN | FIN, Signal::Stray),
            (SYN | RST, Signal::Stray),
            (ACK, Signal::Data),
            (ACK | 8, Signal::Data),
            (ACK | FIN, Signal::Fin),
            (FIN, Signal::Stray),
            (RST, Signal::Reset),
            (RST | ACK | FIN, Signal::Reset),
            (0, Signal::Stray),
        ] {
            assert_eq!(Signal::of_tcp(TcpFlags(flags)), signal, "{flags:#x}");
        }
    }

    #[test]
    fn the_protocol_and_the_kind_decide_before_the_flags() {
        let packet = |protocol, kind| {
            let address = std::net::IpAddr::from([192, 0, 2, 1]);
            let flow = FiveTuple {
                source: address,
                destination: address,
                source_port: 1,
                destination_port: 2,
                protocol,
            };
            PacketInfo { kind, ..PacketInfo::new(flow, Fragment::Whole, TcpFlags(TcpFlags::SYN)) }
        };
        for (protocol, kind, signal) in [
            (Protocol::TCP, PacketKind::Ordinary, Signal::Syn),
            (Protocol::UDP, PacketKind::Ordinary, Signal::Udp),
            (Protocol::SCTP, PacketKind::Ordinary, Signal::Sctp),
            (Protocol::ESP, PacketKind::Ordinary, Signal::Other),
            (Protocol::ICMP, PacketKind::EchoRequest, Signal::Other),
            (Protocol::TCP, PacketKind::IcmpError, Signal::Stray),
            (Protocol::UDP, PacketKind::StrayError, Signal::Stray),
        ] {
            assert_eq!(Signal::of(&packet(protocol, kind)), signal, "{protocol} {kind:?}");
        }
    }

    #[test]
    fn a_steady_packet_renews_a_flow_and_changes_nothing() {
        let all = [
            Signal::Syn,
            Signal::Data,
            Signal::Fin,
            Signal::Reset,
            Signal::Udp,
            Signal::Sctp,
            Signal::Other,
            Signal::Stray,
        ];
        assert_eq!(all.len(), Signal::COUNT);
        let steady = all.into_iter().filter_map(|signal| Some((signal.steady()?, signal)));
        let mut count = 0;
        for (state, signal) in steady {
            for recent in [false, true] {
                assert_eq!(step(state, signal, recent), Step::Renew(state), "{signal:?}");
            }
            assert!(state.is_proven());
            count += 1;
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn states_survive_their_bits() {
        for bits in 0..8 {
            if let Some(state) = State::from_bits(bits) {
                assert_eq!(state as u32, bits);
            }
        }
        assert_eq!((0..8).filter_map(State::from_bits).count(), 5);
    }
}
