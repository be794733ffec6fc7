//! The XDP program: loading it, its maps, attaching it.

use super::attached::holder;
use super::error::XdpError;
use crate::forwarding::ProbeSources;
use crate::packet::MacAddress;
use libbpf_rs::{
    ErrorKind, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, Xdp, XdpFlags, libbpf_sys,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// libelf reads the object in place and wants its headers aligned.
#[repr(C, align(8))]
struct Aligned<Bytes: ?Sized>(Bytes);

static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/redirect.bpf.o")));

/// The key of a map that has one entry.
const ONLY: [u8; 4] = 0_u32.to_ne_bytes();

/// How large the maps are made.
pub(super) struct MapSizes {
    /// RX queues of the interface.
    pub(super) queues: u32,
    /// Single addresses per family.
    pub(super) addresses: u32,
    /// Prefixes per family.
    pub(super) prefixes: u32,
}

/// What the program has decided, in frames, since it was loaded; every frame that reached it is
/// counted once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RedirectStats {
    /// Given to the socket of the queue they arrived on. The socket may still have dropped them,
    /// which [`IoStats`](crate::dataplane::IoStats) tells.
    pub redirected: u64,
    /// Passed to the kernel: not for an address that is redirected.
    pub passed: u64,
    /// For such an address, yet passed to the kernel, as the queue had no socket.
    pub no_socket: u64,
}

/// The loaded program and its maps; all of it goes with the last file descriptor.
#[derive(Debug)]
pub(super) struct Program {
    program: OwnedFd,
    pub(super) sockets: MapHandle,
    pub(super) vip4: MapHandle,
    pub(super) vip6: MapHandle,
    pub(super) prefixes4: MapHandle,
    pub(super) prefixes6: MapHandle,
    station: MapHandle,
    counters: MapHandle,
}

impl Program {
    /// Loads the program, attached to nothing.
    pub(super) fn load(interface: &str, sizes: &MapSizes) -> Result<Self, XdpError> {
        Self::try_load(sizes).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => XdpError::Privileges {
                interface: interface.to_owned(),
                action: "load an XDP program",
            },
            _ => {
                XdpError::Program { interface: interface.to_owned(), reason: format!("{error:#}") }
            }
        })
    }

    fn try_load(sizes: &MapSizes) -> libbpf_rs::Result<Self> {
        let mut object = ObjectBuilder::default().open_memory(&OBJECT.0)?;
        for mut map in object.maps_mut() {
            let size = match map.name().to_str() {
                Some("sockets") => sizes.queues,
                Some("vip4" | "vip6") => sizes.addresses,
                Some("prefixes4" | "prefixes6") => sizes.prefixes,
                _ => continue,
            };
            map.set_max_entries(size)?;
        }
        let object = object.load()?;
        let program = object
            .progs()
            .find(|program| program.name() == "redirect")
            .ok_or_else(|| missing("redirect"))?
            .as_fd()
            .try_clone_to_owned()?;
        Ok(Self {
            program,
            sockets: map(&object, "sockets")?,
            vip4: map(&object, "vip4")?,
            vip6: map(&object, "vip6")?,
            prefixes4: map(&object, "prefixes4")?,
            prefixes6: map(&object, "prefixes6")?,
            station: map(&object, "station")?,
            counters: map(&object, "counters")?,
        })
    }

    /// Makes `socket` the one of `queue`; the kernel forgets it when it is closed.
    pub(super) fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> libbpf_rs::Result<()> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets.update(&queue.to_ne_bytes(), &value, MapFlags::ANY)
    }

    /// Sets whose frames are redirected, in which families there are prefixes to try, whether
    /// anything but answers to probes is redirected, and where those come to.
    pub(super) fn set_station(
        &self,
        mac: MacAddress,
        has_prefixes: [bool; 2],
        serving: bool,
        probers: &ProbeSources,
    ) -> libbpf_rs::Result<()> {
        // The layout of `struct station`.
        let mut value = mac.0.to_vec();
        value.extend(has_prefixes.map(u8::from));
        value.extend(u32::from(serving).to_ne_bytes());
        value.extend(probers.ipv4.map_or([0; 4], |address| address.octets()));
        value.extend(probers.ipv6.map_or([0; 16], |address| address.octets()));
        self.station.update(&ONLY, &value, MapFlags::ANY)
    }

    /// Sums the counters of all CPUs.
    pub(super) fn stats(&self) -> libbpf_rs::Result<RedirectStats> {
        let mut sum = RedirectStats::default();
        let per_cpu = self.counters.lookup_percpu(&ONLY, MapFlags::ANY)?;
        for cpu in per_cpu.unwrap_or_default() {
            // The layout of `struct counters`.
            let mut fields = cpu
                .chunks_exact(8)
                .map(|field| field.try_into().map(u64::from_ne_bytes).unwrap_or_default());
            sum.redirected += fields.next().unwrap_or_default();
            sum.passed += fields.next().unwrap_or_default();
            sum.no_socket += fields.next().unwrap_or_default();
        }
        Ok(sum)
    }

    /// Attaches the program in one of the two modes.
    pub(super) fn attach(&self, index: u32, native: bool) -> io::Result<ProgramLink> {
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags: if native {
                libbpf_sys::XDP_FLAGS_DRV_MODE
            } else {
                libbpf_sys::XDP_FLAGS_SKB_MODE
            },
            ..Default::default()
        };
        let program = self.program.as_raw_fd();
        // SAFETY: `options` is a whole `bpf_link_create_opts` whose `sz` is its size, and is only
        // read during the call; the descriptor is open, as `self` owns it.
        let link = unsafe {
            libbpf_sys::bpf_link_create(program, index as i32, libbpf_sys::BPF_XDP, &options)
        };
        if link < 0 {
            return Err(io::Error::from_raw_os_error(-link));
        }
        // SAFETY: the call above has just opened this descriptor, and nothing else knows of it.
        Ok(ProgramLink(unsafe { OwnedFd::from_raw_fd(link) }))
    }

    /// Who else is attached to `interface`, if anyone.
    pub(super) fn other_attached(&self, interface: &str, index: u32) -> Option<XdpError> {
        let query = Xdp::new(self.program.as_fd()).query(index as i32, XdpFlags::NONE).ok()?;
        let (program, mode) = [
            (query.drv_prog_id, "xdpdrv"),
            (query.skb_prog_id, "xdpgeneric"),
            (query.hw_prog_id, "xdpoffload"),
            (query.prog_id, "xdp"),
        ]
        .into_iter()
        .find(|&(program, _)| program != 0)?;
        let remedy = match holder(program, index) {
            Ok(Some(link)) => format!(
                "it is held by BPF link {link}: stop the process that holds it, or run \
                 `bpftool link detach id {link}`"
            ),
            Ok(None) => format!("remove it with `ip link set dev {interface} {mode} off`"),
            Err(_) => format!(
                "remove it with `ip link set dev {interface} {mode} off`, or if that is refused, as a \
                 BPF link holds it, find that with `bpftool link`"
            ),
        };
        Some(XdpError::ProgramAttached { interface: interface.to_owned(), program, remedy })
    }
}

/// An attached program. It is detached when this is dropped, and when the process ends however
/// that comes about.
#[derive(Debug)]
pub(super) struct ProgramLink(OwnedFd);

impl Drop for ProgramLink {
    fn drop(&mut self) {
        // Closing would do, but then a copy of the descriptor in a child process would keep the
        // program attached. That it is gone already is no failure.
        // SAFETY: takes nothing but a descriptor, which is open, as `self` owns it.
        let _ = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
    }
}

fn map(object: &Object, name: &str) -> libbpf_rs::Result<MapHandle> {
    let map = object.maps().find(|map| map.name() == name).ok_or_else(|| missing(name))?;
    MapHandle::try_from(&map)
}

/// The object and this file are built together, so this is not seen unless one is edited alone.
fn missing(name: &str) -> libbpf_rs::Error {
    io::Error::other(format!("the object has no {name}")).into()
}
