//! Guides as scripts, with the reasons as comments.

use super::{Guide, Step, System, linux_checks};
use std::fmt;

/// How long a line of comment is at most, unless a word is longer.
const WIDTH: usize = 110;

/// A script of a guide; its `Display` is the text.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    guide: &'a Guide,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Check,
    Undo,
}

impl<'a> Script<'a> {
    pub(super) fn check(guide: &'a Guide) -> Self {
        Self { guide, kind: Kind::Check }
    }

    pub(super) fn undo(guide: &'a Guide) -> Self {
        Self { guide, kind: Kind::Undo }
    }
}

impl fmt::Display for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Check => check(self.guide, f),
            Kind::Undo => undo(self.guide, f),
        }
    }
}

impl fmt::Display for Guide {
    /// The script that sets the backend up. It ends at the first command that fails, but for programs on Windows, which
    /// PowerShell goes on after.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(self, "Sets up", f)?;
        for note in &self.notes {
            comment(note, f)?;
        }
        f.write_str(if is_windows(self) {
            "$ErrorActionPreference = 'Stop'\n"
        } else {
            "set -eu\n"
        })?;
        self.setup.iter().try_for_each(|step| {
            reason(step, f)?;
            step.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
        })
    }
}

fn is_windows(guide: &Guide) -> bool {
    guide.system == System::Windows
}

fn head(guide: &Guide, what: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !is_windows(guide) {
        f.write_str("#!/bin/sh\n")?;
    }
    // As Rust would write them: a name may have anything in it, but has no line of its own then.
    let names: Vec<_> = guide.names.iter().map(|name| format!("{name:?}")).collect();
    let (system, names) = (guide.system, names.join(", "));
    comment(&format!("{what} backend {} ({names}), {system}. {}.", guide.backend, guide.summary), f)
}

fn reason(step: &Step, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\n")?;
    comment(&step.why, f)
}

/// Goes on after what fails, so that as much as possible is undone.
fn undo(guide: &Guide, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    head(guide, "Undoes what sets up", f)?;
    f.write_str(if is_windows(guide) { "" } else { "status=0\n" })?;
    for step in &guide.undo {
        reason(step, f)?;
        for command in &step.commands {
            f.write_str(command)?;
            f.write_str(if is_windows(guide) { "\n" } else { " || status=1\n" })?;
        }
    }
    f.write_str(if is_windows(guide) { "" } else { "exit $status\n" })
}

fn check(guide: &Guide, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    head(guide, "Checks", f)?;
    comment(
        "A line for each point, `ok` or `FAIL` with the remedy; the status is 1 if any failed.",
        f,
    )?;
    f.write_str(match guide.system {
        System::Windows => POWERSHELL,
        _ => SHELL,
    })?;
    f.write_str(match guide.system {
        System::Linux | System::Networkd | System::Netplan => linux_checks::FUNCTIONS,
        System::Windows | System::FreeBsd => "",
    })?;
    f.write_str("\n")?;
    for check in &guide.checks {
        match guide.system {
            System::Windows => writeln!(
                f,
                "Report ({}) {} {}",
                check.test,
                quoted(&check.what, "''"),
                quoted(&check.remedy, "''")
            ),
            _ => writeln!(
                f,
                "{}\nreport $? {} {}",
                check.test,
                quoted(&check.what, "'\\''"),
                quoted(&check.remedy, "'\\''")
            ),
        }?;
    }
    f.write_str("exit $failed\n")
}

const SHELL: &str = r#"failed=0 found=
report() { # STATUS WHAT REMEDY
	if [ "$1" = 0 ]; then
		echo "ok   $2${found:+ ($found)}"
	else
		echo "FAIL $2${found:+ ($found)}: $3"
		failed=1
	fi
	found=
}
"#;

const POWERSHELL: &str = r#"$failed = 0
function Report($passed, $what, $remedy) {
    if ($passed) { "ok   $what" } else { "FAIL ${what}: $remedy"; $script:failed = 1 }
}
"#;

/// In single quotes; `quote` is how the shell has one within them.
fn quoted(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

/// Lines of comment, broken between words.
fn comment(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut length = usize::MAX;
    for word in text.split_whitespace() {
        let with_word = length.saturating_add(1 + word.chars().count());
        if with_word <= WIDTH {
            write!(f, " {word}")?;
            length = with_word;
        } else {
            f.write_str(if length == usize::MAX { "# " } else { "\n# " })?;
            f.write_str(word)?;
            length = 2 + word.chars().count();
        }
    }
    f.write_str("\n")
}
