//! Installs what is missing of the system packages.

use crate::packages::{Need, Package, Sign, missing};
use crate::{Result, process};
use std::process::Command;

/// A package manager, and the words that make it install.
pub(crate) struct Manager {
    program: &'static str,
    install: &'static [&'static str],
}

/// Only the first is ever run: it is the only one this was tried with. For the others the command is printed.
pub(crate) const MANAGERS: [Manager; 3] = [
    Manager {
        program: "apt-get",
        // Through `env`, because sudo clears the environment; without it, packages stop to ask questions.
        install: &[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "--no-install-recommends",
        ],
    },
    Manager { program: "dnf", install: &["dnf", "install", "-y"] },
    Manager { program: "pacman", install: &["pacman", "-S", "--needed", "--noconfirm"] },
];
const APT: usize = 0;

/// Sees to it that what the demonstration needs is there.
pub(crate) fn ensure_demo() -> Result {
    ensure(&missing(Need::Demo..=Need::Demo, Sign::present), true)
}

/// Sees to it that what builds, measures and tests need is there.
pub(crate) fn ensure_packages() -> Result {
    ensure(&missing(Need::Demo..=Need::Tests, Sign::present), true)
}

/// The same, and what only some tests need, as far as it can be had.
pub(crate) fn ensure_all() -> Result {
    ensure_packages()?;
    let more = missing(Need::SomeTests..=Need::SomeTests, Sign::present);
    // By themselves, as one that the distribution does not have would keep all others away.
    for (number, package) in more.into_iter().enumerate() {
        if let Err(error) = ensure(&[package], number == 0) {
            println!("Going on without {}: tests that need it say so. {error}", package.names[APT]);
        }
    }
    Ok(())
}

/// Says which of these are missing and why each is needed, and installs them; `lists` has the lists of packages fetched
/// before.
fn ensure(wanted: &[&'static Package], lists: bool) -> Result {
    if wanted.is_empty() {
        return Ok(());
    }
    println!("System packages that are missing:");
    for package in wanted {
        println!("  {:<16} {}", package.names[APT], package.why);
    }
    match MANAGERS.iter().position(|manager| process::on_path(manager.program)) {
        Some(APT) => install(&install_command(APT, wanted), lists)?,
        Some(manager) => {
            let command = install_command(manager, wanted).join(" ");
            return Err(format!("install them, then start this again:\n    {command}"));
        }
        None => {
            let names = names(APT, wanted).join(" ");
            return Err(format!(
                "no apt-get, dnf or pacman here: install what Debian calls {names}, then start this again"
            ));
        }
    }
    match wanted.iter().find(|package| !package.sign.present()) {
        None => Ok(()),
        Some(package) => {
            Err(format!("{} is installed, but {}", package.names[APT], package.unfound()))
        }
    }
}

fn install(command: &[&str], lists: bool) -> Result {
    let sudo: &[&str] = match (process::is_root(), process::on_path("sudo")) {
        (true, _) => &[],
        (false, true) => &["sudo"],
        (false, false) => {
            return Err(format!(
                "installing needs root and there is no sudo. As root, run this, then start this again:\n    \
                 apt-get update && {}",
                command.join(" ")
            ));
        }
    };
    let run = |words: &[&str]| {
        let words = [sudo, words].concat();
        process::run(Command::new(words[0]).args(&words[1..]))
    };
    // One unreachable source among many makes `update` fail though all we need is there, so only the install decides.
    if lists && let Err(error) = run(&["apt-get", "update"]) {
        println!("Going on with the package lists as they are: {error}");
    }
    run(command)
}

/// What `manager` calls the missing packages, each once.
fn names(manager: usize, missing: &[&Package]) -> Vec<&'static str> {
    let mut names: Vec<_> = missing.iter().map(|package| package.names[manager]).collect();
    names.dedup();
    names
}

fn install_command(manager: usize, missing: &[&Package]) -> Vec<&'static str> {
    [MANAGERS[manager].install.to_vec(), names(manager, missing)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sign::{Library, Program};
    use std::ops::RangeInclusive;

    const ALL: RangeInclusive<Need> = Need::Demo..=Need::SomeTests;

    #[test]
    fn the_demonstration_asks_for_nothing_that_is_for_tests() {
        let of = |needs| names(APT, &missing(needs, |_| false));
        let demo = of(Need::Demo..=Need::Demo);
        assert!(demo.contains(&"clang") && demo.contains(&"iproute2"), "{demo:?}");
        assert!(!demo.contains(&"tshark") && !demo.contains(&"netplan.io"), "{demo:?}");
        // What Ubuntu has under another name, or only by snap, stops nobody.
        assert!(!of(Need::Demo..=Need::Tests).contains(&"bpftool"));
    }

    #[test]
    fn nothing_is_installed_where_nothing_is_missing() {
        assert!(missing(ALL, |_| true).is_empty());
    }

    #[test]
    fn a_package_that_gives_two_programs_is_named_once() {
        let missing = missing(ALL, |sign| !matches!(sign, Program("cc" | "make" | "m4")));
        assert_eq!(names(APT, &missing), ["build-essential", "m4"]);
        assert_eq!(names(1, &missing), ["gcc", "make", "m4"]);
    }

    #[test]
    fn the_command_can_be_typed_as_it_is_printed() {
        let missing = missing(ALL, |sign| !matches!(sign, Library("libelf")));
        assert_eq!(
            install_command(APT, &missing).join(" "),
            "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libelf-dev"
        );
        assert_eq!(install_command(2, &missing).join(" "), "pacman -S --needed --noconfirm libelf");
    }
}
