//! Running the system's programs, with errors that say which command failed, why, and what to do.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Runs a program in the namespace of the calling thread and returns what it printed.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    run_with_input(program, arguments, "")
}

/// Runs many `ip` commands in one process: a fork per address would make building a lab slow.
pub fn ip_batch(lines: &[String]) -> io::Result<()> {
    run_with_input("ip", &["-batch", "-"], &lines.join("\n"))
        .map(drop)
        .map_err(|error| name_failed_line(&error, lines))
}

fn run_with_input(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let shown = format!("`{program} {}`", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(program, &shown, &error))?;
    // The programs used here read all of their input before they print much, so writing first cannot deadlock.
    // A program that exits without reading tells why on stderr; that is the better error than a broken pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "{shown} failed ({}): {}",
            output.status,
            complaint.trim()
        )));
    }
    written?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cannot_start(program: &str, shown: &str, error: &io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return io::Error::new(error.kind(), format!("cannot start {shown}: {error}"));
    }
    let package = match program {
        "ip" | "tc" => "iproute2",
        "ping" => "iputils-ping",
        "nft" => "nftables",
        other => other,
    };
    let message = format!(
        "cannot start {shown}: there is no program `{program}`; install the package {package}"
    );
    io::Error::new(io::ErrorKind::NotFound, message)
}

/// `ip` reports a bad line only by its number ("Command failed -:3"); the text of the line is what a reader needs.
fn name_failed_line(error: &io::Error, lines: &[String]) -> io::Error {
    let message = error.to_string();
    let line = message
        .rsplit_once("Command failed -:")
        .and_then(|(_, number)| number.trim().parse::<usize>().ok())
        .and_then(|number| lines.get(number.checked_sub(1)?));
    match line {
        Some(line) => io::Error::new(error.kind(), format!("{message} (that line is `{line}`)")),
        None => io::Error::new(error.kind(), message),
    }
}
