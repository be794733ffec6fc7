//! Runs the fuzz targets for a while each.

use crate::{Result, process};
use std::fs;

pub(crate) fn run(args: &[&str]) -> Result {
    let (seconds, only) = arguments(args)?;
    process::nightly(&[])?;
    if !process::succeeds(&mut process::cargo(&["fuzz", "--version"])) {
        println!("cargo-fuzz is missing: installing it for this user");
        process::run(&mut process::cargo(&["install", "cargo-fuzz", "--locked"]))?;
    }
    let listed = process::output(&mut process::nightly(&["fuzz", "list"])?)?;
    let targets: Vec<_> =
        listed.lines().filter(|target| only.is_none_or(|only| only == *target)).collect();
    if targets.is_empty() {
        let known = listed.lines().collect::<Vec<_>>().join(", ");
        return Err(match only {
            Some(only) => format!("there is no fuzz target `{only}`, only: {known}"),
            None => "fuzz/Cargo.toml names no target: each needs a [[bin]] there".into(),
        });
    }
    for target in targets {
        fuzz(target, seconds)?;
    }
    Ok(())
}

fn fuzz(target: &str, seconds: u32) -> Result {
    // The fuzzer writes what it finds to the first directory and only reads the second, so that the committed corpus
    // grows when someone decides so and not by itself.
    let root = process::root()?;
    let found = root.join("fuzz/target/corpus").join(target);
    let committed = root.join("fuzz/corpus").join(target);
    fs::create_dir_all(&found).map_err(|error| format!("making {}: {error}", found.display()))?;

    let mut command = process::nightly(&["fuzz", "run", target])?;
    command.arg(found);
    if committed.is_dir() {
        command.arg(committed);
    }
    process::run(command.args(["--", &format!("-max_total_time={seconds}")]))
}

/// `[SECONDS] [TARGET]`
fn arguments<'a>(args: &[&'a str]) -> Result<(u32, Option<&'a str>)> {
    const DEFAULT: u32 = 120;
    let (seconds, rest) = match args {
        [first, rest @ ..] if first.starts_with(|character: char| character.is_ascii_digit()) => {
            let seconds = first
                .parse()
                .map_err(|error| format!("`{first}` is not a number of seconds: {error}"))?;
            (seconds, rest)
        }
        rest => (DEFAULT, rest),
    };
    match (seconds, rest) {
        // libFuzzer takes 0 to mean for ever.
        (0, _) => Err("0 seconds would never end: give at least 1".into()),
        (seconds, []) => Ok((seconds, None)),
        (seconds, [target]) => Ok((seconds, Some(target))),
        (_, [_, extra, ..]) => {
            Err(format!("`{extra}` is one argument too many: cargo xtask fuzz [SECONDS] [TARGET]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn seconds_and_target_may_each_be_left_out() {
        assert_eq!(arguments(&[]).unwrap(), (120, None));
        assert_eq!(arguments(&["5"]).unwrap(), (5, None));
        assert_eq!(arguments(&["parse"]).unwrap(), (120, Some("parse")));
        assert_eq!(arguments(&["5", "parse"]).unwrap(), (5, Some("parse")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(arguments(&["0"]).unwrap_err().contains("at least 1"));
        assert!(arguments(&["5s"]).unwrap_err().contains("`5s`"));
        assert!(arguments(&["parse", "5"]).unwrap_err().contains("`5`"));
    }
}
