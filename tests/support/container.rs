//! A systemd that is booted on a host of the laboratory, by `container.sh`: process 1 of namespaces of its own, with a
//! scratch directory as its root.

use super::guides::pipe;
use super::lab::Host;
use super::skip;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Says what it makes, and why nothing of the machine is touched.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/container.sh");
/// How long a boot may take, and a script; both take a second or so.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a boot has to find, and the package of Debian that has it.
const NEEDED: [(&str, &str); 6] = [
    ("/usr/lib/systemd/systemd", "systemd"),
    ("/usr/lib/systemd/systemd-networkd", "systemd"),
    ("/usr/lib/systemd/system/dbus.service", "dbus"),
    ("/usr/bin/dbus-daemon", "dbus-daemon"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
];
/// Units that a test has no use for.
const MASKED: [&str; 8] = [
    "console-getty.service",
    "getty.target",
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-logind.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
];

/// The root of a host: what stays when it is switched off.
pub struct Machine {
    scratch: TempDir,
}

/// A machine that runs on a host; switched off when dropped, as by pulling the plug.
pub struct Container {
    holder: Child,
    // Taken when it ends.
    held: Option<ChildStdin>,
    init: u32,
}

/// Whether systemd can be booted here. If not, says why, and what for.
#[track_caller]
pub fn can_boot(what_for: &str) -> bool {
    if !has_files(&NEEDED, what_for) {
        return false;
    }
    let trial = control_group().and_then(|group| {
        let made = fs::create_dir(&group).and_then(|()| fs::remove_dir(&group));
        made.map_err(|error| format!("{}: {error}", group.display()))
    });
    if let Err(error) = &trial {
        skip::kernel_cannot(&format!("no systemd can be booted for {what_for}: {error}"));
    }
    trial.is_ok()
}

/// Whether all these files are there. If not, says which package has the first that is not, and what for.
#[track_caller]
pub fn has_files(needed: &[(&str, &str)], what_for: &str) -> bool {
    let absent = needed.iter().find(|(path, _)| !Path::new(path).exists());
    if let Some((path, package)) = absent {
        skip::without_program(&format!("no {path} for {what_for}"), package);
    }
    absent.is_none()
}

/// Where a control group of version 2 can be made for a child of this process.
fn control_group() -> Result<PathBuf, String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let mounts = read("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (place, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
        let writable = options.split(',').any(|option| option == "rw");
        (kind == "cgroup2" && writable).then_some(place)
    });
    let mount = mount.ok_or("no cgroup2 is mounted for writing, which systemd takes")?;
    let own = read("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("dsrlb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(Path::new(mount).join(own).join(name))
}

impl Machine {
    /// A fresh one, with networkd enabled.
    pub fn new() -> Self {
        let machine =
            Self { scratch: tempfile::Builder::new().prefix("dsrlb-").tempdir().unwrap() };
        machine.furnish().unwrap();
        machine
    }

    /// A place in its root.
    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    fn furnish(&self) -> io::Result<()> {
        let units = "etc/systemd/system";
        for directory in ["usr", "proc", "sys", "dev", "run", "tmp", "var/lib", "var/log", "root"] {
            fs::create_dir_all(self.at(directory))?;
        }
        // What the packages of systemd and netplan come with.
        for directory in ["sysctl.d", "systemd/network", "netplan"] {
            fs::create_dir_all(self.at("etc").join(directory))?;
        }
        for directory in ["multi-user.target.wants", "sockets.target.wants"] {
            fs::create_dir_all(self.at(units).join(directory))?;
        }
        // As the machine has them, whether they are links into /usr or not.
        for name in ["bin", "sbin", "lib", "lib64"] {
            if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
                symlink(target, self.at(name))?;
            }
        }
        // The users that the packages of systemd and dbus made, and where netplan finds its library.
        for name in ["passwd", "group", "ld.so.cache"] {
            fs::copy(Path::new("/etc").join(name), self.at("etc").join(name))?;
        }
        fs::write(self.at("etc/hostname"), "dsrlb\n")?;
        // Or it would be a first boot, with all that packages would have started.
        fs::write(self.at("etc/machine-id"), "d5b1d5b1d5b1d5b1d5b1d5b1d5b1d5b1\n")?;
        symlink("/run", self.at("var/run"))?;
        for unit in MASKED {
            symlink("/dev/null", self.at(units).join(unit))?;
        }
        let networkd = "/usr/lib/systemd/system/systemd-networkd";
        symlink(
            format!("{networkd}.service"),
            self.at(units).join("multi-user.target.wants/systemd-networkd.service"),
        )?;
        symlink(
            format!("{networkd}.socket"),
            self.at(units).join("sockets.target.wants/systemd-networkd.socket"),
        )?;
        self.mask_generators()
    }

    /// Programs that other packages want to have a say at boot, of this machine perhaps.
    fn mask_generators(&self) -> io::Result<()> {
        let masks = self.at("etc/systemd/system-generators");
        fs::create_dir_all(&masks)?;
        for generator in fs::read_dir("/usr/lib/systemd/system-generators")?.flatten() {
            if generator.file_name() != "netplan" {
                symlink("/dev/null", masks.join(generator.file_name()))?;
            }
        }
        Ok(())
    }

    /// The files that a guide may leave behind.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut unread = vec![self.at("etc")];
        while let Some(directory) = unread.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                // systemd keeps the directories of units it had to link.
                if entry.file_type().unwrap().is_dir() {
                    unread.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }

    /// Boots it on a host.
    pub fn boot(&self, host: &Host) -> Container {
        let group = control_group().unwrap();
        let announced = self.at("init.pid");
        let _ = fs::remove_file(&announced);
        let mut holder = host.enter(|| {
            Command::new("sh")
                .args([SCRIPT, "hold"])
                .args([self.scratch.path(), &group])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let held = holder.stdin.take();
        let mut container = Container { holder, held, init: 0 };
        let begun = Instant::now();
        container.init = loop {
            let pid = fs::read_to_string(&announced).unwrap_or_default();
            match pid.strip_suffix('\n') {
                Some(pid) => break pid.parse().unwrap(),
                None => assert!(begun.elapsed() < PATIENCE, "systemd was not started"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        container.wait_for_boot();
        container
    }
}

impl Container {
    fn wait_for_boot(&self) {
        let begun = Instant::now();
        while !self.sh("systemctl is-active --quiet multi-user.target").0 {
            assert!(begun.elapsed() < PATIENCE, "systemd did not boot:\n{}", self.journal());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pipes a script to `sh` inside, as root who has logged in.
    pub fn sh(&self, script: &str) -> (bool, String) {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", &PATIENCE.as_secs().to_string(), "nsenter"])
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "env", "-i"])
            .args(["HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh"]);
        pipe(&mut command, script)
    }

    /// What systemd and its services said, for a test that failed.
    pub fn journal(&self) -> String {
        self.sh("systemctl --failed --no-legend; journalctl --no-pager --quiet | tail -n 60").1
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.held.take());
        if let Err(error) = self.holder.wait() {
            let _ = writeln!(io::stderr(), "container: {error}");
        }
    }
}
