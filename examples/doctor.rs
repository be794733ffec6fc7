//! What would keep a director from serving well, and what to type.
//!
//! ```text
//! doctor --config FILE [--json] [--no-trial]
//! doctor --interface IF [--json] [--no-trial]
//! ```
//!
//! With a file all that it names is looked at: the host, the interfaces, the VIPs and the backends; with an interface
//! alone that and the host. It ends with status 1 if anything is an error, else 0; 2 if the file cannot be read. Some
//! drivers reset their link for some seconds when an XDP program is attached, as is tried here but with `--no-trial`.
//! `docs/doctor.md` lists what can be found.

use clap::Parser;
use dsrlb::config::file::ConfigFile;
use dsrlb::doctor::{Checkup, Severity};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Says what would keep a director from serving well, and what to type")]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct Options {
    /// The appliance's configuration, in TOML
    #[arg(long, group = "what")]
    config: Option<PathBuf>,
    /// Instead of a configuration, an interface alone
    #[arg(long, group = "what", value_name = "IF")]
    interface: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do not bind sockets and attach a program to see what the driver grants
    #[arg(long)]
    no_trial: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(Some(Severity::Error)) => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("doctor: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<Option<Severity>, Box<dyn Error>> {
    let checkup = match (&options.config, &options.interface) {
        (Some(file), _) => of_file(file).map_err(|error| format!("{}: {error}", file.display()))?,
        (None, interface) => Checkup::new(interface.as_deref().unwrap_or_default()),
    };
    let diagnosis = checkup.trial(!options.no_trial).run();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        println!("{diagnosis}");
    }
    Ok(diagnosis.worst())
}

fn of_file(file: &Path) -> Result<Checkup, Box<dyn Error>> {
    let parsed = ConfigFile::parse(&std::fs::read_to_string(file)?)?;
    let config = parsed.to_config()?;
    let dataplane = parsed.dataplane.ok_or("[dataplane]: is missing; it names the interface")?;
    let checkup = Checkup::new(dataplane.ingress())
        .xdp(dataplane.xdp_options())
        .limits(dataplane.limits())
        .answer_for_vips(dataplane.answer_for_vips.unwrap_or(false))
        .tunnel_sources(dataplane.tunnel_sources())
        .probe_sources(dataplane.probe_sources());
    Ok(checkup.config(config))
}
