//! How long flows are remembered, and the coarse time that entries are stamped with.

use super::entry::Life;
use super::state::{self, Signal, State};
use crate::error::ConfigProblem;
use crate::flow::{Protocol, Timestamp};
use std::time::Duration;

/// How long a flow is remembered after its last packet, by what is known of it. Each service may
/// have its own.
///
/// To forget a flow that is alive is no disaster: its next packet goes where the selector says, which
/// is where it went before unless the pool has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", default, deny_unknown_fields)
)]
pub struct FlowTimes {
    /// From the first SYN of a connection until it is proven, or from a single packet of an unknown
    /// one; while it lasts, another SYN is a retransmission. 60 s: clients send SYNs after 1, 3, 7, 15
    /// and 31 s (RFC 6298 sections 2.1 and 5.5).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub syn: Duration,
    /// A SYN this soon after another packet of a proven flow is a late copy and not a new connection.
    /// 3 s: the largest timeout a SYN starts with (RFC 6298 section 5.7, RFC 1122 section 4.2.3.1).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub copy: Duration,
    /// A proven TCP connection. 15 min, as IPVS (`ipvsadm --set`); NATs must keep theirs for two
    /// hours (RFC 5382 section 5), but a NAT that forgets has nowhere to send the packet.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub established: Duration,
    /// From FIN or RST, and from data after it, as of a download whose client has nothing more to say.
    /// 30 s: a FIN that is lost again and again is sent again after 1, 3, 7 and 15 s at the latest where
    /// round trips are short (RFC 6298 section 2.4).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub closing: Duration,
    /// UDP. 60 s: flows that live for longer send keep-alives for middleboxes, every 15 s or little
    /// more (RFC 8085 section 3.5).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub udp: Duration,
    /// UDP of a service that routes by QUIC connection ID. 120 s: what NATs are to keep (RFC 4787
    /// section 4.3), by which QUIC clients go (RFC 9308 section 3.2).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub quic: Duration,
    /// SCTP. 120 s: four heartbeats (RFC 9260 section 16).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub sctp: Duration,
    /// Any other protocol. 120 s: six keep-alives of IPsec through a NAT (RFC 3948 section 2.3).
    #[cfg_attr(feature = "serde", serde(with = "crate::text::duration"))]
    pub other: Duration,
}

impl Default for FlowTimes {
    fn default() -> Self {
        Self {
            syn: Duration::from_secs(60),
            copy: Duration::from_secs(3),
            established: Duration::from_secs(15 * 60),
            closing: Duration::from_secs(30),
            udp: Duration::from_secs(60),
            quic: Duration::from_secs(120),
            sctp: Duration::from_secs(120),
            other: Duration::from_secs(120),
        }
    }
}

impl FlowTimes {
    /// Nothing is remembered for longer: 200 days.
    pub const LONGEST: Duration = Duration::from_secs(200 * 24 * 60 * 60);

    /// Each time with the name that it has in configurations.
    fn named(&self) -> [(&'static str, Duration); 8] {
        [
            ("syn", self.syn),
            ("copy", self.copy),
            ("established", self.established),
            ("closing", self.closing),
            ("udp", self.udp),
            ("quic", self.quic),
            ("sctp", self.sctp),
            ("other", self.other),
        ]
    }

    /// What is wrong, each path beginning with `prefix`. That no SYN is a copy is no mistake: then each
    /// chooses anew.
    pub(crate) fn problems(&self, prefix: &str) -> Vec<ConfigProblem> {
        let longest = Self::LONGEST;
        let wrong =
            |(name, time): &(&str, Duration)| *time > longest || time.is_zero() && *name != "copy";
        let problem = |(name, time): (&str, Duration)| ConfigProblem {
            path: format!("{prefix}{name}"),
            value: format!("{time:?}"),
            expected: match name {
                "copy" => format!("must be at most {longest:?}"),
                _ => format!("must be more than nothing and at most {longest:?}"),
            },
        };
        self.named().into_iter().filter(wrong).map(problem).collect()
    }
}

/// The bits of a [`Timestamp`] below a tick: one is 2^27 ns, about 134 ms.
const TICK_BITS: u32 = 27;
/// The same as a time.
pub(in crate::balancer) const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);
/// Entries have 28 bits for the tick at which they end.
pub(super) const MAX_TICK: u32 = (1 << 28) - 1;
/// No entry lives longer: 2^27 ticks are 208 days.
const MAX_LIFE: u32 = 1 << 27;
/// When to begin to count from a later tick, so that now and the longest life fit.
const REBASE_AT: u32 = 1 << 26;
const _: () = assert!(REBASE_AT + MAX_LIFE <= MAX_TICK);

/// A time, and the same as the table counts it; that is not later than [`REBASE_AT`], so that no life from it on is cut
/// short.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    pub(in crate::balancer) time: Timestamp,
    pub(super) ticks: u32,
}

/// [`FlowTimes`] in ticks, so that no packet has to divide. Made once for each service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    pub(super) copy: u32,
    pub(super) established: u32,
    pub(super) closing: u32,
    /// Of what is neither of these, by [`Signal`].
    others: [u32; Signal::COUNT],
}

impl From<&FlowTimes> for Lifetimes {
    /// For a service that does not route by QUIC connection ID. Nothing lives shorter than is said, and at most two ticks longer. Beyond 208 days is 208 days.
    fn from(times: &FlowTimes) -> Self {
        let ticks = |time: Duration| {
            let ticks = (time.as_nanos() >> TICK_BITS) + u128::from(lower_bits(time) != 0);
            // A life that begins late in a tick ends after as many whole ones.
            u32::try_from(ticks + 1).unwrap_or(MAX_LIFE).min(MAX_LIFE)
        };
        let mut others = [ticks(times.syn); Signal::COUNT];
        for (signal, time) in
            [(Signal::Udp, times.udp), (Signal::Sctp, times.sctp), (Signal::Other, times.other)]
        {
            if let Some(place) = others.get_mut(signal as usize) {
                *place = ticks(time);
            }
        }
        Self {
            copy: ticks(times.copy),
            established: ticks(times.established),
            closing: ticks(times.closing),
            others,
        }
    }
}

const fn lower_bits(time: Duration) -> u128 {
    time.as_nanos() % (1 << TICK_BITS)
}

impl Lifetimes {
    /// The same for a service that routes by QUIC connection ID: its UDP is QUIC.
    pub(in crate::balancer) fn of_quic(self, times: &FlowTimes) -> Self {
        let quic = FlowTimes { udp: times.quic, ..*times };
        Self { others: Self::from(&quic).others, ..self }
    }

    /// For how long a proven flow of this protocol may be silent, in nanoseconds.
    #[inline]
    pub(in crate::balancer) fn idle(&self, protocol: Protocol) -> u64 {
        let ticks = match protocol {
            Protocol::TCP => self.established,
            Protocol::UDP => self.otherwise(Signal::Udp),
            Protocol::SCTP => self.otherwise(Signal::Sctp),
            _ => self.otherwise(Signal::Other),
        };
        (ticks as u64) << TICK_BITS
    }

    /// The longest of those.
    pub(in crate::balancer) fn longest(&self) -> u64 {
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ESP];
        protocols.map(|protocol| self.idle(protocol)).into_iter().max().unwrap_or_default()
    }

    /// What packets that say nothing new do to proven flows, of the protocols that this is true of.
    pub fn steady(&self, is_kept: impl Fn(Protocol) -> bool) -> Steady {
        let mut steady = Steady::NEVER;
        for (signal, protocol) in [
            (Signal::Data, Protocol::TCP),
            (Signal::Udp, Protocol::UDP),
            (Signal::Sctp, Protocol::SCTP),
            (Signal::Other, Protocol::ESP),
        ] {
            if let (Some(state), Some(renewal)) =
                (signal.steady(), steady.0.get_mut(signal as usize).filter(|_| is_kept(protocol)))
            {
                *renewal = Lease::new(state, self.of(state, signal));
            }
        }
        steady
    }

    /// What a flow begins with by this packet; nothing if it is not worth a place.
    #[inline(always)]
    pub fn first(&self, signal: Signal) -> Lease {
        state::first(signal).map_or(Lease::NONE, |state| Lease::new(state, self.otherwise(signal)))
    }

    /// The same for a flow that is known from elsewhere to have gone on before: it is proven by this packet.
    #[inline]
    pub(in crate::balancer) fn resumed(&self, signal: Signal) -> Lease {
        let state = state::resumed(signal);
        state.map_or(Lease::NONE, |state| Lease::new(state, self.of(state, signal)))
    }

    /// How long a flow in this state lives after this packet.
    #[inline]
    pub(super) fn of(&self, state: State, signal: Signal) -> u32 {
        match state {
            State::Closing => self.closing,
            State::Established => self.established,
            State::Opening | State::Single | State::Active => self.otherwise(signal),
        }
    }

    /// The same of a flow that is neither an established connection nor a closing one: as one that is not proven.
    #[inline(always)]
    pub(super) fn otherwise(&self, signal: Signal) -> u32 {
        self.others.get(signal as usize).copied().unwrap_or_default()
    }
}

/// The state of a flow, and for how long it lives in that: a life as of a clock that stands at zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease(Life);

impl Lease {
    /// Of no flow, whatever its state.
    pub const NONE: Self = Self(Life::NONE);

    #[inline]
    pub(super) fn new(state: State, ticks: u32) -> Self {
        Self(Life::new(state, ticks))
    }

    /// Whether it is for the state that a flow with this life is in. What has no life has no state either.
    #[inline(always)]
    pub(super) const fn suits(self, life: Life) -> bool {
        self.0.rank() == life.rank()
    }

    /// The life from now on; without a state if this has none.
    #[inline(always)]
    pub(super) const fn from(self, now: Tick) -> Life {
        self.0.later(now.ticks)
    }
}

/// What each packet renews, by its [`Signal`]: nothing where it says more than that a flow goes on, or such flows are not
/// kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steady([Lease; Signal::COUNT]);

impl Steady {
    pub(in crate::balancer) const NEVER: Self = Self([Lease::NONE; Signal::COUNT]);

    /// All of them, in the order of [`Signal`].
    pub(in crate::balancer) const fn renewals(&self) -> &[Lease; Signal::COUNT] {
        &self.0
    }

    /// After a packet that says this.
    #[inline]
    pub fn of(&self, signal: Signal) -> Lease {
        self.0.get(signal as usize).copied().unwrap_or(Lease::NONE)
    }
}

/// Counts ticks from one that moves up now and then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: u64,
}

impl Clock {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { base: now.0 >> TICK_BITS }
    }

    /// The tick it is. A time before the first one is the first one.
    #[inline]
    pub(super) fn ticks(&self, now: Timestamp) -> u32 {
        let ticks = (now.0 >> TICK_BITS).saturating_sub(self.base);
        ticks.min(u64::from(MAX_TICK)) as u32
    }

    /// Moves the beginning up to now if it is far back, and says by how much: once in 104 days.
    pub(super) fn rebase(&mut self, now: Timestamp) -> Option<u32> {
        let before = self.ticks(now);
        (before >= REBASE_AT).then(|| {
            self.base = now.0 >> TICK_BITS;
            before
        })
    }

    pub(super) const fn duration(ticks: u32) -> Duration {
        Duration::from_nanos((ticks as u64) << TICK_BITS)
    }

    pub(super) fn life(time: Duration) -> u32 {
        u32::try_from(time.as_nanos() >> TICK_BITS).unwrap_or(MAX_LIFE).min(MAX_LIFE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_rounded_up_and_bounded() {
        let tick = Clock::duration(1);
        let of = |udp| {
            Lifetimes::from(&FlowTimes { udp, ..FlowTimes::default() }).otherwise(Signal::Udp)
        };
        assert_eq!(of(Duration::ZERO), 1);
        assert_eq!(of(Duration::from_nanos(1)), 2);
        assert_eq!(of(tick), 2);
        assert_eq!(of(tick + Duration::from_nanos(1)), 3);
        assert_eq!(of(Duration::MAX), MAX_LIFE);
        assert_eq!(of(Duration::from_secs(60)), 449);
    }

    #[test]
    fn the_clock_starts_anywhere_and_never_runs_back() {
        let start = Timestamp(1_800_000_000_000_000_000);
        let mut clock = Clock::new(start);
        assert_eq!(clock.ticks(start), 0);
        assert_eq!(clock.ticks(Timestamp(0)), 0);
        assert_eq!(clock.ticks(Timestamp(start.0 + (5 << TICK_BITS))), 5);
        assert_eq!(clock.ticks(Timestamp(u64::MAX)), MAX_TICK);
        let later = Timestamp(start.0 + ((u64::from(REBASE_AT) - 1) << TICK_BITS));
        assert_eq!(clock.rebase(later), None);
        let later = Timestamp(later.0 + (1 << TICK_BITS));
        assert_eq!(clock.rebase(later), Some(REBASE_AT));
        assert_eq!(clock.ticks(later), 0);
    }
}
