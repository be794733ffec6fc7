//! Which backends keep the flows they have, and for how long.
//!
//! A flow that is known goes where it went before any service is looked for: its backend says by itself
//! whether that is right. So packets that bring nothing new look at no service, however many there are.

use super::flow_table::{Lease, Lifetimes, Signal, Steady};
use crate::addresses::addresses;
use crate::flow::Protocol;
use crate::verdict::BackendIndex;
use prefetch_index::prefetch_index;
use std::ops::Range;

/// Which of the flows it has a backend keeps, where flows are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeping {
    /// None.
    Nothing,
    /// Connections: TCP and SCTP.
    Connections,
    /// All of them.
    Everything,
}

impl Keeping {
    #[inline]
    const fn covers(self, protocol: Protocol) -> bool {
        match self {
            Self::Nothing => false,
            Self::Connections => matches!(protocol, Protocol::TCP | Protocol::SCTP),
            Self::Everything => true,
        }
    }
}

/// The backends of one snapshot, by slot.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    backends: Box<[Keeper]>,
    /// What there is of [`Keeping`] and of times, each pair once, side by side: services have few different ones.
    keeping: Vec<Keeping>,
    /// What packets renew then, by what each says.
    renewals: Vec<[Lease; Signal::COUNT]>,
}

/// What packets need of so many backends stays in the caches by itself: some 50 bytes each.
pub(crate) const AT_HAND: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Keeper {
    index: BackendIndex,
    terms: u32,
}

impl Keepers {
    /// Of these backends, each with the times of its service; none where flows are not remembered. Of one
    /// that is named twice the last counts.
    pub(super) fn new<'a>(
        backends: impl IntoIterator<Item = (BackendIndex, Keeping, Option<&'a Lifetimes>)>,
    ) -> Self {
        let mut keepers: Vec<Keeper> = Vec::new();
        let mut terms = vec![(Keeping::Nothing, Steady::NEVER)];
        for (index, keeping, lives) in backends {
            let covered = |lives: &Lifetimes| lives.steady(|protocol| keeping.covers(protocol));
            let these = (keeping, lives.map_or(Steady::NEVER, covered));
            let position = terms.iter().position(|known| *known == these).unwrap_or_else(|| {
                terms.push(these);
                terms.len() - 1
            });
            if keepers.len() <= index.slot() {
                let nobody = Keeper { index: BackendIndex::new(0, 0), terms: 0 };
                keepers.resize(index.slot() + 1, nobody);
            }
            if let Some(keeper) = keepers.get_mut(index.slot()) {
                *keeper = Keeper { index, terms: position as u32 };
            }
        }
        let renewals = |(keeping, steady): (Keeping, Steady)| (keeping, *steady.renewals());
        let (keeping, renewals) = terms.into_iter().map(renewals).unzip();
        Self { backends: keepers.into_boxed_slice(), keeping, renewals }
    }

    /// Where what packets read of this lies in memory, by its addresses.
    pub(super) fn memory(&self) -> Range<usize> {
        addresses(&self.backends)
    }

    /// Has what is read of a backend's flow fetched, if there are so many that it may not be at hand.
    #[inline(always)]
    pub(super) fn fetch(&self, indices: impl Iterator<Item = BackendIndex>) {
        if self.backends.len() > AT_HAND {
            indices.for_each(|index| prefetch_index(&self.backends, index.slot()));
        }
    }

    /// None of an index that is out of date.
    #[inline(always)]
    fn terms(&self, index: BackendIndex) -> Option<usize> {
        let keeper = self.backends.get(index.slot())?;
        (keeper.index == index).then_some(keeper.terms as usize)
    }

    #[inline]
    fn keeping(&self, index: BackendIndex) -> Keeping {
        let keeping = self.terms(index).and_then(|terms| self.keeping.get(terms));
        keeping.copied().unwrap_or(Keeping::Nothing)
    }

    #[inline]
    pub(super) fn keeps(&self, index: BackendIndex, protocol: Protocol) -> bool {
        self.keeping(index).covers(protocol)
    }

    #[inline]
    pub(super) fn keeps_any(&self, index: BackendIndex) -> bool {
        self.keeping(index) != Keeping::Nothing
    }

    /// What a packet that says this does to a flow of a backend, if nothing new.
    #[inline(always)]
    pub(super) fn renewal(&self, index: BackendIndex, signal: Signal) -> Lease {
        let all = self.renewals.as_flattened();
        let renewal =
            self.terms(index).and_then(|terms| all.get(terms * Signal::COUNT + signal as usize));
        renewal.copied().unwrap_or(Lease::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow_table::FlowTimes;
    use super::*;

    #[test]
    fn a_backend_keeps_what_it_is_said_to_and_one_that_is_gone_keeps_nothing() {
        let lives = Lifetimes::from(&FlowTimes::default());
        let index = |slot| BackendIndex::new(slot, 1);
        let keepers = Keepers::new([
            (index(1), Keeping::Connections, Some(&lives)),
            (index(3), Keeping::Everything, Some(&lives)),
            (index(4), Keeping::Everything, None),
            (index(5), Keeping::Everything, Some(&lives)),
            (index(5), Keeping::Nothing, Some(&lives)),
        ]);
        let all = lives.steady(|_| true);
        let connections =
            lives.steady(|protocol| protocol != Protocol::UDP && protocol != Protocol::ESP);
        for (index, tcp, udp, steady) in [
            (index(1), true, false, connections),
            (index(3), true, true, all),
            // Of a service without memory: its flows may stay by their connection IDs.
            (index(4), true, true, Steady::NEVER),
            (index(5), false, false, Steady::NEVER),
            // Others that had, or will have, these slots; and slots that nobody is in.
            (BackendIndex::new(1, 0), false, false, Steady::NEVER),
            (BackendIndex::new(3, 2), false, false, Steady::NEVER),
            (BackendIndex::new(0, 0), false, false, Steady::NEVER),
            (BackendIndex::new(9, 1), false, false, Steady::NEVER),
        ] {
            assert_eq!(keepers.keeps(index, Protocol::TCP), tcp, "{index:?}");
            assert_eq!(keepers.keeps(index, Protocol::UDP), udp, "{index:?}");
            assert_eq!(keepers.keeps_any(index), tcp || udp, "{index:?}");
            for signal in [Signal::Syn, Signal::Data, Signal::Udp, Signal::Sctp, Signal::Other] {
                let renewal = keepers.renewal(index, signal);
                assert_eq!(renewal, steady.of(signal), "{index:?} {signal:?}");
            }
        }
    }
}
