//! Runs the tests that make network namespaces, as root where that can be had, and fails if they proved nothing.

use crate::binaries::Binary;
use crate::{Result, packages, process};
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::Path;
use std::process::Command;

/// How many tests passed, and how many of those only said that they could not run here.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Tally {
    passed: usize,
    skipped: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.skipped += other.skipped;
    }
}

/// Runs every one of `binaries` that needs root; says how many tests were skipped, and fails if all of them were.
pub(crate) fn run(binaries: &[Binary]) -> Result<String> {
    // What this kernel cannot is skipped; for want of a program that could be installed a test fails.
    let (variable, packages) = packages::may_lack();
    let setting = format!("{variable}={packages}");
    let mut total = Tally::default();
    for binary in binaries.iter().filter(|binary| binary.needs_root()) {
        total += run_one(binary, &setting)?;
    }
    verdict(total)
}

fn verdict(Tally { passed, skipped }: Tally) -> Result<String> {
    match (passed, skipped) {
        (0, _) => Err(
            "not one namespace test ran (the targets called netns_* and lab): nothing was proven"
                .into(),
        ),
        (passed, skipped) if skipped >= passed => Err(format!(
            "all {passed} namespace tests were skipped: nothing was proven. The `SKIPPED:` lines above say what was \
             missing.\nThey need root with CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF: run this as root, or install sudo; \
             in a container, start\nit with `--privileged`."
        )),
        (passed, 0) => Ok(format!("{passed} tests")),
        (passed, skipped) => Ok(format!("{skipped} of {passed} tests skipped")),
    }
}

/// Shows what the tests print while they run, and counts it.
fn run_one(binary: &Binary, setting: &str) -> Result<Tally> {
    // Through `env`, because sudo clears the environment. Without sudo they run as the user, and say themselves what they
    // could not do.
    let mut command = process::as_root(Path::new("env")).unwrap_or_else(|_| Command::new("env"));
    command.arg(setting).arg(&binary.program);
    // One at a time: they share the machine's interfaces, and timing is part of what they look at.
    command.args(["--nocapture", "--test-threads=1"]).current_dir(process::root()?);
    println!("$ {}", process::shown(&command));

    let broken = |error| format!("reading what `{}` prints: {error}", process::shown(&command));
    let (lines, writer) = std::io::pipe().map_err(broken)?;
    let both = writer.try_clone().map_err(broken)?;
    let started = command.stdout(both).stderr(writer).spawn();
    let mut child = started.map_err(|error| process::not_started(&command, &error))?;
    let shown = process::shown(&command);
    drop(command); // It holds the pipe's writing end, and the loop below runs until the last one is closed.

    let mut tally = Tally::default();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line.map_err(|error| format!("reading what `{shown}` prints: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally += count(&line);
    }
    let status = child.wait().map_err(|error| format!("waiting for `{shown}`: {error}"))?;
    if status.success() {
        Ok(tally)
    } else {
        Err(format!("this command failed ({status}):\n    {shown}"))
    }
}

/// What one line of a test binary's output adds. With one thread and nothing captured, libtest leaves `test NAME ... `
/// standing at the start of the line that the test itself begins with.
fn count(line: &str) -> Tally {
    let printed = match line.split_once(" ... ") {
        Some((test, printed)) if test.starts_with("test ") => printed,
        _ => line,
    };
    let passed = line.strip_prefix("test result: ok. ").and_then(|rest| rest.split_once(" passed"));
    Tally {
        passed: passed.and_then(|(number, _)| number.parse().ok()).unwrap_or(0),
        skipped: usize::from(printed.starts_with("SKIPPED:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut total = Tally::default();
        output.lines().for_each(|line| total += count(line));
        total
    }

    #[test]
    fn skips_are_counted_wherever_libtest_leaves_them() {
        let output = "running 3 tests\ntest a ... SKIPPED: needs root\nok\ntest b ... \nSKIPPED: no ethtool\nok\n\
                      test c ... ok\n\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(tally(output), Tally { passed: 3, skipped: 2 });
    }

    #[test]
    fn a_line_that_only_speaks_of_a_skip_is_none() {
        assert_eq!(tally("nothing was SKIPPED: good\nwaiting ... SKIPPED: x"), Tally::default());
    }

    #[test]
    fn nothing_proven_is_a_failure() {
        assert!(verdict(Tally::default()).unwrap_err().contains("not one"));
        assert!(
            verdict(Tally { passed: 2, skipped: 2 }).unwrap_err().contains("nothing was proven")
        );
        assert_eq!(verdict(Tally { passed: 3, skipped: 2 }).unwrap(), "2 of 3 tests skipped");
    }
}
