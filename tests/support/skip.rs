//! What a test cannot do here, said so that nobody takes it for done: `xtask` counts the lines that begin with `SKIPPED:`.
//!
//! There are two kinds, and only one may be had where `xtask` runs the tests. What a package brings it has installed, so
//! there a test without that program fails. What a kernel cannot no package changes: that is skipped everywhere.
#![allow(dead_code)] // each test file uses a part

use std::io::{ErrorKind, Write, stderr};
use std::process::Command;

/// Set by `xtask`: the packages, by their names on Debian, that it could not have, as not every distribution has them.
/// Without that variable nobody has installed anything.
const MAY_LACK: &str = "DSRLB_MAY_LACK";

/// There is `what` not, which `package` brings.
///
/// # Panics
/// If `xtask` has seen to it that the package is there.
#[track_caller]
pub fn without_program(what: &str, package: &str) {
    let may_lack = std::env::var(MAY_LACK);
    let is_known =
        may_lack.as_ref().is_ok_and(|known| known.split_whitespace().any(|name| name == package));
    assert!(
        is_known || may_lack.is_err(),
        "there is {what}, which package {package} has; {MAY_LACK} does not name it"
    );
    say(&format!("there is {what} (package {package})"));
}

/// This kernel, or what it lets this process do, is not enough.
pub fn kernel_cannot(why: &str) {
    say(why);
}

fn say(why: &str) {
    // Not `println!`, which the test harness holds back.
    let _ = writeln!(stderr(), "SKIPPED: {why}");
}

/// Whether there is such a program that works: by its word, since distributions have wrappers that find none for their
/// kernel. If not, says what for.
#[track_caller]
pub fn has(program: &str, version: &str, package: &str, what_for: &str) -> bool {
    let why = match Command::new(program).arg(version).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("no {program} that works {what_for}: {output:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            format!("no {program} {what_for}")
        }
    };
    without_program(&why, package);
    false
}

/// Whether there is a tshark that works. If not, says what for.
#[track_caller]
pub fn has_tshark(what_for: &str) -> bool {
    has("tshark", "--version", "tshark", &format!("for {what_for}"))
}

/// Whether `ip` can attach an XDP program, for which it has to be built with libbpf.
#[track_caller]
pub fn has_ip_with_libbpf() -> bool {
    let said = Command::new("ip").arg("-V").output().unwrap();
    let is_with = String::from_utf8_lossy(&said.stdout).contains("libbpf");
    if !is_with {
        without_program("no ip with libbpf, to attach an XDP program", "iproute2");
    }
    is_with
}
