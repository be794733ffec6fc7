//! What can go wrong between a name and a running interface, each with what to do about it.

use std::io;

/// Why an interface could not be set up for AF_XDP.
///
/// Every message names the interface and says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// An option is out of range, or two do not agree.
    #[error("option {field} = {value} is not valid: expected {expected}")]
    Option {
        /// The field of [`XdpOptions`](super::XdpOptions).
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// There is no interface of this name in the network namespace of the calling thread.
    #[error("there is no interface {interface} in this network namespace; `ip link` lists them")]
    NoSuchInterface {
        /// The name asked for.
        interface: String,
    },
    /// The interface does not carry Ethernet frames.
    #[error("interface {interface} is not Ethernet ({kind}); use one with a MAC address")]
    NotEthernet {
        /// The interface.
        interface: String,
        /// What it is instead.
        kind: String,
    },
    /// The interface is administratively down.
    #[error("interface {interface} is down; bring it up with `ip link set dev {interface} up`")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// More queues were asked for than the interface has.
    #[error(
        "interface {interface} has {available} RX queues, {requested} were asked for; ask for \
         fewer or try `ethtool -L {interface} rx {requested}` (or `combined {requested}`)"
    )]
    TooFewQueues {
        /// The interface.
        interface: String,
        /// Queues asked for.
        requested: u32,
        /// Queues there are.
        available: u32,
    },
    /// A queue to receive on has no counterpart to send on: the kernel would take frames to be sent
    /// and keep them without a word.
    #[error(
        "interface {interface} has {transmit} TX queues for {receive} RX queues, and what arrives \
         on a queue is sent on the one of the same number; set `ethtool -L {interface} tx {receive}` \
         or ask for {transmit} queues"
    )]
    NoTransmitQueue {
        /// The interface.
        interface: String,
        /// RX queues that were to be used.
        receive: u32,
        /// TX queues there are.
        transmit: u32,
    },
    /// The interface receives packets that are longer than a frame.
    #[error(
        "interface {interface} has an MTU of {mtu} bytes: frames of up to {longest} bytes do not \
         fit the {room} bytes that a frame_size of {frame_size} leaves; set frame_size to \
         {needed} (at most a memory page) or lower the MTU with `ip link set dev {interface} mtu {fitting}`"
    )]
    FrameTooSmall {
        /// The interface.
        interface: String,
        /// Its MTU, in bytes.
        mtu: u32,
        /// The longest frame at that MTU, VLAN tags included, in bytes.
        longest: u32,
        /// The frame size asked for, in bytes.
        frame_size: u32,
        /// What of it a packet can use, in bytes.
        room: u32,
        /// The smallest frame size that would do, in bytes.
        needed: u32,
        /// The largest MTU that would do, in bytes.
        fitting: u32,
    },
    /// The interface receives packets that are longer than any frame.
    #[error(
        "interface {interface} has an MTU of {mtu} bytes, and AF_XDP takes packets in one piece, \
         within a memory page: jumbo frames are not supported beyond an MTU of {largest}; set frame_size to \
         {frame_size} and the MTU with `ip link set dev {interface} mtu {largest}`, here and at \
         whatever sends to it"
    )]
    JumboFrames {
        /// The interface.
        interface: String,
        /// Its MTU, in bytes without the Ethernet header.
        mtu: u32,
        /// The largest MTU that would do, in bytes.
        largest: u32,
        /// The largest frame size, which that needs, in bytes.
        frame_size: u32,
    },
    /// There is not a core for each queue.
    #[error(
        "interface {interface} has {queues} queues to be served, and {cores} cores are given; name one core for \
         each, ask for {cores} queues, or leave the choice to the scheduler"
    )]
    TooFewCores {
        /// The interface.
        interface: String,
        /// Queues to be served.
        queues: u32,
        /// Cores there are for them.
        cores: usize,
    },
    /// A worker cannot run on a core.
    #[error(
        "interface {interface}: no worker can run on core {core}: {reason}; this thread may run on \
         {allowed} (`taskset -p PID`, systemd: AllowedCPUs=)"
    )]
    Core {
        /// The interface.
        interface: String,
        /// The core.
        core: u32,
        /// Why not.
        reason: String,
        /// Which cores the thread that opens may run on.
        allowed: String,
    },
    /// There are no huge pages for the frames.
    #[error(
        "interface {interface} queue {queue}: not enough free huge pages for its frames: {pages} of {page_size} \
         bytes are needed for each queue; reserve them with `sysctl vm.nr_hugepages=NUMBER` (HugePages_Free in \
         /proc/meminfo tells what there is), or set huge_pages to false"
    )]
    NoHugePages {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// How many are needed for a queue.
        pages: u64,
        /// How large they are, in bytes.
        page_size: u64,
    },
    /// The process lacks a capability.
    #[error(
        "interface {interface}: not permitted to {action}; run as root or grant CAP_BPF, \
         CAP_NET_ADMIN and CAP_NET_RAW (for example `setcap \
         cap_bpf,cap_net_admin,cap_net_raw+ep PROGRAM`)"
    )]
    Privileges {
        /// The interface.
        interface: String,
        /// What was refused.
        action: &'static str,
    },
    /// The memory for frames exceeds what the process may lock.
    #[error(
        "interface {interface} queue {queue}: {needed} bytes for frames exceed the memory the \
         process may lock; raise RLIMIT_MEMLOCK (`ulimit -l`, systemd: LimitMEMLOCK=), grant \
         CAP_IPC_LOCK, or lower frames_per_queue"
    )]
    LockedMemory {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Bytes per queue.
        needed: u64,
    },
    /// The kernel did not give the memory for frames.
    #[error(
        "interface {interface} queue {queue}: no memory for {frames} frames of {frame_size} bytes: {source}"
    )]
    Memory {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Frames per queue.
        frames: u32,
        /// Bytes per frame.
        frame_size: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another socket has the queue, and had it for the two seconds that were waited.
    #[error(
        "interface {interface} queue {queue} has an AF_XDP socket already; find its process with \
         `ss --xdp -p` and stop it"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Zero-copy was demanded and the driver does not offer it.
    #[error(
        "interface {interface} queue {queue}: the driver does not offer zero-copy ({source}); use \
         copy mode `auto` or `copy`"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket could not be bound for another reason.
    #[error("interface {interface} queue {queue}: cannot bind an AF_XDP socket: {source}")]
    Bind {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the XDP program or one of its maps.
    #[error(
        "interface {interface}: cannot load the XDP program (Linux 5.9 or later is needed): {reason}"
    )]
    Program {
        /// The interface.
        interface: String,
        /// What libbpf said.
        reason: String,
    },
    /// Another XDP program is attached.
    #[error("interface {interface} runs another XDP program, id {program}; {remedy}")]
    ProgramAttached {
        /// The interface.
        interface: String,
        /// The id of that program, as `bpftool prog` shows it.
        program: u32,
        /// The command that removes it, or who holds it.
        remedy: String,
    },
    /// The program could not be attached.
    #[error(
        "interface {interface}: cannot attach the XDP program in {mode} mode: {source}; {hint}"
    )]
    Attach {
        /// The interface.
        interface: String,
        /// The mode tried.
        mode: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to try.
        hint: &'static str,
    },
    /// More addresses or prefixes than there is room for.
    #[error(
        "interface {interface}: {count} {what} to redirect, and room for {limit}; raise {option}"
    )]
    TooManyAddresses {
        /// The interface.
        interface: String,
        /// Which kind of them.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there is room for.
        limit: u32,
        /// The field of [`XdpOptions`](super::XdpOptions) that says so.
        option: &'static str,
    },
    /// A map of the XDP program could not be read or written.
    #[error("interface {interface}: cannot {action} of the XDP program: {reason}")]
    Map {
        /// The interface.
        interface: String,
        /// What was attempted.
        action: &'static str,
        /// What libbpf said.
        reason: String,
    },
    /// The kernel did not say what the interface is like.
    #[error("interface {interface}: cannot ask the kernel for its {what}: {source}")]
    Query {
        /// The interface.
        interface: String,
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
