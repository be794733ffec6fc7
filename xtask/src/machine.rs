//! What was measured on, and with.

use crate::{Result, process};
use std::fmt;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// The machine, as it is when a run begins.
#[derive(Debug)]
pub(crate) struct Machine {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    kernel: String,
    load: String,
    /// Programs and their versions.
    versions: Vec<String>,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
        };
        // A user's PATH often lacks the directories that programs of the administrator are in.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let line = |program: &str, arguments: &[&str]| -> Result<String> {
            let mut command = Command::new(program);
            let text = process::output(command.args(arguments).env("PATH", &path))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let cores = available_parallelism().map_err(|error| error.to_string())?;
        Ok(Self {
            date: line("date", &["-u", "+%F"])?,
            commit: line("git", &["describe", "--always", "--dirty"])?,
            processor: processor(&read("/proc/cpuinfo")?),
            cores: cores.get(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
            versions: vec![
                line("rustc", &["--version"])?,
                line("clang", &["--version"])?,
                // Only where something is compared with it.
                line("nft", &["--version"]).unwrap_or_else(|_| "no nftables".into()),
            ],
        })
    }

    /// All of it that matters where nothing is compared, in one line.
    pub(crate) fn line(&self) -> String {
        let Self { date, commit, processor, cores, kernel, .. } = self;
        format!("{date}, commit {commit}, {processor}, {cores} cores, Linux {kernel}")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, commit, processor, cores, kernel, load, versions } = self;
        writeln!(f, "| what | |\n| --- | --- |")?;
        writeln!(f, "| date, commit | {date}, {commit} |")?;
        writeln!(f, "| processor | {processor}, {cores} cores |")?;
        writeln!(
            f,
            "| kernel | Linux {kernel}; nftables' `fwd`, AF_PACKET and AF_XDP are its own |"
        )?;
        writeln!(f, "| load average before | {load} |")?;
        writeln!(f, "| programs | {} |", versions.join("; "))
    }
}

/// What `/proc/cpuinfo` calls the first processor: its name, and the numbers that tell models of one name apart.
fn processor(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        values.next().map(str::to_owned)
    };
    let Some(model) = field("model name") else { return "unknown".into() };
    match (field("cpu family"), field("model")) {
        (Some(family), Some(number)) => format!("{model} (family {family}, model {number})"),
        _ => model,
    }
}

#[cfg(test)]
mod tests {
    use super::processor;

    #[test]
    fn a_processor_is_named_with_its_numbers() {
        let one = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\n";
        let other = one.replace("\t: 0", "\t: 1").replace("EPYC", "Other");
        assert_eq!(processor(&(one.to_owned() + &other)), "AMD EPYC (family 25, model 1)");
        assert_eq!(processor("BogoMIPS : 50\nFeatures : fp\n"), "unknown");
    }
}
