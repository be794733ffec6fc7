//! Every check there is, cheapest first: each with a heading, then a table of how it went.

use crate::binaries::{self, Binary};
use crate::{Result, disk, install, instructions, namespaces, packages, process};
use std::time::{Duration, Instant};

/// A name and a check, which returns a remark for the table; it may be empty.
type Step = (&'static str, fn() -> Result<String>);

const PACKAGES: Step = ("system packages", install_all);
const ROOM: Step = ("room on the disk", disk::check);

/// What needs neither root nor a system package.
const PURE: &[Step] = &[
    ("formatting", || cargo("fmt --all --check")),
    ("clippy, pure core", || clippy("--package dsrlb --no-default-features")),
    ("tests, pure core", pure_tests),
    ("pure core without a C compiler", no_c_compiler),
];

/// The rest. The namespace tests are last: they alone need root, so without it everything else has been seen to.
const FULL: &[Step] = &[
    ("clippy, all features", || clippy("--workspace --all-features")),
    ("clippy, default features", || clippy("--package dsrlb")),
    ("tests, all features", || unprivileged("--package dsrlb --all-features", LONG)),
    ("doc tests", || cargo("test --doc --package dsrlb --all-features")),
    ("documentation", documentation),
    ("licences and sources", deny),
    ("instructions a packet", instructions::check),
    ("namespace tests", namespace_tests),
];

/// Tests of what no feature changes that take long: they run once, with the pure core.
const LONG: &[&str] =
    &["agreement", "explain", "flow_changes", "flow_table", "probe_many", "properties", "sync"];

pub(crate) fn quick() -> Result {
    steps(PURE.iter())
}

pub(crate) fn all() -> Result {
    // First, so that a password is asked for while someone is still looking.
    steps([&PACKAGES, &ROOM].into_iter().chain(PURE).chain(FULL))
}

fn steps<'a>(steps: impl Iterator<Item = &'a Step>) -> Result {
    let mut table = Vec::new();
    let mut failure = None;
    for (name, check) in steps {
        if failure.is_some() {
            table.push(row(name, "not run", Duration::ZERO, ""));
            continue;
        }
        println!("\n== {}", name);
        let start = Instant::now();
        let outcome = check();
        let took = start.elapsed();
        println!("-- {:.1} s", took.as_secs_f64());
        match outcome {
            Ok(remark) => table.push(row(name, "ok", took, &remark)),
            Err(message) => {
                table.push(row(name, "FAILED", took, ""));
                failure = Some(format!("{}: {message}", name));
            }
        }
    }
    println!("\n{:<32} {:<8} {:>7}", "step", "result", "seconds");
    println!("{}", table.join("\n"));
    failure.map_or(Ok(()), Err)
}

fn row(name: &str, result: &str, took: Duration, remark: &str) -> String {
    format!("{name:<32} {result:<8} {:>7.1}  {remark}", took.as_secs_f64()).trim_end().to_owned()
}

/// Runs cargo with arguments that have no spaces in them.
fn cargo(args: &str) -> Result<String> {
    process::run(&mut process::cargo(&words(args))).map(|()| String::new())
}

fn words(args: &str) -> Vec<&str> {
    args.split(' ').collect()
}

fn install_all() -> Result<String> {
    install::ensure_all().map(|()| String::new())
}

fn clippy(selection: &str) -> Result<String> {
    cargo(&format!("clippy {selection} --all-targets -- -D warnings"))
}

fn pure_tests() -> Result<String> {
    unprivileged("--workspace --no-default-features", &[])?;
    cargo("test --doc --package dsrlb --no-default-features")?;
    // As the README says; it fails if the frames are not as they should be.
    cargo("run --quiet --package dsrlb --no-default-features --example simulate")
}

fn namespace_tests() -> Result<String> {
    namespaces::run(&build("--package dsrlb --all-features")?)
}

fn build(selection: &str) -> Result<Vec<Binary>> {
    binaries::build(process::cargo(&["test"]).args(words(selection)))
}

/// Runs all tests but the doc tests, those that need root, and these. Cargo runs them, rather than we, because it gives
/// them the directory and the variables they may count on; it cannot be told to leave one out, so the others are named.
fn unprivileged(selection: &str, left_out: &[&str]) -> Result<String> {
    let mut command = process::cargo(&["test"]);
    // What could be installed is there: a test that would be skipped for want of it fails.
    let (variable, packages) = packages::may_lack();
    command.env(variable, packages).args(words(selection)).args(["--lib", "--bins"]);
    let built = build(selection)?;
    let tests: Vec<_> = built.iter().filter(|binary| binary.is_integration_test()).collect();
    if let Some(gone) = left_out.iter().find(|name| !tests.iter().any(|test| test.name == **name)) {
        return Err(format!("there is no test `{gone}` to leave out"));
    }
    for test in tests.iter().filter(|test| !test.needs_root()) {
        if !left_out.contains(&test.name.as_str()) {
            command.args(["--test", &test.name]);
        }
    }
    process::run(&mut command).map(|()| String::new())
}

/// In a directory of its own, since what is built already would not be built again.
fn no_c_compiler() -> Result<String> {
    let mut command = process::cargo(&words("check --package dsrlb --lib --no-default-features"));
    command
        .env("CC", "/bin/false")
        .env("CLANG", "/bin/false")
        .env("CARGO_TARGET_DIR", process::target_dir()?.join("no-c"));
    process::run(&mut command).map(|()| String::new())
}

fn documentation() -> Result<String> {
    let mut command = process::cargo(&words("doc --package dsrlb --no-deps --all-features"));
    process::run(command.env("RUSTDOCFLAGS", "-D warnings")).map(|()| String::new())
}

/// Without the advisories, which change from day to day and have to be fetched: a test should not fail for either.
fn deny() -> Result<String> {
    if process::succeeds(&mut process::cargo(&["deny", "--version"])) {
        return cargo("deny --all-features check --hide-inclusion-graph licenses bans sources");
    }
    Ok("skipped: no cargo-deny (cargo install cargo-deny --locked)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stops_the_run_and_is_named() {
        let list: [Step; 3] = [
            ("first", || Ok("well".into())),
            ("second", || Err("badly".into())),
            ("third", || unreachable!("it comes after a failure")),
        ];
        assert_eq!(steps(list.iter()).unwrap_err(), "second: badly");
        assert_eq!(steps(list[..1].iter()), Ok(()));
    }

    #[test]
    fn a_row_says_how_a_step_went() {
        let row = row("first", "ok", Duration::from_millis(1240), "2 tests");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["first", "ok", "1.2", "2", "tests"]
        );
    }
}
