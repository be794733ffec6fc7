//! The reference embedder: an appliance that is driven by one file.
//!
//! ```text
//! appliance --config FILE [--check | --preview NEW | --explain FLOW | --capture OUT [--capture-only WHAT]]
//! ```
//!
//! It follows the file (whatever is changed but `[dataplane]` and `[metrics]` is in force a moment later), has a line on standard error
//! for each transition, and ends on SIGTERM or SIGINT, giving the traffic back first. With `--check` it says whether the
//! file is good, and does no more; with `--preview` what another file in its place would do to new flows, and with
//! `--explain` where a flow goes that is not known, and why, both if all backends are well. None of that takes root.
//! Where `[metrics]` says, it serves `/metrics` for Prometheus and `/health`, and takes commands if that is wanted
//! (`docs/metrics.md`); the example `top` shows what is there. `docs/config.schema.json` tells editors of the keys.
//! With `--capture` it writes what comes in, and what became of it, to a file (`docs/capture.md`).

mod capturing;
mod endpoint;

use capturing::{Only, begin, create, only, tell};
use clap::Parser;
use dsrlb::balancer::HashBalancer;
use dsrlb::config::file::{ConfigFile, Dataplane};
use dsrlb::config::{Config, FileSource, Preview};
use dsrlb::dataplane::neighbour::Path as Way;
use dsrlb::dataplane::{
    Explanation, MixedFamilies, Observed, Pipeline, Planner, Site, WorkerCounters,
};
use dsrlb::director::{Capture, Director, DirectorBuilder};
use dsrlb::flow::{FiveTuple, Timestamp};
use dsrlb::packet::MacAddress;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "A layer-4 Direct Server Return load balancer that is driven by a file")]
struct Options {
    /// The configuration, in TOML
    #[arg(long)]
    config: PathBuf,
    /// Say whether it is good, and do no more
    #[arg(long)]
    check: bool,
    /// Say what share of each service's new flows this file would move, and do no more
    #[arg(long, value_name = "NEW", conflicts_with = "check")]
    preview: Option<PathBuf>,
    /// Say where this flow goes and why, as in "192.0.2.1:40000 > 10.0.0.100:80 tcp", and do no more
    #[arg(long, value_name = "FLOW", conflicts_with_all = ["check", "preview"])]
    explain: Option<FiveTuple>,
    /// Write what comes in to this file, in pcapng format, with verdicts as comments: up to 64 MiB, and 1,000 frames
    /// a second
    #[arg(long, value_name = "OUT", conflicts_with_all = ["check", "preview", "explain"])]
    capture: Option<PathBuf>,
    /// Of that only what is dropped ("drops"), or for one reason ("no-service"), or a flow, or what goes to a backend
    /// ("backend=ID"), or one frame in so many of each queue ("one-in=N")
    #[arg(long, value_name = "WHAT", requires = "capture", value_parser = only)]
    capture_only: Option<Only>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("appliance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let source = FileSource::open(&options.config)?;
    let Some(dataplane) = source.dataplane() else {
        return Err("[dataplane]: is missing; it names the interface".into());
    };
    if options.check {
        println!("{}: good", options.config.display());
        return Ok(());
    }
    if let Some(new) = &options.preview {
        let [old, new] = [&options.config, new].map(|file| read(file));
        println!("{}", Preview::between(&old?, &new?, |_, _| true));
        return Ok(());
    }
    if let Some(flow) = options.explain {
        println!("{}", explain(&read(&options.config)?, dataplane, &flow)?);
        return Ok(());
    }
    let metrics = source.metrics().cloned();
    // Before traffic is taken, lest it be taken for nothing.
    if let Some(only) = &options.capture_only {
        only.check(&read(&options.config)?)?;
    }
    let output = options.capture.as_deref().map(create).transpose()?;
    // Before the start, so that none is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let mut director =
        Arc::new(builder(dataplane).source(source).on_event(|event| eprintln!("{event}")).start()?);
    if let Some(metrics) = metrics {
        endpoint::serve(&metrics, &director)?;
        eprintln!("metrics: http://{}/metrics", metrics.listen);
    }
    let begin = |output| begin(&director, output, options.capture_only.clone());
    let mut capture = output.map(begin).transpose()?;
    let tell = |capture: Capture| tell(capture, options.capture.as_deref());
    let granted = director.granted();
    eprintln!("serving: {granted}");
    for remark in granted.fallbacks.iter().chain(&director.warnings()) {
        eprintln!("note: {remark}");
    }
    let mut failure = None;
    while failure.is_none() && signals.pending().next().is_none() {
        std::thread::sleep(Duration::from_millis(50));
        failure = director.failure();
        let ended = capture.take_if(|capture| !capture.is_running());
        ended.into_iter().for_each(tell);
    }
    // Whoever asks for statistics just now has it for a moment.
    let director = loop {
        match Arc::try_unwrap(director) {
            Ok(director) => break director,
            Err(shared) => director = shared,
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let counts = director.shutdown().counts;
    // Its output may have to be waited for; packets are the kernel's already.
    capture.into_iter().for_each(tell);
    eprintln!("ended: {} frames received, {} forwarded", counts.io.received, counts.forwarded);
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn read(file: &Path) -> Result<Config, Box<dyn Error>> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let parsed = ConfigFile::parse(&text).and_then(|parsed| parsed.to_config());
    parsed.map_err(|error| format!("{}: {error}", file.display()).into())
}

/// What would become of a packet of a flow that is not known, where all backends are well and on the link.
fn explain(
    config: &Config,
    dataplane: &Dataplane,
    flow: &FiveTuple,
) -> Result<Explanation, MixedFamilies> {
    let [station, hop] = [1, 2].map(|last| MacAddress([2, 0, 0, 0, 0, last]));
    let site = Site { tunnel_sources: dataplane.tunnel_sources(), ..Site::new(station) };
    let services = config.services.iter().map(|bound| &bound.service);
    let backends = dataplane.limits().backends;
    let plan =
        Planner::new(backends).plan(services, &site, |_, _| Observed::well(Way::on_link(hop)));
    let pipeline = Pipeline::new(HashBalancer, Arc::new(WorkerCounters::new(backends)));
    let explanation = pipeline.explain_flow(&plan.snapshot, Timestamp(0), flow)?;
    Ok(explanation.named(|index| {
        let member = plan.members.iter().find(|member| member.index == index)?;
        Some(member.backend.id().to_owned())
    }))
}

/// What `[dataplane]` says, as a director is told it.
fn builder(dataplane: &Dataplane) -> DirectorBuilder {
    let mut builder = Director::builder(dataplane.ingress())
        .xdp(dataplane.xdp_options())
        .limits(dataplane.limits())
        .answer_for_vips(dataplane.answer_for_vips.unwrap_or(false))
        .record(dataplane.record.unwrap_or_default());
    if let Some(flows) = dataplane.flows_per_queue {
        builder = builder.flows(flows.get() as usize);
    }
    let sources = dataplane.tunnel_sources();
    builder = sources.iter().fold(builder, |builder, source| builder.tunnel_source(source));
    let sources = dataplane.probe_sources();
    let sources = sources.ipv4.map(Into::into).into_iter().chain(sources.ipv6.map(Into::into));
    sources.fold(builder, |builder, source| builder.probe_source(source))
}
