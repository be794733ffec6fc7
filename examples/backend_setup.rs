//! What to type on a backend, from the director's configuration file.
//!
//! ```text
//! backend_setup --config FILE [--backend NAME-OR-ADDRESS] [--system SYSTEM] [--check | --undo]
//! ```
//!
//! Prints a script that makes a host a backend, with the reason for each step; with `--check` one that verifies it, point by
//! point, and changes nothing; with `--undo` one that takes all back. Read it, then run it on the backend:
//!
//! ```text
//! backend_setup --config dsrlb.toml --backend 10.0.0.11 | ssh root@10.0.0.11 sh
//! backend_setup --config dsrlb.toml --backend 10.0.0.11 --check | ssh root@10.0.0.11 sh
//! ```

use clap::Parser;
use dsrlb::config::file::ConfigFile;
use dsrlb::setup_guide::{Circumstances, Guide, System, Unsupported};
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Prints the commands that set up a backend")]
struct Options {
    /// The director's configuration, in TOML
    #[arg(long)]
    config: PathBuf,
    /// The backend's id or address; needed if there are several
    #[arg(long, value_name = "NAME-OR-ADDRESS")]
    backend: Option<String>,
    /// The backend's system: linux, networkd, netplan, windows or freebsd
    #[arg(long, default_value = "linux")]
    system: System,
    /// The MTU of the director's link, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u16,
    /// Print the script that verifies the backend instead
    #[arg(long)]
    check: bool,
    /// Print the script that undoes it all instead
    #[arg(long, conflicts_with = "check")]
    undo: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(script) => {
            print!("{script}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("backend_setup: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, Box<dyn Error>> {
    let path = options.config.display();
    let text =
        std::fs::read_to_string(&options.config).map_err(|error| format!("{path}: {error}"))?;
    let file = ConfigFile::parse(&text).map_err(|error| format!("{path}: {error}"))?;
    let sources = file.dataplane.as_ref().map(|dataplane| dataplane.tunnel_sources());
    let circumstances =
        Circumstances { link_mtu: options.mtu, tunnel_sources: sources.unwrap_or_default() };
    let guides = Guide::for_config(&file.to_config()?, options.system, &circumstances);
    let guide = choose(guides, options.backend.as_deref())??;
    Ok(match (options.check, options.undo) {
        (true, _) => guide.check_script().to_string(),
        (_, true) => guide.undo_script().to_string(),
        _ => guide.to_string(),
    })
}

/// The one that is meant. Several in one script would all be run on one host.
fn choose(
    guides: Vec<Result<Guide, Unsupported>>,
    wanted: Option<&str>,
) -> Result<Result<Guide, Unsupported>, String> {
    let whose = |guide: &Result<Guide, Unsupported>| match guide {
        Ok(guide) => (guide.backend, guide.names.clone()),
        Err(no) => (no.backend, no.names.clone()),
    };
    let address = wanted.and_then(|wanted| wanted.parse::<IpAddr>().ok());
    let is_meant = |guide: &Result<Guide, Unsupported>| {
        let (backend, names) = whose(guide);
        wanted.is_none_or(|wanted| {
            address == Some(backend) || names.iter().any(|name| name == wanted)
        })
    };
    let all: Vec<_> = guides
        .iter()
        .map(whose)
        .map(|(backend, names)| format!("{backend} ({})", names.join(", ")))
        .collect();
    let mut meant = guides.into_iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(format!("choose one by --backend NAME-OR-ADDRESS: {}", all.join(", "))),
    }
}
