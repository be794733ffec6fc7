//! A newcomer's way, from a clone to the first served request: typed as the README says, timed, and counted.

use crate::machine::Machine;
use crate::scratch::Scratch;
use crate::{Result, process};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// After so many seconds the demonstration is asked to end, which takes its network away, and the run has failed.
const LIMIT_SECONDS: &str = "1800";

/// What has to be there or known besides the commands. Whoever adds one has made it harder to start.
const TO_KNOW: [&str; 4] = [
    "git and Rust (rustup) are there before: they are neither installed nor timed here",
    "Debian or Ubuntu: there the missing system packages are installed, elsewhere their names are printed",
    "root, or sudo, which may ask for a password: for these packages, and for the demonstration itself",
    "the demonstration makes network namespaces of its own and takes them away again; no interface of the host is touched",
];

/// A point on the way, and how the output of `cargo xtask demo` shows that it is reached.
struct Stage {
    name: &'static str,
    sign: &'static str,
}

const STAGES: [Stage; 4] = [
    Stage { name: "system packages are there", sign: "$ cargo build --release" },
    Stage { name: "everything is built", sign: "$ cargo metadata" },
    Stage { name: "the first request is served", sign: "The first request is served" },
    Stage { name: "the demonstration has ended", sign: "The network is gone again." },
];
/// What says that packages had to be installed.
const MISSING: &str = "System packages that are missing:";

/// Walks it, in a directory that is gone afterwards. What is not committed is not in the clone. Cargo's downloads of
/// earlier builds are used again, what it built is not.
pub(crate) fn run() -> Result {
    let scratch = Scratch::new("newcomer")?;
    let clone = scratch.0.join("dsrlb");
    let start = Instant::now();
    process::run(Command::new("git").args(["clone", "--quiet"]).arg(process::root()?).arg(&clone))?;
    let cloned = start.elapsed();

    // `timeout` asks by SIGTERM. As root, each program on this way turns itself into the next, so the demonstration hears
    // it; what sudo has started cannot be asked, and is to be ended by hand.
    let mut command = Command::new("timeout");
    command.args(["--foreground", LIMIT_SECONDS, "cargo", "xtask", "demo"]);
    command.current_dir(&clone).env("CARGO_TARGET_DIR", clone.join("target"));
    // A cache of what was compiled would shorten it.
    command.env("RUSTC_WRAPPER", "").stdout(Stdio::piped());
    println!("$ cd dsrlb\n$ cargo xtask demo");
    let mut demo = command.spawn().map_err(|error| process::not_started(&command, &error))?;
    let output = demo.stdout.take().ok_or("the output of the demonstration cannot be read")?;
    let (mut reached, mut installed) = (Vec::new(), false);
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("reading what the demonstration says: {error}"))?;
        println!("{line}");
        installed |= line.contains(MISSING);
        if next(reached.len(), &line) {
            reached.push(start.elapsed());
        }
    }
    let status = demo.wait().map_err(|error| format!("waiting for the demonstration: {error}"))?;
    if !status.success() {
        return Err(format!(
            "`cargo xtask demo` in a fresh clone failed ({status}; 124: after {LIMIT_SECONDS} s)"
        ));
    }
    if let Some(stage) = STAGES.get(reached.len()) {
        return Err(format!(
            "`cargo xtask demo` ended well and never printed `{}`: was that line changed?",
            stage.sign
        ));
    }
    println!("\n{}", table(cloned, &reached, installed));
    println!("{}.", Machine::look()?.line());
    Ok(())
}

/// Whether `line` shows the stage after the first `reached`.
fn next(reached: usize, line: &str) -> bool {
    STAGES.get(reached).is_some_and(|stage| line.contains(stage.sign))
}

/// What was typed and how long it took, for a page of the book.
fn table(cloned: Duration, reached: &[Duration], installed: bool) -> String {
    const TYPED: [&str; 3] = ["git clone URL dsrlb", "cd dsrlb", "cargo xtask demo"];
    let row = |point: &str, typed: &str, after: Duration| {
        format!("| {point} | {typed} | {:.1} |\n", after.as_secs_f64())
    };
    let mut text = "| reached | by typing | seconds since the start |\n|---|---|---|\n".to_owned();
    text += &row("the source is there", &format!("`{}`", TYPED[0]), cloned);
    for (number, (stage, after)) in STAGES.iter().zip(reached).enumerate() {
        let none_missing = if number == 0 && !installed { " (none was missing)" } else { "" };
        let typed = match number {
            0 => format!("`{}`, `{}`", TYPED[1], TYPED[2]),
            _ => String::new(),
        };
        text += &row(&format!("{}{none_missing}", stage.name), &typed, *after);
    }
    text += &format!("\n{} commands. {} things to know:\n\n", TYPED.len(), TO_KNOW.len());
    for thing in TO_KNOW {
        text += &format!("- {thing}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_known_by_a_line_that_the_demonstration_still_prints() {
        let story = include_str!("../../examples/lab/story.rs");
        for stage in &STAGES[2..] {
            assert!(story.contains(stage.sign), "{}", stage.sign);
        }
        assert!(include_str!("install.rs").contains(MISSING));
        let build = process::cargo(&["build", "--release", "--example", "simple_vip"]);
        assert!(next(0, &format!("$ {}", process::shown(&build))));
        assert!(!next(0, "$ cargo metadata") && !next(STAGES.len(), "$ cargo metadata"));
    }

    #[test]
    fn the_table_counts_what_it_lists() {
        let after = [4, 200, 201, 220].map(Duration::from_secs);
        let text = table(Duration::from_millis(100), &after, false);
        assert!(text.contains("| the source is there | `git clone URL dsrlb` | 0.1 |\n"), "{text}");
        assert!(
            text.contains("there (none was missing) | `cd dsrlb`, `cargo xtask demo` | 4.0 |\n")
        );
        assert!(text.contains("| the first request is served |  | 201.0 |\n"), "{text}");
        let things = text.lines().filter(|line| line.starts_with("- ")).count();
        assert!(text.contains(&format!("\n3 commands. {things} things to know:\n")), "{text}");
        assert!(!table(Duration::ZERO, &after, true).contains("none was missing"));
    }
}
