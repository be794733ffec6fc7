//! How workers use the cores they have.

/// What a worker does while there is nothing to receive. Under load all three are alike: who finds
/// frames does not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Polling {
    /// Sleep in poll(2) until the kernel has something. Costs next to nothing while idle, and a
    /// wake-up (some microseconds) of the first packet after a pause.
    #[default]
    Sleep,
    /// Drive the NIC's queue from the worker (`SO_PREFER_BUSY_POLL`): packets are taken out of the
    /// NIC by the core that forwards them, without interrupts. For NICs with zero-copy and a core for
    /// each worker, which is busy all the time. Set with it, for each interface,
    /// `napi_defer_hard_irqs` (2, say) and `gro_flush_timeout` (200000, say) in
    /// `/sys/class/net/IF/`, or interrupts go on disturbing. It needs Linux 5.11 and a driver that tells the
    /// kernel which NAPI instance a queue has; where there is none (veth), it is as
    /// [`Sleep`](Self::Sleep), and `Granted` says so.
    Busy,
    /// Look at the ring again and again. Saves the wake-up on every driver; takes a core for each worker
    /// that nothing else needs, the softirq of the NIC's queue included: on a core that they share
    /// much less is forwarded than with [`Sleep`](Self::Sleep).
    Spin,
}

named!(
    Polling,
    "polling",
    "sleep, busy or spin",
    ["sleep" => Sleep, "busy" => Busy, "spin" => Spin]
);

/// Which core the worker of each queue runs on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Cores {
    /// Wherever the scheduler puts it. Right where there is other work on the host, or
    /// fewer cores than queues.
    #[default]
    Any,
    /// One for each, in order: the worker of queue n on the nth core that the thread which opens the
    /// interface may run on (`taskset` says so). NICs spread the interrupts of their queues in the
    /// same order, so each queue then stays in the caches of one core.
    Each,
    /// The worker of queue n on the nth of these. For a NIC on another NUMA node, for cores that are
    /// kept free of all else (`isolcpus=`), or to have a worker beside the core that its
    /// queue's softirq runs on instead of on it.
    List(Vec<u32>),
}
