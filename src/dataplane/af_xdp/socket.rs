//! Making an AF_XDP socket: memory, rings, bind, and which of copy and zero-copy it came to.

use super::link::MAX_NAME;
use super::memory;
use super::options::XdpOptions;
use super::sockopt;
use super::tx_port::{TxPort, Unused};
use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};
use xsk_rs::config::{
    BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig, UmemConfigBuilder,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// The first and the longest pause between two attempts to bind.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket in its parts, and every frame of its UMEM.
pub(super) struct XskSocket {
    pub(super) fill: FillQueue,
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) completion: CompQueue,
    pub(super) umem: Umem,
    pub(super) frames: Vec<FrameDesc>,
    /// Entries of the TX ring.
    pub(super) size: u32,
    /// Bytes of memory per frame.
    pub(super) frame_size: u32,
    pub(super) huge_pages: bool,
    pub(super) zero_copy: bool,
    /// How many frames one call sends in copy mode.
    pub(super) transmit_budget: u32,
    /// Whether the kernel leaves the queue to whoever calls it, or why not.
    pub(super) polling: io::Result<()>,
}

/// At which step it failed.
pub(super) enum SocketError {
    Memory(io::Error),
    /// So many pages of so many bytes are needed.
    NoHugePages(u64, u64),
    Bind(io::Error),
}

impl XskSocket {
    /// Maps the memory and binds to `queue` of `interface`, which is looked up in the network
    /// namespace of the calling thread.
    ///
    /// A socket that has just been closed, as by a director that is restarted, keeps its queue for
    /// some tens of milliseconds more, so a busy queue is tried again until `deadline`.
    pub(super) fn open(
        interface: &str,
        queue: u32,
        options: &XdpOptions,
        mode: BindFlags,
        deadline: Instant,
    ) -> Result<Self, SocketError> {
        let memory = |error: &(dyn Error + 'static)| SocketError::Memory(os_error(error));
        let ring = QueueSize::new(options.frames_per_queue).map_err(|e| memory(&e))?;
        let umem_config = umem_config(options, ring).map_err(|e| memory(&*e))?;
        let frames = NonZeroU32::new(options.frames_per_queue)
            .ok_or_else(|| SocketError::Memory(io::ErrorKind::InvalidInput.into()))?;
        let huge = options.huge_pages;
        let made = Umem::new(umem_config, frames, huge).map_err(|e| os_error(&e));
        let (umem, frames) = made.map_err(|error| memory_error(options, error))?;

        match create(interface, queue, &umem, ring, mode, deadline)? {
            (tx, rx, Some((fill, completion))) => Ok(Self {
                zero_copy: sockopt::is_zero_copy(borrow(&tx)),
                transmit_budget: sockopt::set_transmit_budget(borrow(&tx), options.transmit_budget),
                polling: sockopt::set_polling(borrow(&tx), options),
                huge_pages: huge,
                fill,
                rx,
                tx,
                completion,
                umem,
                frames,
                size: options.frames_per_queue,
                frame_size: options.frame_size,
            }),
            // Only of a queue with an earlier socket of this memory, and there is none.
            (_, _, None) => Err(SocketError::Bind(io::Error::other(
                "libxdp returned no fill and completion ring",
            ))),
        }
    }
}

/// Binds a further socket to `queue` of another interface, to send frames of `umem` by; copies or
/// not is as for the first.
pub(super) fn open_egress(
    interface: &str,
    queue: u32,
    umem: &Umem,
    options: &XdpOptions,
    deadline: Instant,
) -> Result<TxPort, SocketError> {
    let ring = QueueSize::new(options.frames_per_queue)
        .map_err(|error| SocketError::Memory(os_error(&error)))?;
    // The kernel takes the mode over and refuses one that is given (`XDP_SHARED_UMEM`).
    let created = create(interface, queue, umem, ring, BindFlags::empty(), deadline)?;
    let (tx, rx, Some((fill, completion))) = created else {
        return Err(SocketError::Bind(io::Error::from_raw_os_error(libc::EBUSY)));
    };
    sockopt::set_transmit_budget(borrow(&tx), options.transmit_budget);
    let unused = Some(Unused { _fill: fill, rx });
    let size = options.frames_per_queue;
    TxPort::new((tx, completion), unused, size, false, (interface, queue))
        .map_err(SocketError::Bind)
}

type Created = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Makes a socket and binds it, again and again until `deadline` while the queue is busy.
fn create(
    interface: &str,
    queue: u32,
    umem: &Umem,
    ring: QueueSize,
    mode: BindFlags,
    deadline: Instant,
) -> Result<Created, SocketError> {
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    // libxdp 1.6 copies 15 bytes of the name whatever its length, so it is made that long. The
    // kernel cuts a name off at its first colon, as old names of aliases (eth0:1) have one.
    let padded: Interface = format!("{interface::<MAX_NAME$}")
        .parse()
        .map_err(|_| SocketError::Bind(io::ErrorKind::InvalidInput.into()))?;
    let mut pause = FIRST_PAUSE;
    loop {
        // SAFETY: libxdp's own program is inhibited, and no two sockets of one UMEM are on the same
        // queue of the same interface, which is what the contract warns of: each queue of each
        // interface is bound once, by the queue that owns the UMEM. A failed attempt leaves the
        // UMEM as it was.
        let created = unsafe { Socket::new(config, umem, &padded, queue) };
        let error = match created {
            Ok(created) => return Ok(created),
            Err(error) => os_error(&error),
        };
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        if !busy || Instant::now() >= deadline {
            return Err(SocketError::Bind(error));
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells a lack of huge pages from other troubles with the memory.
fn memory_error(options: &XdpOptions, error: io::Error) -> SocketError {
    let page_size = memory::huge_page_size().filter(|_| options.huge_pages);
    match (error.raw_os_error(), page_size) {
        (Some(libc::ENOMEM), Some(size)) => {
            SocketError::NoHugePages(options.memory().div_ceil(size), size)
        }
        _ => SocketError::Memory(error),
    }
}

fn borrow(tx: &TxQueue) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `tx` lives, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(tx.fd().as_raw_fd()) }
}

/// The fill ring is twice as large as the number of frames: the kernel says late how far it has
/// read, so that one of the same size looks full when all frames are legally outside of it.
fn umem_config(options: &XdpOptions, ring: QueueSize) -> Result<UmemConfig, Box<dyn Error>> {
    let config = UmemConfigBuilder::new()
        .frame_size(options.frame_size.try_into()?)
        .fill_queue_size(QueueSize::new(options.frames_per_queue * 2)?)
        .comp_queue_size(ring)
        .build()?;
    Ok(config)
}

/// What the kernel said, which xsk-rs has as the source of its errors.
fn os_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return io::Error::from_raw_os_error(code);
        }
        cause = error.source();
    }
    io::Error::other(error.to_string())
}
