//! Which backends keep the flows they have, and for how long.
//!
//! A flow that is known goes where it went before any service is looked for: its backend says by itself
//! whether that is right. So the packets of ten thousand services cost what those of one do, as long as
//! they bring nothing new.

use super::flow_table::{Lifetimes, Steady};
use crate::flow::Protocol;
use crate::verdict::BackendIndex;

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
    /// What there is of times and of [`Keeping`], each pair once: services have few different ones.
    terms: Vec<Terms>,
}

#[derive(Clone, Copy, Debug)]
struct Keeper {
    index: BackendIndex,
    terms: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Terms {
    keeping: Keeping,
    steady: Steady,
}

impl Keepers {
    /// Of these backends, each with the times of its service; none where flows are not remembered. Of one
    /// that is named twice the last counts.
    pub(super) fn new<'a>(
        backends: impl IntoIterator<Item = (BackendIndex, Keeping, Option<&'a Lifetimes>)>,
    ) -> Self {
        let mut keepers: Vec<Keeper> = Vec::new();
        let mut terms = vec![Terms { keeping: Keeping::Nothing, steady: Steady::NEVER }];
        for (index, keeping, lives) in backends {
            let covered = |lives: &Lifetimes| lives.steady(|protocol| keeping.covers(protocol));
            let these = Terms { keeping, steady: lives.map_or(Steady::NEVER, covered) };
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
        Self { backends: keepers.into_boxed_slice(), terms }
    }

    /// None of an index that is out of date.
    #[inline]
    fn terms(&self, index: BackendIndex) -> Option<&Terms> {
        let keeper = self.backends.get(index.slot()).filter(|keeper| keeper.index == index)?;
        self.terms.get(keeper.terms as usize)
    }

    #[inline]
    pub(super) fn keeps(&self, index: BackendIndex, protocol: Protocol) -> bool {
        self.terms(index).is_some_and(|terms| terms.keeping.covers(protocol))
    }

    #[inline]
    pub(super) fn keeps_any(&self, index: BackendIndex) -> bool {
        self.terms(index).is_some_and(|terms| terms.keeping != Keeping::Nothing)
    }

    /// How long the flows of a backend live on by a packet that says nothing new.
    #[inline]
    pub(super) fn steady(&self, index: BackendIndex) -> &Steady {
        self.terms(index).map_or(&Steady::NEVER, |terms| &terms.steady)
    }
}
