//! How many instructions a packet takes, beside how many it took when that was last written down. Unlike times, they
//! are the same on a busy machine, so a test can rely on them.

use crate::{Result, install, process};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const CASES: [&str; 3] = ["known-1k", "ipip-known-1k", "ipv6-known-1k"];
/// What batches there are in the shorter run, and how many more in the longer one: the difference is theirs alone.
const SHORTER: u64 = 50;
const MORE: u64 = 500;
const PACKETS_A_BATCH: u64 = 64;
/// More than this many of a hundred is worth a look.
const TOLERATED: f64 = 3.0;
const RECORD: &str = "benches/instructions.txt";

/// Fails if a packet takes more instructions than were recorded, by the same compiler on the same architecture. Says
/// nothing of other compilers: theirs differ by more than what is looked for.
pub(crate) fn check() -> Result<String> {
    let path = process::root()?.join(RECORD);
    let record = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let compiler = compiler()?;
    if record.lines().next() != Some(&format!("# {compiler}")) {
        let was = record.lines().next().unwrap_or_default();
        return Ok(format!("not compared: {compiler}, and {RECORD} is of {was}"));
    }
    let mut remarks = Vec::new();
    for (name, now) in count()? {
        let line = record.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let before: f64 = line.ok_or_else(|| format!("{RECORD} has no line for {name}"))?;
        let more = (now / before - 1.0) * 100.0;
        remarks.push(format!("{name} {now:.0}, {more:+.1} %"));
        if more > TOLERATED {
            return Err(format!(
                "{name} takes {now:.0} instructions a packet, {more:.1} % more than the {before:.0} in {RECORD}: \
                 find out why (valgrind --tool=callgrind), or if it is worth it, `cargo xtask instructions`"
            ));
        }
    }
    Ok(remarks.join("; "))
}

/// Writes down how many there are now.
pub(crate) fn record() -> Result {
    install::ensure_packages()?;
    let mut text = format!("# {}\n", compiler()?);
    for (name, count) in count()? {
        let _ = writeln!(text, "{name} {count:.0}");
    }
    print!("{text}");
    let path = process::root()?.join(RECORD);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn compiler() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
    Ok(format!("rustc {} {}", line("release: "), line("host: ")))
}

fn count() -> Result<Vec<(&'static str, f64)>> {
    let bench = ["bench", "--package", "dsrlb", "--no-default-features", "--bench", "pipeline"];
    let built = process::cargo(&bench).args(["--no-run", "--message-format=json"]).output();
    let built = built.map_err(|error| format!("cargo bench --no-run: {error}"))?;
    let text = String::from_utf8_lossy(&built.stdout);
    let key = "\"executable\":\"";
    let program =
        text.lines().filter_map(|line| line.split_once(key)?.1.split('"').next()).next_back();
    let program = program.ok_or("cargo bench --no-run built no `pipeline`; run it to see why")?;
    let one = |name| {
        let run = |rounds| instructions(Path::new(program), name, rounds);
        let packets = (MORE * PACKETS_A_BATCH) as f64;
        Ok((name, (run(SHORTER + MORE)? - run(SHORTER)?) as f64 / packets))
    };
    CASES.into_iter().map(one).collect()
}

fn instructions(program: &Path, case: &str, rounds: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let command = command.args(["--count", case, &rounds.to_string()]);
    let output = command.output().map_err(|error| process::not_started(command, &error))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let counted =
        text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    counted.ok_or_else(|| format!("{} counted nothing:\n{text}", process::shown(command)))
}
