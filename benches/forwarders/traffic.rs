//! The generator and the sink, both of them BPF programs: see `traffic.bpf.c`.

use crate::lab::Namespace;
use crate::plan::{Frames, Pace};
use crate::schedule::Schedule;
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, ObjectBuilder, TC_INGRESS, TcHookBuilder, libbpf_sys,
};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

const SOURCE: &str = include_str!("traffic.bpf.c");
const ONLY: [u8; 4] = [0; 4];
/// Where the slot of frames that did not look as they should is.
const WRONG: usize = 64;
/// Classes of delays, anew for each of so many windows of time, and how long a window is, in nanoseconds.
const CLASSES: usize = 2048;
pub const WINDOWS: usize = 16;
pub const WINDOW: u64 = 1 << 27;
/// Frames that the kernel's test runner makes and sends at a time.
const BATCH: u32 = 64;

/// What has been sent and what has arrived, since the programs were loaded.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Handed to the interface; those for which the other end had no room are among them.
    pub sent: u64,
    /// Arrived as they should, by the last byte of the destination MAC address.
    pub arrived: Vec<u64>,
    /// Arrived otherwise.
    pub wrong: u64,
}

/// How many frames were under way for how long: classes in rising order, each with its number.
pub type Delays = Vec<(f64, u64)>;

/// Both programs, the sink attached.
pub struct Traffic {
    generate: OwnedFd,
    plan: MapHandle,
    state: MapHandle,
    arrived: MapHandle,
    delays: MapHandle,
    index: u32,
}

impl Traffic {
    /// Loads both and attaches the sink to `interface`.
    pub fn load(namespace: &Namespace, interface: &str) -> Result<Self, Box<dyn Error>> {
        let bytes = compile()?;
        let object = ObjectBuilder::default().open_memory(&bytes)?.load()?;
        let program = |name: &str| -> Result<OwnedFd, Box<dyn Error>> {
            let found = object.progs().find(|program| program.name() == name);
            Ok(found.ok_or("a program is missing")?.as_fd().try_clone_to_owned()?)
        };
        let map = |name: &str| -> Result<MapHandle, Box<dyn Error>> {
            let found = object.maps().find(|map| map.name() == name);
            Ok(MapHandle::try_from(&found.ok_or("a map is missing")?)?)
        };
        let sink = program("sink")?;
        let index = namespace.enter(|| -> Result<u32, String> {
            let index = nix::net::if_::if_nametoindex(interface).map_err(|e| e.to_string())?;
            let mut hook = TcHookBuilder::new(sink.as_fd()).ifindex(index as i32).hook(TC_INGRESS);
            hook.create().and_then(|mut hook| hook.attach()).map_err(|e| format!("{e:#}"))?;
            Ok(index)
        })?;
        Ok(Self {
            generate: program("generate")?,
            plan: map("plan")?,
            state: map("state")?,
            arrived: map("arrived")?,
            delays: map("delays")?,
            index,
        })
    }

    /// Starts to send from CPU `cpu`, and to expect what a forwarder that adds `outer` bytes makes of it.
    pub fn start(
        &self,
        namespace: &Namespace,
        cpu: usize,
        frames: Frames,
        pace: Pace,
        outer: usize,
    ) -> Result<Sender, Box<dyn Error>> {
        self.plan.update(&ONLY, &frames.plan(pace, outer), MapFlags::ANY)?;
        self.state.update(&ONLY, &[0; 16], MapFlags::ANY)?;
        let stop = Arc::new(AtomicBool::new(false));
        // The kernel ends a test run when there is a signal.
        let signal = signal_hook::flag::register(Signal::SIGUSR1 as i32, Arc::clone(&stop))?;
        let (program, index, flag) = (self.generate.try_clone()?, self.index, stop);
        let id = Arc::new(AtomicU32::new(0));
        let own = Arc::clone(&id);
        let thread = namespace.spawn(move || {
            own.store(nix::unistd::gettid().as_raw() as u32, Relaxed);
            pin(cpu)?;
            while !flag.load(Relaxed) {
                run(&program, index, &frames.template())?;
            }
            Ok(())
        })?;
        Ok(Sender { thread: Some(thread), id, signal })
    }

    pub fn seen(&self) -> Result<Seen, Box<dyn Error>> {
        let state = self.state.lookup(&ONLY, MapFlags::ANY)?.unwrap_or_default();
        let mut sent = [0; 8];
        sent.copy_from_slice(state.get(8..16).ok_or("the state is too short")?);
        let mut arrived = sums(&self.arrived, WRONG + 1)?;
        let wrong = arrived.pop().unwrap_or_default();
        Ok(Seen { sent: u64::from_ne_bytes(sent), arrived, wrong })
    }

    /// The time that frames are stamped with, in nanoseconds.
    pub fn now() -> io::Result<u64> {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// How many stamped frames were under way for how long, by the window of an eighth of a second in which they
    /// arrived; the windows are used again after two seconds. Each with the middle of its class, in nanoseconds.
    /// Classes are 1/32 of an octave wide.
    pub fn delays(&self) -> Result<Vec<Delays>, Box<dyn Error>> {
        let width = |class: usize| 2_f64.powi((class / 32) as i32) / 32.0;
        let middle = |class: usize| (32 + class % 32) as f64 * width(class) + width(class) / 2.0;
        let sums = sums(&self.delays, WINDOWS * CLASSES)?;
        let of = |window: &[u64]| -> Delays {
            window.iter().enumerate().map(|(class, count)| (middle(class), *count)).collect()
        };
        Ok(sums.chunks(CLASSES).map(of).collect())
    }
}

/// Sends until it is dropped.
pub struct Sender {
    thread: Option<JoinHandle<io::Result<()>>>,
    id: Arc<AtomicU32>,
    signal: signal_hook::SigId,
}

impl Sender {
    /// What its thread has done so far.
    pub fn schedule(&self) -> Result<Schedule, Box<dyn Error>> {
        Ok(Schedule::of_thread(std::process::id(), self.id.load(Relaxed))?)
    }

    pub fn stop(mut self) -> Result<(), Box<dyn Error>> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Again and again, since the first may come just before the run begins.
        while !thread.is_finished() {
            // It may end in between.
            let _ = pthread_kill(thread.as_pthread_t(), Signal::SIGUSR1);
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = thread.join().map_err(|_| "the generator panicked")?;
        signal_hook::low_level::unregister(self.signal);
        Ok(ended?)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the generator: {error}");
        }
    }
}

/// Binds the calling thread, and those it starts, to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Sends copies of `frame`, changed by the program, until there is a signal.
fn run(program: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, frame.len() as u32, 0, index, 0, 0];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: i32::MAX,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: BATCH,
        ..Default::default()
    };
    // SAFETY: the pointers are to memory of the sizes beside them, which lives until the call returns;
    // those to write to are null.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    match io::Error::last_os_error() {
        error if code != 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

fn sums(map: &MapHandle, slots: usize) -> Result<Vec<u64>, Box<dyn Error>> {
    let sum = |slot: u32| -> Result<u64, Box<dyn Error>> {
        let values = map.lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let numbers =
            values.iter().filter_map(|value| Some(u64::from_ne_bytes(*value.first_chunk()?)));
        Ok(numbers.sum())
    };
    (0..slots as u32).map(sum).collect()
}

fn compile() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut clang = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-x", "c", "-c", "-", "-o", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start clang: {error}; install the package clang"))?;
    clang.stdin.take().ok_or("clang has no input")?.write_all(SOURCE.as_bytes())?;
    let output = clang.wait_with_output()?;
    if !output.status.success() {
        return Err("clang cannot compile traffic.bpf.c".into());
    }
    Ok(output.stdout)
}
