//! How a director shares its flows with others.

use crate::balancer::FlowSync;
use crate::flow::HashKey;

/// What its balancers need for that.
pub(super) struct Sharing {
    /// Known to all of those directors and nobody else.
    pub(super) secret: HashKey,
    /// Makes the way to the others for the worker of a queue.
    pub(super) transport: Box<dyn FnMut(u32) -> Box<dyn FlowSync> + Send>,
}
