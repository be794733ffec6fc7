//! The dashboard's queries, put to a Prometheus. Not among the tests, since Debian's package of it starts a service.

use crate::{Result, binaries, install, process};

const TEST: &str = "prometheus_answers_each_query_of_the_dashboard";

pub(crate) fn run() -> Result {
    install::ensure_packages()?;
    if !process::on_path("prometheus") {
        return Err("there is no `prometheus` on PATH. Install it, then start this again. Debian's package is called \
                    prometheus, and starts one as a service, which is not needed here"
            .into());
    }
    // The appliance is a process of its own.
    process::run(&mut process::cargo(&["build", "--examples", "--all-features"]))?;
    let arguments = ["test", "--all-features", "--test", "netns_metrics"];
    let binaries = binaries::build(&mut process::cargo(&arguments))?;
    let binary = binaries.first().ok_or("cargo built no test called netns_metrics")?;
    let mut test = process::as_root(&binary.program)?;
    test.args(["--ignored", "--exact", TEST, "--nocapture"]).current_dir(process::root()?);
    let printed = process::output(&mut test)?;
    print!("{printed}");
    match printed.contains("1 passed") {
        true => Ok(()),
        false => Err(format!("there is no test {TEST}: nothing was asked")),
    }
}
