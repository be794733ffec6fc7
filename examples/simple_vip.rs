//! A layer-4 Direct Server Return load balancer in one file.
//!
//! Without arguments, as root, it builds a network of its own and shows Direct Server Return at
//! work in it, with real servers and clients. With arguments it balances on a real interface:
//!
//! ```text
//! simple_vip --interface eth0 --vip 10.0.0.100:80/tcp --backend 10.0.0.11 --backend 10.0.0.12,weight=2
//! ```

#[path = "lab/mod.rs"]
mod lab;
#[path = "lab/story.rs"]
mod story;

use clap::Parser;
use dsrlb::balancer::{Maglev, RealServer, Rendezvous, VipKey, VirtualService};
use dsrlb::dataplane::af_xdp::{AttachMode, XdpOptions};
use dsrlb::director::{BackendStatus, Director, StartError, Stats};
use dsrlb::flow::HashInput;
use dsrlb::health::{HealthPolicy, IcmpEcho};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

#[derive(Parser, Debug)]
#[command(
    about = "A layer-4 Direct Server Return load balancer; without arguments, a demonstration"
)]
struct Options {
    /// The interface that clients' packets come in by, and that backends are reached by
    #[arg(long, requires = "vip", requires = "backend")]
    interface: Option<String>,
    /// What to balance: 10.0.0.100:80/tcp, [2001:db8::1]:53/udp, 10.0.0.100:any/udp, 10.0.0.100
    #[arg(long, requires = "interface")]
    vip: Vec<VipKey>,
    /// A real server: its address, and its weight if that is not 1: 10.0.0.12,weight=2
    #[arg(long, requires = "interface")]
    backend: Vec<BackendOption>,
    #[arg(long, default_value = "maglev", value_parser = ["maglev", "rendezvous"])]
    policy: String,
    /// What of a flow decides: source-ip, destination-ip, 2-tuple, 3-tuple, 5-tuple
    #[arg(long, default_value = "5-tuple")]
    hash: HashInput,
    #[arg(long, default_value = "ping", value_parser = ["ping", "none"])]
    monitor: String,
    /// Where the XDP program runs: auto, native, generic
    #[arg(long, default_value = "auto")]
    mode: AttachMode,
    /// Answer ARP and neighbour discovery for the VIPs, if no interface of this host holds them
    #[arg(long)]
    answer: bool,
    /// Show counters every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stats: Option<u64>,
    /// Show them as one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
struct BackendOption(RealServer);

impl FromStr for BackendOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, weight) = text.split_once(",weight=").unwrap_or((text, "1"));
        let address = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
        let weight =
            weight.parse().map_err(|_| format!("{weight:?} is not a weight, 0 to 65535"))?;
        Ok(Self(RealServer::new(address).with_weight(weight)))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simple_vip: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(interface) = options.interface.clone() else {
        return story::tell();
    };
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let director = start(&options, &interface)?;
    let every = options.stats.or(options.json.then_some(1)).map(Duration::from_secs);
    let mut shown = Instant::now();
    while signals.pending().next().is_none() {
        std::thread::sleep(Duration::from_millis(50));
        if every.is_some_and(|every| shown.elapsed() >= every) {
            shown = Instant::now();
            show(&director.stats(), options.json);
        }
        if let Some(failure) = director.failure() {
            return Err(failure.into());
        }
    }
    show(&director.shutdown(), options.json);
    Ok(())
}

/// The part to copy: services, backends, a monitor, and off it goes.
fn start(options: &Options, interface: &str) -> Result<Director, StartError> {
    let mut builder = Director::builder(interface)
        .xdp(XdpOptions { attach: options.mode, ..XdpOptions::default() })
        .answer_for_vips(options.answer)
        .on_event(|event| eprintln!("{event}"));
    for vip in &options.vip {
        let service = VirtualService::new(*vip).hash_input(options.hash);
        let service = match options.policy.as_str() {
            "rendezvous" => service.policy(Rendezvous),
            _ => service.policy(Maglev::default()),
        };
        let add =
            |service: VirtualService, backend: &BackendOption| service.backend(backend.0.clone());
        builder = builder.service(options.backend.iter().fold(service, add));
    }
    if options.monitor == "ping" {
        builder = builder.monitor(IcmpEcho::new(), HealthPolicy::default());
    }
    let director = builder.start()?;
    let granted = director.granted();
    eprintln!("{interface}: {granted}");
    for remark in granted.fallbacks.iter().chain(&director.warnings()) {
        eprintln!("note: {remark}");
    }
    Ok(director)
}

fn show(stats: &Stats, as_json: bool) {
    let counts = &stats.counts;
    if as_json {
        let drops: serde_json::Map<_, _> =
            counts.drops().map(|(reason, count)| (reason.to_string(), json!(count))).collect();
        let answers: serde_json::Map<_, _> = counts
            .answers()
            .map(|(kind, count)| (kind.as_str().to_owned(), json!(count)))
            .collect();
        let backend = |backend: &BackendStatus| {
            json!({
                "service": backend.service.to_string(), "id": backend.id, "weight": backend.weight,
                "packets": backend.packets, "bytes": backend.bytes,
                "idle": backend.idle.as_ref().map(ToString::to_string),
            })
        };
        let line = json!({
            "received": counts.io.received, "forwarded": counts.forwarded,
            "forwarded_bytes": counts.forwarded_bytes, "answered": answers, "held": counts.held,
            "passed": counts.passed, "dropped": drops, "transmitted": counts.io.transmitted,
            "transmit_rejected": counts.io.transmit_rejected,
            "transmit_failed": counts.io.transmit_failed,
            "receive_ring_full": counts.io.receive_ring_full,
            "receive_no_frame": counts.io.receive_no_frame,
            "receive_dropped": counts.io.receive_dropped,
            "backends": stats.backends.iter().map(backend).collect::<Vec<_>>(),
        });
        return println!("{line}");
    }
    println!("{} received, {} forwarded", counts.io.received, counts.forwarded);
    for (reason, count) in counts.drops() {
        println!("  dropped {count}: {reason}");
    }
    for backend in &stats.backends {
        let idle = backend.idle.as_ref().map(|why| format!(", idle: {why}")).unwrap_or_default();
        println!("  {} {}: {} packets{idle}", backend.service, backend.id, backend.packets);
    }
}
