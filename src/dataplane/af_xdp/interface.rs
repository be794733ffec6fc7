//! An interface with a socket on each of its queues and the XDP program that feeds them.

use super::addresses::{AddressSet, Answer};
use super::device::{DeviceStats, Devices};
use super::error::XdpError;
use super::granted::{Attached, Granted};
use super::modes::{AttachMode, CopyMode};
use super::options::XdpOptions;
use super::program::{MapSizes, Program, ProgramLink, RedirectStats};
use super::queue::XdpQueue;
use super::socket::{self, SocketError, XskSocket};
use super::{cores, ethtool, link, memory};
use crate::dataplane::Polling;
use crate::forwarding::ProbeSources;
use crate::packet::MacAddress;
use ipnet::IpNet;
use socket2::{Domain, Socket, Type};
use std::io;
use std::time::{Duration, Instant};
use xsk_rs::config::BindFlags;

/// How long a queue that another socket has is waited for.
const BUSY_QUEUE: Duration = Duration::from_secs(2);

/// An interface that frames can leave by.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct XdpPort {
    /// Its name.
    pub name: String,
    /// Its index in the network namespace.
    pub index: u32,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its MTU, in bytes without the Ethernet header.
    pub mtu: u32,
}

impl XdpPort {
    fn new(name: &str, link: &link::Link) -> Self {
        Self { name: name.to_owned(), index: link.index, mac: link.mac, mtu: link.mtu }
    }
}

/// An Ethernet interface set up for AF_XDP.
///
/// The order is: [`open`](Self::open), [`take_queues`](Self::take_queues) and start polling them,
/// [`redirect`](Self::redirect) the addresses, and [`attach`](Self::attach) last; to stop,
/// [`detach`](Self::detach) first. So no frame is redirected that nobody polls for.
///
/// The network namespace is that of the calling thread, for [`open`](Self::open) and
/// [`attach`](Self::attach) alike.
#[derive(Debug)]
pub struct XdpInterface {
    // Declared, and so dropped, first: nothing is to be redirected to sockets that are closing.
    link: Option<(ProgramLink, Attached)>,
    queues: Vec<XdpQueue>,
    program: Program,
    addresses: AddressSet,
    station: MacAddress,
    probers: ProbeSources,
    serving: bool,
    name: String,
    index: u32,
    ports: Vec<XdpPort>,
    mode: AttachMode,
    zero_copy: Vec<bool>,
    busy_polling: Vec<bool>,
    cores: Vec<Option<u32>>,
    transmit_budget: u32,
    devices: Devices,
    fallbacks: Vec<String>,
    warnings: Vec<String>,
}

impl XdpInterface {
    /// Loads the XDP program and binds a socket to each queue; nothing is redirected yet.
    ///
    /// Waits for up to two seconds for queues that another socket still has, as right after a
    /// restart.
    ///
    /// # Errors
    ///
    /// Every variant of [`XdpError`] but [`XdpError::ProgramAttached`], [`XdpError::Attach`] and
    /// [`XdpError::TooManyAddresses`].
    pub fn open(name: &str, options: &XdpOptions) -> Result<Self, XdpError> {
        options.validate()?;
        let link = link::query(name)?;
        check_room(name, link.mtu, options)?;

        let mut warnings = Vec::new();
        let (queues, available) = queue_count(name, link.rx_queues, options, &mut warnings)?;
        match ethtool::strips_vlan_tags(name) {
            Ok(Some(true)) => warnings.push(format!(
                "{name} takes VLAN tags out of received frames, so tagged frames are seen as \
                 untagged; where there are VLANs run `ethtool -K {name} rxvlan off` (and on a veth \
                 pair `txvlan off` at the other end)"
            )),
            Ok(_) => {}
            Err(error) => warnings.push(format!(
                "{name} may take VLAN tags out of received frames: its driver could not be asked \
                 ({error})"
            )),
        }
        let sizes = MapSizes {
            queues: available,
            addresses: options.max_addresses,
            prefixes: options.max_prefixes,
        };
        check_privileges(name)?;
        let program = Program::load(name, &sizes)?;
        let devices = Devices::open().map_err(|error| query_error(name, "counters", error))?;
        let cores = cores::assign(&options.cores, name, queues)?;
        let mut fallbacks = Vec::new();
        let (mut queues, transmit_budget) = open_queues(name, &cores, options, &mut fallbacks)?;
        let mut ports = vec![XdpPort::new(name, &link)];
        for egress in &options.egress {
            ports.push(open_egress_port(egress, &mut queues, options)?);
        }
        let mut this = Self {
            link: None,
            zero_copy: queues.iter().map(XdpQueue::is_zero_copy).collect(),
            busy_polling: queues.iter_mut().map(XdpQueue::is_busy_polling).collect(),
            cores,
            transmit_budget,
            devices,
            queues,
            program,
            addresses: AddressSet::default(),
            station: link.mac,
            probers: ProbeSources::default(),
            serving: true,
            name: name.to_owned(),
            index: link.index,
            ports,
            mode: options.attach,
            fallbacks,
            warnings,
        };
        for queue in &this.queues {
            let set = this.program.set_socket(queue.queue(), queue.socket());
            set.map_err(|error| this.map_error("set the socket", &error))?;
        }
        this.write_station()?;
        if options.polling == Polling::Busy
            && this.fallbacks.is_empty()
            && this.busy_polling.contains(&false)
        {
            this.fallbacks.push(format!(
                "{name}: workers sleep instead of busy polling until the kernel knows which NAPI \
                 instance a queue has, which not every driver tells it"
            ));
        }
        if !options.egress.is_empty() {
            this.fallbacks.push(format!("{name}: copy mode, as frames leave by other interfaces"));
        } else if options.copy == CopyMode::Auto && this.zero_copy.contains(&false) {
            this.fallbacks.push(format!(
                "{name}: copy mode, as the driver does not offer zero-copy on every queue"
            ));
        }
        Ok(this)
    }

    /// Hands the queues out, in order, one for each worker; an empty list the second time.
    pub fn take_queues(&mut self) -> Vec<XdpQueue> {
        std::mem::take(&mut self.queues)
    }

    /// Replaces the set of addresses whose frames are redirected. Addresses in the old and the new
    /// set are redirected without a gap.
    ///
    /// # Errors
    ///
    /// [`XdpError::TooManyAddresses`], and then nothing has changed; [`XdpError::Map`], and then a
    /// part may have, and calling this again does the rest.
    pub fn redirect(&mut self, addresses: &[(IpNet, Answer)]) -> Result<(), XdpError> {
        let wanted = AddressSet::new(addresses);
        wanted.check(&self.name, &self.program)?;
        let changed = self.addresses.become_set(&wanted, &self.program);
        changed.map_err(|error| self.map_error("change the addresses", &error))?;
        self.write_station()
    }

    /// Changes the MAC to which frames must be addressed to be redirected: at first the one the
    /// interface had when it was opened. For an interface whose MAC has changed, or a virtual MAC
    /// as in VRRP.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`].
    pub fn set_station(&mut self, mac: MacAddress) -> Result<(), XdpError> {
        self.station = mac;
        self.write_station()
    }

    /// Sets to which addresses of this host answers to probes come: what a redirected address sends
    /// there is redirected as well. At first there are none.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`].
    pub fn set_probe_sources(&mut self, sources: ProbeSources) -> Result<(), XdpError> {
        self.probers = sources;
        self.write_station()
    }

    /// Sets whether frames to the addresses are redirected; at first they are. Otherwise all but
    /// answers to probes stay with the kernel, so that it can be found out who is well before there
    /// is traffic.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`].
    pub fn set_serving(&mut self, serving: bool) -> Result<(), XdpError> {
        self.serving = serving;
        self.write_station()
    }

    /// Attaches the program, so that frames are redirected from now on. Does nothing if it is
    /// attached.
    ///
    /// # Errors
    ///
    /// [`XdpError::ProgramAttached`], [`XdpError::Privileges`], [`XdpError::Attach`].
    pub fn attach(&mut self) -> Result<(), XdpError> {
        if self.link.is_some() {
            return Ok(());
        }
        if self.mode != AttachMode::Generic {
            match self.program.attach(self.index, true) {
                Ok(link) => {
                    self.link = Some((link, Attached::Native));
                    return Ok(());
                }
                Err(error) => self.after_native(error)?,
            }
        }
        match self.program.attach(self.index, false) {
            Ok(link) => self.link = Some((link, Attached::Generic)),
            Err(error) => return Err(self.attach_error("generic", error)),
        }
        Ok(())
    }

    /// Whether the generic hook is to be tried after the driver has refused with `error`.
    fn after_native(&mut self, error: io::Error) -> Result<(), XdpError> {
        // The generic hook would never see frames that the driver puts into shared memory.
        let stuck = self.mode == AttachMode::Native || self.zero_copy.contains(&true);
        let taken = matches!(
            error.raw_os_error(),
            Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::EACCES)
        );
        if stuck || taken {
            return Err(self.attach_error("native", error));
        }
        self.fallbacks.push(format!(
            "{}: generic mode, as the driver did not take the program: {error}",
            self.name
        ));
        Ok(())
    }

    /// Detaches the program: all traffic is the kernel's again. Also done on drop, and by the
    /// kernel when the process ends. Does nothing if it is not attached.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// What has been granted so far.
    pub fn granted(&self) -> Granted {
        Granted {
            attach: self.link.as_ref().map(|&(_, attached)| attached),
            zero_copy: self.zero_copy.clone(),
            busy_polling: self.busy_polling.clone(),
            cores: self.cores.clone(),
            transmit_budget: self.transmit_budget,
            fallbacks: self.fallbacks.clone(),
        }
    }

    /// What works and yet may surprise: VLAN tags the driver removes, queues without a socket.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the XDP program has decided so far.
    ///
    /// # Errors
    ///
    /// [`XdpError::Map`].
    pub fn stats(&self) -> Result<RedirectStats, XdpError> {
        let stats = self.program.stats();
        stats.map_err(|error| self.map_error("read the counters", &error))
    }

    /// What the interfaces have counted themselves, in the order of [`ports`](Self::ports): what the
    /// NIC or its driver lost is not seen by the program.
    ///
    /// # Errors
    ///
    /// [`XdpError::Query`], as when an interface is gone.
    pub fn device_stats(&self) -> Result<Vec<DeviceStats>, XdpError> {
        let stats = |port: &XdpPort| {
            let stats = self.devices.stats(port.index);
            stats.map_err(|error| query_error(&port.name, "counters", error))
        };
        self.ports.iter().map(stats).collect()
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index in its network namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The interfaces that frames can leave by, as they were when they were opened: this one, then
    /// those of [`XdpOptions::egress`] in their order.
    pub fn ports(&self) -> &[XdpPort] {
        &self.ports
    }

    fn write_station(&self) -> Result<(), XdpError> {
        let prefixes = [self.addresses.has_prefixes4(), self.addresses.has_prefixes6()];
        let written = self.program.set_station(self.station, prefixes, self.serving, &self.probers);
        written.map_err(|error| self.map_error("set the station", &error))
    }

    fn map_error(&self, action: &'static str, error: &libbpf_rs::Error) -> XdpError {
        XdpError::Map { interface: self.name.clone(), action, reason: format!("{error:#}") }
    }

    fn attach_error(&self, mode: &'static str, source: io::Error) -> XdpError {
        let interface = self.name.clone();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                return XdpError::Privileges { interface, action: "attach an XDP program" };
            }
            Some(libc::EBUSY | libc::EEXIST) => {
                let other = self.program.other_attached(&self.name, self.index);
                if let Some(other) = other {
                    return other;
                }
            }
            _ => {}
        }
        let hint = match mode {
            "native" => {
                "the driver may not support XDP, or not with the present MTU or offloads; try \
                 the attach mode `generic`"
            }
            _ => "see `dmesg` for what the kernel says",
        };
        XdpError::Attach { interface, mode, source, hint }
    }
}

fn check_room(name: &str, mtu: u32, options: &XdpOptions) -> Result<(), XdpError> {
    let (longest, room) = (XdpOptions::longest_frame(mtu), options.room());
    if longest <= room {
        return Ok(());
    }
    let (interface, page) = (name.to_owned(), memory::page_size());
    if XdpOptions::frame_size_for(mtu) > page {
        let largest = XdpOptions { frame_size: page, ..XdpOptions::default() }.largest_mtu();
        return Err(XdpError::JumboFrames { interface, mtu, largest, frame_size: page });
    }
    Err(XdpError::FrameTooSmall {
        interface,
        mtu,
        longest,
        frame_size: options.frame_size,
        room,
        needed: XdpOptions::frame_size_for(mtu),
        fitting: options.largest_mtu(),
    })
}

fn query_error(name: &str, what: &'static str, source: io::Error) -> XdpError {
    XdpError::Query { interface: name.to_owned(), what, source }
}

/// How many queues get a socket, and how many the interface has to receive on.
fn queue_count(
    name: &str,
    allocated: u32,
    options: &XdpOptions,
    warnings: &mut Vec<String>,
) -> Result<(u32, u32), XdpError> {
    let told = ethtool::queues(name).map_err(|error| query_error(name, "queues", error))?;
    // A driver that cannot tell is asked for what was asked of us, and bind(2) has the last word.
    let available = match told {
        Some(queues) => queues.receive,
        None => options.queues.unwrap_or(1).min(allocated),
    };
    let wanted = options.queues.unwrap_or(available);
    if wanted > available {
        return Err(XdpError::TooFewQueues {
            interface: name.to_owned(),
            requested: wanted,
            available,
        });
    }
    if let Some(queues) = told.filter(|queues| queues.transmit < wanted) {
        return Err(XdpError::NoTransmitQueue {
            interface: name.to_owned(),
            receive: wanted,
            transmit: queues.transmit,
        });
    }
    if wanted < told.map_or(allocated, |queues| queues.receive) {
        warnings.push(format!(
            "{name} may have more RX queues than the {wanted} with a socket; what arrives on the \
             others stays with the kernel"
        ));
    }
    Ok((wanted, available))
}

/// A socket for each of `cores`, and how many frames one call sends by it.
fn open_queues(
    name: &str,
    cores: &[Option<u32>],
    options: &XdpOptions,
    fallbacks: &mut Vec<String>,
) -> Result<(Vec<XdpQueue>, u32), XdpError> {
    let mode = match (options.copy, options.attach) {
        (CopyMode::ZeroCopy, _) => BindFlags::XDP_ZEROCOPY,
        (CopyMode::Copy, _) | (_, AttachMode::Generic) => BindFlags::XDP_COPY,
        _ if !options.egress.is_empty() => BindFlags::XDP_COPY,
        // Without a flag the kernel tries zero-copy and settles for copies.
        (CopyMode::Auto, _) => BindFlags::empty(),
    };
    let deadline = Instant::now() + BUSY_QUEUE;
    let (mut queues, mut budget) = (Vec::with_capacity(cores.len()), options.transmit_budget);
    for (queue, core) in (0..).zip(cores) {
        let failed = |error| socket_error(name, queue, options, error);
        let socket = XskSocket::open(name, queue, options, mode, deadline).map_err(failed)?;
        budget = budget.min(socket.transmit_budget);
        if let (0, Err(error)) = (queue, &socket.polling) {
            fallbacks.push(format!("{name}: no busy polling, as the kernel refuses it: {error}"));
        }
        let queue = XdpQueue::new(socket, options, *core, (name, queue));
        queues.push(queue.map_err(SocketError::Bind).map_err(failed)?);
    }
    Ok((queues, budget))
}

/// Adds to each queue a socket on the queue of the same number of another interface.
fn open_egress_port(
    name: &str,
    queues: &mut [XdpQueue],
    options: &XdpOptions,
) -> Result<XdpPort, XdpError> {
    let link = link::query(name)?;
    check_room(name, link.mtu, options)?;
    let wanted = queues.len() as u32;
    let told = ethtool::queues(name).map_err(|error| query_error(name, "queues", error))?;
    if let Some(there) = told.filter(|there| there.transmit < wanted) {
        return Err(XdpError::NoTransmitQueue {
            interface: name.to_owned(),
            receive: wanted,
            transmit: there.transmit,
        });
    }
    let deadline = Instant::now() + BUSY_QUEUE;
    for queue in queues {
        let number = queue.queue();
        let port = socket::open_egress(name, number, queue.umem(), options, deadline)
            .map_err(|error| socket_error(name, number, options, error))?;
        queue.add_port(port);
    }
    Ok(XdpPort::new(name, &link))
}

/// Finds out whether AF_XDP sockets are allowed before libbpf finds out about BPF: it would write
/// to standard error what the error says better.
fn check_privileges(name: &str) -> Result<(), XdpError> {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None);
    match socket.err().and_then(|error| error.raw_os_error()) {
        Some(libc::EPERM | libc::EACCES) => Err(XdpError::Privileges {
            interface: name.to_owned(),
            action: "open an AF_XDP socket",
        }),
        // Whatever else is wrong comes up again, where it can be told better.
        _ => Ok(()),
    }
}

fn socket_error(name: &str, queue: u32, options: &XdpOptions, error: SocketError) -> XdpError {
    let interface = name.to_owned();
    let (source, in_bind) = match error {
        SocketError::NoHugePages(pages, page_size) => {
            return XdpError::NoHugePages { interface, queue, pages, page_size };
        }
        SocketError::Memory(source) => (source, false),
        SocketError::Bind(source) => (source, true),
    };
    match (source.raw_os_error(), in_bind) {
        (Some(libc::EPERM | libc::EACCES), _) => {
            XdpError::Privileges { interface, action: "open an AF_XDP socket" }
        }
        (Some(libc::EBUSY), true) => XdpError::QueueBusy { interface, queue },
        (Some(libc::EOPNOTSUPP | libc::EINVAL), true) if options.copy == CopyMode::ZeroCopy => {
            XdpError::NoZeroCopy { interface, queue, source }
        }
        (_, true) => XdpError::Bind { interface, queue, source },
        // What the kernel says of RLIMIT_MEMLOCK (xdp_umem_account_pages).
        (Some(libc::ENOBUFS), false) => {
            XdpError::LockedMemory { interface, queue, needed: options.memory() }
        }
        (_, false) => XdpError::Memory {
            interface,
            queue,
            frames: options.frames_per_queue,
            frame_size: options.frame_size,
            source,
        },
    }
}
