//! Room on the disk: a linker that finds none dies of a bus error, which does not tell anyone what is missing.

use crate::{Result, process};
use std::env;
use std::path::Path;
use std::process::Command;

/// What `cargo xtask test` builds from nothing takes, in MiB.
const NEEDED: u64 = 5 << 10;
/// What incremental compilation keeps beside that.
const FOR_NEXT_TIME: u64 = 3 << 10;

/// Fails if what is free, with what is built already, is less than what the tests are built to.
pub(crate) fn check() -> Result<String> {
    let target = process::target_dir()?;
    let built = first_number(Command::new("du").args(["-sm"]).arg(&target))?;
    let free = first_number(Command::new("df").args(["-m", "--output=avail"]).arg(&target))?;
    let is_incremental = env::var_os("CARGO_INCREMENTAL").is_none_or(|value| value != "0");
    let needed = NEEDED + if is_incremental { FOR_NEXT_TIME } else { 0 };
    enough(needed, &target, built, free)
}

fn enough(needed: u64, target: &Path, built: u64, free: u64) -> Result<String> {
    if built + free < needed {
        return Err(format!(
            "the tests are built to {needed} MiB; {} has {built} MiB and the disk under it {free} MiB more: free some, \
             or name a directory on another disk by CARGO_TARGET_DIR",
            target.display()
        ));
    }
    Ok(format!("{free} MiB free"))
}

/// The first number a command prints, after a heading or before a name.
fn first_number(command: &mut Command) -> Result<u64> {
    let text = process::output(command)?;
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.next().ok_or_else(|| format!("`{}` printed no number", process::shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_already_needs_no_room() {
        let target = Path::new("/t");
        assert!(enough(9, target, 9, 0).is_ok());
        assert!(enough(9, target, 0, 9).is_ok());
        let message = enough(9, target, 1, 7).unwrap_err();
        assert!(
            message.contains("/t has 1 MiB") && message.contains("CARGO_TARGET_DIR"),
            "{message}"
        );
    }
}
