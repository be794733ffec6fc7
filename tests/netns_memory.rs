//! A director that would remember more flows than there is memory for does not start: more than the host has, or than the
//! control group that it is in.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/skip.rs"]
mod skip;

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::director::{Director, StartError};
use lab::{Lab, LabOptions};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Set for the copy of this program that is to start a director in a control group: its interface, and how many flows.
const CHILD: &str = "DSRLB_TEST_CHILD";
/// What it says unless it is an error.
const STARTED: &str = "it started";

fn start(interface: &str, flows: usize) -> Result<(), StartError> {
    let service = VirtualService::new("10.77.0.100:80/tcp".parse().unwrap());
    let service = service.backend(RealServer::new("10.77.0.3".parse().unwrap()));
    let director = Director::builder(interface).claim_checks(None).service(service).flows(flows);
    director.start().map(drop)
}

#[test]
fn more_flows_than_there_is_memory_for_leave_the_interface_alone() {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("memory")) else { return };
    // 16 TiB for each worker.
    let error = lab.director.enter(|| start(&lab.director.interface, 1 << 40)).unwrap_err();
    assert!(matches!(error, StartError::Memory { entries, .. } if entries == 1 << 40), "{error}");
    let link = lab.director.namespace.run("ip", &["link", "show", &lab.director.interface]);
    assert!(!link.unwrap().contains("xdp"));
}

/// A limit for a child of this test, and a group without one in it for the child to be in. Gone when dropped.
struct Group {
    outer: PathBuf,
    limit: PathBuf,
}

const PREFIX: &str = "dsrlb-memory-";

impl Group {
    fn make(bytes: u64) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let place = |line: &str| {
            let mut words = line.split(' ').skip(1);
            let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
            let has = |controllers: &str| controllers.split([' ', ',']).any(|one| one == "memory");
            let given = || fs::read_to_string(Path::new(place).join("cgroup.subtree_control"));
            let limit = match kind {
                "cgroup" if has(options) => "memory.limit_in_bytes",
                "cgroup2" if given().is_ok_and(|given| has(given.trim())) => "memory.max",
                _ => return None,
            };
            Some((PathBuf::from(place), limit))
        };
        let (mount, limit) = mounts
            .lines()
            .find_map(place)
            .ok_or("no control groups with the memory are mounted, or none may be made")?;
        sweep(&mount);
        let outer = mount.join(format!("{PREFIX}{}", std::process::id()));
        let failed = |error| format!("{}: {error}", outer.display());
        fs::create_dir(&outer).map_err(failed)?;
        let group = Self { limit: outer.join(limit), outer: outer.clone() };
        fs::create_dir(group.inner()).map_err(failed)?;
        fs::write(&group.limit, bytes.to_string()).map_err(failed)?;
        Ok(group)
    }

    fn inner(&self) -> PathBuf {
        self.outer.join("inner")
    }
}

/// Removes what test processes left that were killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir(entry.path().join("inner"));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may be about to put away the last process.
        let begun = Instant::now();
        for directory in [self.inner(), self.outer.clone()] {
            while let Err(error) = fs::remove_dir(&directory) {
                if begun.elapsed() > Duration::from_secs(5) {
                    println!("{} is left behind: {error}", directory.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn more_flows_than_a_control_group_has_memory_for_are_refused() {
    if let Ok(told) = std::env::var(CHILD) {
        let (interface, flows) = told.split_once(' ').unwrap();
        let started = start(interface, flows.parse().unwrap());
        println!(
            "said: {}",
            started.map_or_else(|error| error.to_string(), |()| STARTED.to_owned())
        );
        return;
    }
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("memgroup")) else { return };
    let limit: u64 = 256 << 20;
    let group = match Group::make(limit) {
        Ok(group) => group,
        Err(why) => return skip::kernel_cannot(&why),
    };
    // Not by `ip netns exec`, which mounts another /sys, without control groups.
    let says = |procs: &Path, flows: usize| {
        let join = "echo $$ > \"$0\" && exec \"$@\"";
        let output = lab.director.enter(|| {
            Command::new("sh")
                .args(["-ec", join])
                .arg(procs)
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "more_flows_than_a_control_group_has_memory_for_are_refused",
                    "--nocapture",
                ])
                .env(CHILD, format!("{} {flows}", lab.director.interface))
                .output()
                .unwrap()
        });
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let said = text.lines().find_map(|line| Some(line.split_once("said: ")?.1.to_owned()));
        said.unwrap_or_else(|| panic!("{output:?}"))
    };
    let inside = group.inner().join("cgroup.procs");
    // As much as the limit, of which the process itself has taken some.
    let all = limit as usize / 16;
    let refused = says(&inside, all);
    println!("{refused}");
    assert!(refused.contains(&format!("take {limit} bytes, and ")), "{refused}");
    let by = format!("are available under the limit in {};", group.limit.display());
    assert!(refused.contains(&by), "{refused}");
    let available = refused.split(' ').skip_while(|word| *word != "and").nth(1).unwrap();
    let available: u64 = available.parse().unwrap();
    assert!(available < limit && available > limit / 2, "{refused}");
    // A quarter fits; and it is not the host that has too little for all.
    assert_eq!(says(&inside, all / 4), STARTED);
    assert_eq!(says(Path::new("/dev/null"), all), STARTED);
}
