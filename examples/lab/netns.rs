//! Network namespaces that belong to this process: made, entered, removed, and swept up after a crash.

use super::command;
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

const DIRECTORY: &str = "/run/netns";

/// A network namespace made by this process. Dropping it removes it, and with it every interface inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    // Held open so that entering needs no path: it works, and means the same namespace, for as long as this value lives.
    handle: File,
}

impl Namespace {
    /// Makes an empty namespace, with its loopback interface up.
    pub fn create(name: String) -> io::Result<Namespace> {
        command::run("ip", &["netns", "add", &name])?;
        let path = Path::new(DIRECTORY).join(&name);
        let opened = File::open(&path);
        let handle = opened.map_err(|error| {
            // Without a `Namespace` nobody else would remove it.
            let _ = command::run("ip", &["netns", "del", &name]);
            io::Error::new(
                error.kind(),
                format!("cannot open {} right after making it: {error}", path.display()),
            )
        })?;
        let namespace = Namespace { name, handle };
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns exec` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside this namespace and returns its result; a panic inside goes on in the caller.
    ///
    /// Threads and processes started inside stay inside; sockets belong to the namespace for ever, whoever uses them.
    /// `/proc/sys/net` shows this namespace, but `/proc/net` and `/sys/class/net` still show the process's own:
    /// read `/proc/thread-self/net` or ask netlink instead.
    ///
    /// # Panics
    /// If the thread cannot enter, which takes a process that has lost the rights it made the namespace with.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            join(&self.handle, &self.name);
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a thread inside this namespace. The namespace outlives its name until the thread ends.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let (handle, name) = (self.handle.try_clone()?, self.name.clone());
        thread::Builder::new().name(name.clone()).spawn(move || {
            join(&handle, &name);
            // The thread is a member now; the open file would only delay the end of the namespace.
            drop(handle);
            work()
        })
    }

    /// Runs a program inside this namespace and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        self.enter(|| command::run(program, arguments)).map_err(|error| self.explain(&error))
    }

    /// Runs many `ip` commands inside this namespace, in one process.
    pub fn ip_batch(&self, lines: &[String]) -> io::Result<()> {
        self.enter(|| command::ip_batch(lines)).map_err(|error| self.explain(&error))
    }

    /// Sets sysctls, given as `("net/ipv4/ip_forward", "0")`. One the kernel lacks is an error.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(key, value)| {
                let path = PathBuf::from("/proc/sys").join(key);
                fs::write(&path, value).map_err(|error| {
                    let message = format!("cannot write {value} to {}: {error}", path.display());
                    self.explain(&io::Error::new(error.kind(), message))
                })
            })
        })
    }

    fn explain(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("in namespace {}: {error}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = command::run("ip", &["netns", "del", &self.name]) {
            eprintln!("lab: namespace left behind: {error}");
        }
    }
}

fn join(handle: &File, name: &str) {
    if let Err(error) = setns(handle, CloneFlags::CLONE_NEWNET) {
        panic!("cannot enter network namespace {name}: {error}; run as root (CAP_SYS_ADMIN)");
    }
}

/// What the names of one lab's namespaces start with. The process id in it tells a sweep whose they are.
pub fn new_prefix(tag: &str) -> io::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        let message = format!(
            "lab tag {tag:?}: expected lower-case letters and digits, as it becomes part of a name"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(format!("dsrlb-{tag}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// The lab namespaces on this machine whose process id `wanted` accepts.
pub fn list(wanted: impl Fn(u32) -> bool) -> Vec<String> {
    // No directory means that no namespace was ever made.
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(&wanted)).collect()
}

/// Removes the namespaces of labs whose process is gone (it was killed before it could clean up).
pub fn sweep() {
    remove(&list(|pid| {
        pid != std::process::id() && !Path::new("/proc").join(pid.to_string()).exists()
    }));
}

/// Removes all of this process's namespaces: for exits that run no destructors.
pub fn remove_own() {
    remove(&list(|pid| pid == std::process::id()));
}

fn remove(names: &[String]) {
    for name in names {
        // Another process may sweep at the same time; then it is gone, which is what is wanted.
        let _ = command::run("ip", &["netns", "del", name]);
    }
}

/// The process id in `dsrlb-<tag>-<pid>-<n>-<role>`; nothing for any other name, so nothing else is ever touched.
fn owner(name: &str) -> Option<u32> {
    let parts: Vec<&str> = name.split('-').collect();
    match parts[..] {
        ["dsrlb", _, pid, lab, _] => lab.parse::<u32>().ok().and(pid.parse().ok()),
        _ => None,
    }
}
