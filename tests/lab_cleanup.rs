//! The laboratory's namespaces: entering them, and that none outlives its lab, however its process ends.

#[path = "../examples/lab/mod.rs"]
mod lab;

use lab::{Lab, LabOptions, Namespace, http_get, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

type TestResult = Result<(), Box<dyn Error>>;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Set for the copy of this program that is to be ended.
const HOLDER: &str = "DSRLB_TEST_HOLDER";

#[test]
fn nothing_is_left_behind() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions::named("gone")) else {
        return Ok(());
    };
    let own = || {
        netns::list(|pid| pid == std::process::id())
            .into_iter()
            .filter(|name| name.contains("-gone-"))
            .count()
    };
    assert_eq!(own(), 6);
    drop(lab);
    assert_eq!(own(), 0);

    // Also not by a build that fails half-way: there is no such MTU.
    let options = LabOptions { mtu: 1, ..LabOptions::named("gone") };
    let error = Lab::build(&options).unwrap_err().to_string();
    assert!(
        error.contains("link add") || error.contains("link set"),
        "the error names no command: {error}"
    );
    assert_eq!(own(), 0);
    Ok(())
}

#[test]
fn a_sweep_removes_what_dead_processes_left_and_nothing_else() -> TestResult {
    if Lab::build_or_skip(&LabOptions::named("sweep")).is_none() {
        return Ok(());
    }
    let mut dead = Command::new("true").spawn()?;
    let dead_pid = dead.id();
    dead.wait()?;
    let exists = |name: &str| Path::new("/run/netns").join(name).exists();
    // Not a `Namespace`, as a test that runs at the same time may sweep it up first.
    let leftover = format!("dsrlb-sweep-{dead_pid}-0-switch");
    assert!(Command::new("ip").args(["netns", "add", &leftover]).status()?.success());
    // Of a living process (this one's parent), and one that is no lab's.
    let alive =
        Namespace::create(format!("dsrlb-sweep-{}-0-switch", std::os::unix::process::parent_id()))?;
    let foreign = Namespace::create(format!("sweep-{dead_pid}-0-switch"))?;
    netns::sweep();
    assert!(!exists(&leftover));
    assert!(exists(alive.name()) && exists(foreign.name()));
    Ok(())
}

#[test]
fn what_happens_inside_a_namespace_reaches_the_caller() -> TestResult {
    let Some(lab) = Lab::build_or_skip(&LabOptions { backends: 1, ..LabOptions::named("enter") })
    else {
        return Ok(());
    };
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lab.client.enter(|| panic!("inside"))
    }));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
    // A thread that was started inside is inside as well.
    let server = lab.start_http_on(&lab.backends[0], 80)?;
    let port = (lab.backends[0].v4, 80).into();
    let thread = lab
        .client
        .namespace
        .spawn(move || std::thread::spawn(move || http_get(port, "/", TIMEOUT)).join())?;
    let answer = thread.join().map_err(|_| "panicked")?.map_err(|_| "panicked")??;
    assert_eq!(answer.backend(), "b1");
    server.stop();
    let error = lab
        .client
        .namespace
        .run("ip", &["link", "set", "dev", "nothing", "up"])
        .unwrap_err()
        .to_string();
    assert!(error.contains(lab.client.namespace.name()) && error.contains("nothing"), "{error}");
    Ok(())
}

/// What the next test starts as a process of its own, to end it from outside.
fn hold_a_lab() -> TestResult {
    lab::cleanup_on_signals()?;
    let _lab = Lab::build(&LabOptions::named("held"))?;
    // Not `eprintln!`, which the test harness holds back.
    writeln!(io::stderr(), "ready")?;
    std::thread::sleep(Duration::from_secs(20));
    Err("nobody came".into())
}

#[test]
fn a_lab_does_not_outlive_its_process() -> TestResult {
    if std::env::var_os(HOLDER).is_some() {
        return hold_a_lab();
    }
    if Lab::build_or_skip(&LabOptions::named("holder")).is_none() {
        return Ok(());
    }
    for (signal, status) in
        [(Signal::SIGTERM, Some(143)), (Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)]
    {
        let mut holder = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_lab_does_not_outlive_its_process"])
            .env(HOLDER, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = holder.id();
        let left = || netns::list(|owner| owner == pid).len();
        let output = holder.stderr.take().ok_or("no stderr")?;
        let ready =
            BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready && left() == 6, "the holder built no lab; it has {} namespaces", left());
        kill(Pid::from_raw(pid.try_into()?), signal)?;
        assert_eq!(holder.wait()?.code(), status);
        if signal == Signal::SIGKILL {
            // Nobody can clean up after that but the next lab.
            netns::sweep();
        }
        assert_eq!(left(), 0, "after {signal}");
    }
    Ok(())
}
