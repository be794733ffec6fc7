//! Runs what is to be compared, and writes it down in one document with the machine named.

mod criterion;

use crate::machine::Machine;
use crate::{Result, binaries, install, process};
use std::fs;
use std::path::Path;

/// Where the figures of a whole run are kept.
const DOCUMENT: &str = "docs/benchmarks.md";
/// The pure parts that decide what a packet costs.
const PURE: &str = "^(pipeline|flow table|forwarding)";

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Extent {
    Full,
    /// The smallest frames, shorter; in minutes, to see a tendency.
    Quick,
}

impl Extent {
    fn command(self) -> &'static str {
        match self {
            Self::Full => "cargo xtask bench",
            Self::Quick => "cargo xtask bench -- quick",
        }
    }
}

/// Measures everything. A whole run replaces the document in the tree, a quick one writes beside what was built.
pub(crate) fn run(extent: Extent) -> Result {
    install::ensure_packages()?;
    let target = process::target_dir()?;
    let directory = target.join("bench");
    let machine = Machine::look()?;
    let pure = pure(&directory.join("criterion"), extent)?;
    let pipeline = format!("```text\n{}```\n", printed("pipeline")?);
    let publication = printed("publication")?;
    let wire = wire(extent)?;
    let file = match extent {
        Extent::Full => process::root()?.join(DOCUMENT),
        Extent::Quick => directory.join("quick.md"),
    };
    let parts = [
        ("In memory", pure),
        ("The whole pipeline, in memory", pipeline),
        ("What a change costs", publication),
        ("On the wire", wire),
    ];
    let text = document(extent, &machine, &parts);
    fs::write(&file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    println!("\n{text}\nWritten to {}.", file.display());
    Ok(())
}

fn document(extent: Extent, machine: &Machine, parts: &[(&str, String)]) -> String {
    let command = extent.command();
    let parts: String =
        parts.iter().map(|(title, text)| format!("\n## {title}\n\n{text}")).collect();
    format!(
        "# Benchmarks\n\nWritten by `{command}`, not by hand. Ratios within one run tell more than figures do.\n\n\
         {machine}{parts}"
    )
}

/// What one of the benchmarks in memory prints.
fn printed(bench: &str) -> Result<String> {
    process::output(&mut process::cargo(&["bench", "--all-features", "--bench", bench]))
}

/// Criterion's benchmarks of the pure core, in a directory of their own, so that nothing old is read.
fn pure(directory: &Path, extent: Extent) -> Result<String> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
    }
    let mut command =
        process::cargo(&["bench", "--all-features", "--bench", "pure", "--", PURE, "--noplot"]);
    if extent == Extent::Quick {
        command.args(["--warm-up-time", "0.3", "--measurement-time", "1", "--sample-size", "20"]);
    }
    process::run(command.env("CRITERION_HOME", directory))?;
    criterion::table(directory)
}

/// The comparison on a veth pair, as root.
fn wire(extent: Extent) -> Result<String> {
    let mut build = process::cargo(&["bench", "--all-features", "--bench", "forwarders"]);
    let built = binaries::build(&mut build)?;
    let forwarders = built.iter().find(|binary| binary.name == "forwarders");
    let forwarders = forwarders.ok_or("cargo did not build the benchmark `forwarders`")?;
    let mut command = process::as_root(&forwarders.program)?;
    if extent == Extent::Quick {
        command.arg("quick");
    }
    let text = process::output(&mut command)?;
    if text.starts_with("SKIPPED:") {
        return Err(format!("nothing was compared on the wire: {text}"));
    }
    Ok(text)
}
