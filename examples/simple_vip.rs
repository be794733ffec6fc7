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
use dsrlb::IpNet;
use dsrlb::balancer::{Echo, Maglev, RealServer, Rendezvous, VipKey, VirtualService};
use dsrlb::dataplane::Polling;
use dsrlb::dataplane::af_xdp::{AttachMode, DeviceStats, XdpOptions};
use dsrlb::director::{BackendStatus, Director, StartError, Stats};
use dsrlb::error::ParseError;
use dsrlb::flow::HashInput;
use dsrlb::health::{IcmpEcho, MonitorBinding, Through};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::error::Error;
use std::net::IpAddr;
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
    /// A real server: its address, and its weight and forwarding mode if they are not 1 and l2:
    /// 10.0.0.12,weight=2 or 10.1.0.12,mode=ipip (or gue:PORT, gue1:PORT, l3dsr:DSCP)
    #[arg(long, requires = "interface")]
    backend: Vec<BackendOption>,
    /// What tunnels send from, one for each family of backends: 10.0.0.1, or 192.0.2.0/24
    #[arg(long, requires = "interface", value_parser = source)]
    tunnel_source: Vec<IpNet>,
    /// Another interface that frames may leave by, if the route to a backend does
    #[arg(long, requires = "interface")]
    egress: Vec<String>,
    /// What becomes of pings to the VIPs: answer, drop, or forward to a backend
    #[arg(long, default_value = "answer", value_parser = ["answer", "drop", "forward"])]
    echo: String,
    #[arg(long, default_value = "maglev", value_parser = ["maglev", "rendezvous"])]
    policy: String,
    /// What of a flow decides: source-ip, destination-ip, 2-tuple, 3-tuple, 5-tuple
    #[arg(long, default_value = "5-tuple")]
    hash: HashInput,
    #[arg(long, default_value = "ping", value_parser = ["ping", "none"])]
    monitor: String,
    /// Which way pings take: vip, to the VIP as a client's packets would, or backend, to its own address
    #[arg(long, default_value = "vip", value_parser = ["vip", "backend"])]
    through: String,
    /// Where the XDP program runs: auto, native, generic
    #[arg(long, default_value = "auto")]
    mode: AttachMode,
    /// What workers do while there is nothing to receive: sleep, busy, spin
    #[arg(long, default_value = "sleep")]
    polling: Polling,
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
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let address = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
        parts
            .try_fold(RealServer::new(address), |server, part| match part.split_once('=') {
                Some(("weight", weight)) => weight
                    .parse()
                    .map(|weight| server.with_weight(weight))
                    .map_err(|_| format!("{weight:?} is not a weight, 0 to 65535")),
                Some(("mode", mode)) => mode
                    .parse()
                    .map(|mode| server.with_forwarding(mode))
                    .map_err(|error: ParseError| error.to_string()),
                _ => Err(format!("{part:?} is neither weight=N nor mode=MODE")),
            })
            .map(Self)
    }
}

/// A prefix, or an address as the prefix of just that.
fn source(text: &str) -> Result<IpNet, String> {
    let address = text.parse().map(|address: IpAddr| IpNet::from(address));
    address.or_else(|_| text.parse()).map_err(|_| format!("{text:?} is no address or prefix"))
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
        .xdp(XdpOptions { attach: options.mode, polling: options.polling, ..XdpOptions::default() })
        .answer_for_vips(options.answer)
        .on_event(|event| eprintln!("{event}"));
    builder = options.tunnel_source.iter().fold(builder, |all, source| all.tunnel_source(*source));
    builder = options.egress.iter().fold(builder, |all, interface| all.egress(interface));
    let echo = match options.echo.as_str() {
        "forward" => Echo::Forward,
        "drop" => Echo::Drop,
        _ => Echo::Answer,
    };
    for vip in &options.vip {
        let service = VirtualService::new(*vip).hash_input(options.hash).echo(echo);
        let service = match options.policy.as_str() {
            "rendezvous" => service.policy(Rendezvous),
            _ => service.policy(Maglev::default()),
        };
        let add =
            |service: VirtualService, backend: &BackendOption| service.backend(backend.0.clone());
        builder = builder.service(options.backend.iter().fold(service, add));
    }
    if options.monitor == "ping" {
        let through = if options.through == "vip" { Through::Vip } else { Through::Backend };
        builder = builder.monitor(MonitorBinding::new(IcmpEcho::new()).through(through));
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
        let device = |device: &DeviceStats| {
            json!({
                "received": device.received, "receive_missed": device.receive_missed,
                "receive_dropped": device.receive_dropped, "receive_errors": device.receive_errors,
                "transmitted": device.transmitted, "transmit_dropped": device.transmit_dropped,
                "transmit_errors": device.transmit_errors,
            })
        };
        let line = json!({
            "received": counts.io.received, "forwarded": counts.forwarded,
            "forwarded_bytes": counts.forwarded_bytes, "answered": answers, "held": counts.held,
            "passed": counts.passed, "dropped": drops, "doubtful_mtus": counts.doubtful_mtus,
            "transmitted": counts.io.transmitted,
            "transmit_rejected": counts.io.transmit_rejected,
            "transmit_failed": counts.io.transmit_failed,
            "receive_ring_full": counts.io.receive_ring_full,
            "receive_no_frame": counts.io.receive_no_frame,
            "receive_dropped": counts.io.receive_dropped,
            "devices": stats.devices.iter().map(device).collect::<Vec<_>>(),
            "backends": stats.backends.iter().map(backend).collect::<Vec<_>>(),
        });
        return println!("{line}");
    }
    println!("{} received, {} forwarded", counts.io.received, counts.forwarded);
    let (io, device) = (&counts.io, stats.devices.first().copied().unwrap_or_default());
    let lost = [
        (io.receive_ring_full, "the receive ring was full"),
        (io.receive_no_frame, "no frame was free"),
        (io.receive_dropped, "larger than a frame, or unknown"),
        (io.transmit_rejected, "no room to send them"),
        (io.transmit_failed, "not sent by the kernel"),
        (device.receive_missed, "missed by the NIC"),
        (device.receive_errors, "received by the NIC in error"),
    ];
    for (count, why) in lost.into_iter().filter(|(count, _)| *count > 0) {
        println!("  lost {count}: {why}");
    }
    for (reason, count) in counts.drops() {
        println!("  dropped {count}: {reason}");
    }
    for backend in &stats.backends {
        let idle = backend.idle.as_ref().map(|why| format!(", idle: {why}")).unwrap_or_default();
        println!("  {} {}: {} packets{idle}", backend.service, backend.id, backend.packets);
    }
}
