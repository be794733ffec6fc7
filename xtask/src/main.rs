//! The project's own commands. Standard library only: this has to build before anything else is installed, since it
//! is what installs the rest.

mod asan;
mod bench;
mod binaries;
mod dashboard;
mod disk;
mod fuzz;
mod install;
mod instructions;
mod json;
mod machine;
mod namespaces;
mod newcomer;
mod package;
mod packages;
mod process;
mod scratch;
mod test;
mod vm;

use std::process::ExitCode;

/// What went wrong, in words that say what to do next.
type Result<T = ()> = std::result::Result<T, String>;

const HELP: &str = "\
cargo xtask demo [-- ARGS]             install what is missing, build the simple_vip example and run it as root
cargo xtask test [--quick]             every check; --quick: only those that need neither root nor system packages
cargo xtask fuzz [SECONDS] [TARGET]    run each fuzz target, or one, for SECONDS (120)
cargo xtask asan                       the AF_XDP namespace tests under AddressSanitizer
cargo xtask package [--allow-dirty]    pack the crate, then build and run the README's program against what was packed
cargo xtask bench [-- quick]           the pipeline in memory, the director beside other forwarders on the wire; writes
                                       docs/benchmarks.md (quick: smallest frames, minutes, bench/quick.md where cargo builds)
cargo xtask instructions               count the instructions a packet takes, and write them to benches/instructions.txt
cargo xtask newcomer                   the way from a clone to the first served request, timed and counted
cargo xtask dashboard                  each query of docs/grafana.json, put to a Prometheus that scrapes an appliance under load
cargo xtask vm-test [NAME]             real tunnels, zero-copy, NICs and IPVS in a virtual machine with a Debian kernel
cargo xtask help                       this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[&str]) -> Result {
    match args {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["demo", "--", rest @ ..] | ["demo", rest @ ..] => demo(rest),
        ["test"] => test::all(),
        ["test", "--quick"] => test::quick(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["asan"] => asan::run(),
        ["package"] => package::run(&[]),
        ["package", "--allow-dirty"] => package::run(&["--allow-dirty"]),
        ["instructions"] => instructions::record(),
        ["newcomer"] => newcomer::run(),
        ["dashboard"] => dashboard::run(),
        ["vm-test"] => vm::run(None),
        ["vm-test", name] => vm::run(Some(name)),
        ["bench"] => bench::run(bench::Extent::Full),
        ["bench", "--", "quick"] | ["bench", "quick"] => bench::run(bench::Extent::Quick),
        _ => Err(format!("`{}` is not a command. These are:\n{HELP}", args.join(" "))),
    }
}

/// Builds the demo as the user and runs it as root. Replaces this process, so that the demo itself receives Ctrl-C and
/// its exit status is ours.
fn demo(args: &[&str]) -> Result {
    install::ensure_demo()?;
    process::run(&mut process::cargo(&["build", "--release", "--example", "simple_vip"]))?;
    let example = process::target_dir()?.join("release/examples/simple_vip");
    let mut command = process::as_root(&example)?;
    process::replace(command.args(args))
}

#[cfg(test)]
mod tests {
    use super::dispatch;

    #[test]
    fn an_unknown_command_is_named_and_the_known_ones_listed() {
        let message = dispatch(&["tests", "--fast"]).unwrap_err();
        assert!(
            message.contains("`tests --fast`") && message.contains("cargo xtask test"),
            "{message}"
        );
    }
}
