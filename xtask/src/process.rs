//! Running other programs: each is shown before it runs, and named if it fails.

use crate::Result;
use crate::json::string_field;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The root of the source tree. Asked for at run time: a path compiled in is wrong once the tree has moved.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").ok_or("start this as `cargo xtask`, not by its path")?;
    match Path::new(&manifest).parent() {
        Some(root) => Ok(root.to_owned()),
        None => Err(format!("{} has no parent directory", manifest.display())),
    }
}

/// Cargo, of the toolchain this was built with.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args);
    command
}

/// Cargo of the nightly toolchain, or what to do to have it.
pub(crate) fn nightly(args: &[&str]) -> Result<Command> {
    if !succeeds(&mut cargo(&["+nightly", "--version"])) {
        return Err("this needs a nightly toolchain: rustup toolchain install nightly".into());
    }
    let mut command = cargo(&["+nightly"]);
    command.args(args);
    Ok(command)
}

/// `program` with root's rights: as it is when we are root, else through sudo.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !on_path("sudo") {
        return Err(format!(
            "{} has to run as root and there is no sudo: run this command as root",
            program.display()
        ));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether `program` can be started. The `sbin` directories count too: a user's PATH often lacks them, root's has them.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file())
}

/// Runs `command` in the root of the tree, on our terminal; anything but success is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    let status =
        command.current_dir(root()?).status().map_err(|error| not_started(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("this command failed ({status}):\n    {}", shown(command)))
    }
}

/// Runs `command` in the root of the tree and returns its standard output; its errors go to our terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    println!("$ {}", shown(command));
    let output = command.current_dir(root()?).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        return Err(format!("this command failed ({}):\n    {}", output.status, shown(command)));
    }
    String::from_utf8(output.stdout)
        .map_err(|error| format!("`{}` did not print UTF-8: {error}", shown(command)))
}

/// Whether `command` starts and succeeds. For questions, so silent.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Turns this process into `command`; returns only if that cannot be done.
pub(crate) fn replace(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    let error = command.current_dir(root()?).exec();
    Err(not_started(command, &error))
}

/// Where cargo builds to, by whichever of its settings decides.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version=1"]))?;
    let directory = string_field(&metadata, "target_directory");
    directory.map(PathBuf::from).ok_or_else(|| "`cargo metadata` names no target_directory".into())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.contains([' ', '*', '"', '$']) { format!("'{word}'") } else { word.into_owned() }
    };
    let variables = command
        .get_envs()
        // Where `sbin` is added, which says nothing of the command.
        .filter(|(name, _)| *name != "PATH")
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

pub(crate) fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("`{}` could not be started: {error}", shown(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = cargo(&["test", "--test", "netns_*"]);
        assert_eq!(shown(command.env("CC", "false")), "CC=false cargo test --test 'netns_*'");
    }

    #[test]
    fn a_failing_command_is_named() {
        let message = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(
            message.contains("exit status: 3") && message.contains("sh -c 'exit 3'"),
            "{message}"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_on_the_path() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
    }
}
