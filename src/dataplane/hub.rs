//! Flows shared between the workers of one process: [`FlowSync`] without a network.

use crate::balancer::{FlowSync, SharedFlow};
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Connects the balancers of several directors in one process; for each director, a [`HubSide`].
///
/// ```
/// use dsrlb::balancer::FlowBalancer;
/// use dsrlb::dataplane::Hub;
/// use dsrlb::flow::HashKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new(Hub::ROOM);
/// let secret = HashKey::new(*b"sixteen secrets!");
/// // One director has two workers, which do not hear of each other's flows; another has one.
/// let (first, second) = (hub.side(), hub.side());
/// let balancer = || FlowBalancer::new(1 << 16, 4096, secret);
/// let one = balancer()?.sync(first.member());
/// let two = balancer()?.sync(first.member());
/// let other = balancer()?.sync(second.member());
/// # Ok(())
/// # }
/// ```
///
/// With `Director`: `Director::builder("eth0").sync(secret, move |_queue| side.member())`.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    room: usize,
}

#[derive(Debug, Default)]
struct Shared {
    /// Replaced when somebody comes or goes; read without locks.
    members: ArcSwap<Vec<Peer>>,
    numbers: AtomicU64,
}

#[derive(Clone, Debug)]
struct Peer {
    number: u64,
    side: u64,
    sender: SyncSender<SharedFlow>,
}

impl Shared {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Hub {
    /// The usual room: what one worker tells in a 60th of its interval with a million flows.
    pub const ROOM: usize = 1 << 14;

    /// A hub whose members hold this many flows each that have come and are not taken in yet, at 32 bytes
    /// each, and at least 1. What does not fit is lost until it is told again.
    pub fn new(room: usize) -> Self {
        Self { shared: Arc::default(), room: room.max(1) }
    }

    /// For another director.
    pub fn side(&self) -> HubSide {
        HubSide { hub: self.clone(), number: self.shared.number() }
    }
}

/// One director's part in a [`Hub`].
#[derive(Clone, Debug)]
pub struct HubSide {
    hub: Hub,
    number: u64,
}

impl HubSide {
    /// For another worker: hears from now on what workers of other sides tell, and is heard by them.
    pub fn member(&self) -> HubMember {
        let Hub { shared, room } = &self.hub;
        let (sender, inbox) = sync_channel(*room);
        let peer = Peer { number: shared.number(), side: self.number, sender };
        let (number, side) = (peer.number, peer.side);
        shared.members.rcu(|members| {
            let mut members = Vec::clone(members);
            members.push(peer.clone());
            members
        });
        HubMember { shared: Arc::clone(shared), number, side, inbox }
    }
}

/// One worker's part in a [`Hub`]; it leaves when this is dropped.
pub struct HubMember {
    shared: Arc<Shared>,
    number: u64,
    side: u64,
    inbox: Receiver<SharedFlow>,
}

impl FlowSync for HubMember {
    fn send(&mut self, flows: &[SharedFlow]) -> usize {
        let members = self.shared.members.load();
        let is_lost = |flow: &&SharedFlow| {
            let mut is_lost = false;
            for peer in members.iter().filter(|peer| peer.side != self.side) {
                // Who has left just now has lost nothing.
                is_lost |= matches!(peer.sender.try_send(**flow), Err(TrySendError::Full(_)));
            }
            is_lost
        };
        flows.iter().filter(is_lost).count()
    }

    fn receive(&mut self) -> Option<SharedFlow> {
        self.inbox.try_recv().ok()
    }
}

impl Drop for HubMember {
    fn drop(&mut self) {
        self.shared.members.rcu(|members| {
            let others = members.iter().filter(|peer| peer.number != self.number);
            others.cloned().collect::<Vec<_>>()
        });
    }
}

impl fmt::Debug for HubMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubMember").field("side", &self.side).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(key: u8) -> SharedFlow {
        let mut bytes = [key; SharedFlow::BYTES];
        bytes[..4].copy_from_slice(&[1, 1, 0, 0]);
        SharedFlow::from_bytes(&bytes).unwrap()
    }

    fn heard(member: &mut HubMember) -> Vec<SharedFlow> {
        std::iter::from_fn(|| member.receive()).collect()
    }

    #[test]
    fn everybody_on_another_side_hears_and_what_does_not_fit_is_lost() {
        let hub = Hub::new(3);
        let (here, there) = (hub.side(), hub.side());
        let [mut one, mut two] = [here.member(), here.member()];
        assert_eq!(one.send(&[flow(1)]), 0, "nobody is there to lose it");
        let [mut other, mut third] = [there.member(), hub.side().member()];
        assert_eq!(one.send(&[flow(2), flow(3)]), 0);
        assert_eq!(heard(&mut third), [flow(2), flow(3)]);
        assert_eq!(two.send(&[flow(4), flow(5), flow(6)]), 2, "one has room for one more");
        assert_eq!(heard(&mut third), [flow(4), flow(5), flow(6)]);
        assert_eq!(heard(&mut other), [flow(2), flow(3), flow(4)]);
        assert_eq!((heard(&mut one), heard(&mut two)), (vec![], vec![]));
        drop(third);
        assert_eq!(other.send(&[flow(7)]), 0);
        assert_eq!((heard(&mut one), heard(&mut two)), (vec![flow(7)], vec![flow(7)]));
        drop((one, two));
        assert_eq!(hub.shared.members.load().len(), 1);
    }
}
