//! What a configuration would do with the frames of a capture: offline, by the code that does it in earnest.
//!
//! ```text
//! replay IN CONFIG.toml [--each] [--compare] [--output OUT.pcapng]
//! ```
//!
//! The capture is a pcap or a pcapng file. Its frames go through one pipeline in the order and at the times of the capture.
//! Of what a director learns from its host nothing is known, so backends are taken to be well and on the link, at made-up MAC
//! addresses, and the director to have the address that most frames for VIPs were sent to; both are said. Prints how many
//! frames had each verdict; with `--each` also a line for each frame. With `--compare`, of a capture that a director wrote,
//! which frames would have another verdict than they had; the status is then 1 if there are such. It is 2 if anything failed.
//! The output has the frames as they left, or as they came if they did not, with their verdicts as comments.
//! `docs/capture.md` has more.

mod comparison;
mod world;

use clap::Parser;
use comparison::Comparison;
use dsrlb::balancer::FlowBalancer;
use dsrlb::config::file::ConfigFile;
use dsrlb::dataplane::{
    Action, Bounds, CapturedFrame, Chosen, Frame, HEADROOM, Pipeline, Plan, Port, Sample, Tap,
    WorkerCounters,
};
use dsrlb::flow::{FiveTuple, HashKey, Timestamp};
use dsrlb::packet::MacAddress;
use dsrlb::verdict::{BackendIndex, DropReason, Verdict};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use world::{flow_of, max_backends, open, plan, station};

type Fallible<T> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "Sends the frames of a capture through a configuration, and tells each verdict")]
struct Options {
    /// The capture, in pcap or pcapng format, of what came in by the director's interface
    input: PathBuf,
    /// The director's configuration, in TOML
    config: PathBuf,
    /// Print a line for each frame
    #[arg(long)]
    each: bool,
    /// Print which frames have another verdict than their comment says, as a director's capture has them, and how many
    #[arg(long)]
    compare: bool,
    /// The director's MAC address; unless told, the one that most frames for VIPs are addressed to
    #[arg(long, value_name = "MAC")]
    station: Option<MacAddress>,
    /// The MTU of the director's link and of the ways to the backends, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u32,
    /// Write the frames to this file, in pcapng format, each with its verdict as its comment
    #[arg(long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Write only those that are dropped for this reason, such as "no-service"
    #[arg(long, value_name = "REASON", requires = "output", group = "chosen", value_parser = reason)]
    drops: Option<DropReason>,
    /// Write only those of this flow, as in "192.0.2.1:40000 > 10.0.0.100:80 tcp"
    #[arg(long, value_name = "FLOW", requires = "output", group = "chosen")]
    flow: Option<FiveTuple>,
    /// Write only those that go to the backend of this id
    #[arg(long, value_name = "ID", requires = "output", group = "chosen")]
    backend: Option<String>,
    /// Write only the first of every N
    #[arg(long, value_name = "N", requires = "output", group = "chosen")]
    one_in: Option<NonZeroU32>,
    /// Write no more than so many bytes
    #[arg(long, value_name = "N", requires = "output", default_value_t = u64::MAX, hide_default_value = true)]
    max_bytes: u64,
}

fn reason(name: &str) -> Result<DropReason, String> {
    DropReason::from_name(name).ok_or_else(|| {
        let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    match run(&Options::parse(), &mut BufWriter::new(io::stdout().lock())) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns how many frames had another verdict, if that was asked for.
fn run(options: &Options, out: &mut impl Write) -> Fallible<u64> {
    let named = |error: &dyn Error| format!("{}: {error}", options.config.display());
    let text = std::fs::read_to_string(&options.config).map_err(|error| named(&error))?;
    let file = ConfigFile::parse(&text).map_err(|error| named(&error))?;
    let station = station(options, &file, out)?;
    let plan = plan(&file, station, options.mtu);
    writeln!(out, "backends: taken to be well and on the link, at made-up MAC addresses:")?;
    let hops = plan.members.iter().map(|member| {
        let hop = plan.snapshot.next_hop(member.index);
        let idle = member.idle.as_ref();
        let why = idle.map(|idle| format!("; takes no new flows: {idle}")).unwrap_or_default();
        let mac = hop.map_or("none".to_owned(), |hop| hop.destination.to_string());
        (member, format!("{mac}{why}"))
    });
    for (member, hop) in hops {
        let (id, address) = (member.backend.id(), member.backend.address());
        writeln!(out, "  {}  {id} ({address})  {hop}", member.service)?;
    }
    let tap = options.output.as_deref().map(|path| tap(options, &plan, path)).transpose()?;
    let mut replay = Replay::new(plan, &file, tap)?;
    replay.comparison = options.compare.then(Comparison::default);
    replay.run(options, out)
}

fn tap(options: &Options, plan: &Plan, path: &Path) -> Fallible<Tap<BufWriter<File>>> {
    let chosen = match options {
        Options { drops: Some(reason), .. } => Chosen::Drops(*reason),
        Options { flow: Some(flow), .. } => Chosen::Flow(*flow),
        Options { one_in: Some(count), .. } => Chosen::OneIn(*count),
        Options { backend: Some(id), .. } => {
            let of_id = plan.members.iter().filter(|member| member.backend.id() == id);
            let indices: Vec<_> = of_id.map(|member| member.index).collect();
            if indices.is_empty() {
                return Err(format!("--backend {id}: no service has a backend of that id").into());
            }
            Chosen::Backend(indices)
        }
        _ => Chosen::All,
    };
    let named = |error: io::Error| format!("{}: {error}", path.display());
    if path.exists() && path.canonicalize()? == options.input.canonicalize()? {
        return Err(format!("{}: is the input", path.display()).into());
    }
    let output = BufWriter::new(File::create(path).map_err(named)?);
    let bounds = Bounds { bytes: options.max_bytes, ..Bounds::NONE };
    let mut tap = Tap::new(output, chosen, bounds).map_err(named)?;
    tap.name_backends(names(plan));
    Ok(tap)
}

fn names(plan: &Plan) -> BTreeMap<BackendIndex, String> {
    plan.members.iter().map(|member| (member.index, member.backend.id().to_owned())).collect()
}

/// What is under way.
struct Replay {
    plan: Plan,
    pipeline: Pipeline<FlowBalancer>,
    tap: Option<Tap<BufWriter<File>>>,
    names: BTreeMap<BackendIndex, String>,
    /// Frames by verdict, and what is to be said of that.
    tally: BTreeMap<(String, &'static str), u64>,
    sent: u64,
    /// If that is asked for.
    comparison: Option<Comparison>,
}

impl Replay {
    fn new(plan: Plan, file: &ConfigFile, tap: Option<Tap<BufWriter<File>>>) -> Fallible<Self> {
        let backends = max_backends(file);
        let dataplane = file.dataplane.as_ref();
        let flows = dataplane.and_then(|of| of.flows_per_queue);
        let flows = flows.map_or(1 << 18, |flows| flows.get() as usize);
        let record = dataplane.and_then(|of| of.record).unwrap_or_default();
        // No secret, so that each replay is like the last.
        let balancer = FlowBalancer::new(flows, backends, HashKey::default())?.record(record);
        let pipeline = Pipeline::new(balancer, Arc::new(WorkerCounters::new(backends)));
        let (names, tally) = (names(&plan), BTreeMap::new());
        Ok(Self { plan, pipeline, tap, names, tally, sent: 0, comparison: None })
    }

    fn run(mut self, options: &Options, out: &mut impl Write) -> Fallible<u64> {
        let (mut first, mut now) = (None, Duration::ZERO);
        let (mut count, mut cut) = (0_u64, 0_u64);
        let mut failure = None;
        for frame in open(&options.input)? {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    failure =
                        Some(format!("{}: frame {}: {error}", options.input.display(), count + 1));
                    break;
                }
            };
            count += 1;
            cut += u64::from(frame.is_cut_off());
            // For the pipeline time never goes back, while several queues in one file are not quite in order.
            now = now.max(frame.time.saturating_sub(*first.get_or_insert(frame.time)));
            let flow = flow_of(&frame.bytes);
            let verdict = self.frame(&frame, now, flow)?;
            let name = |index| self.names.get(&index).cloned().unwrap_or_default();
            let words = verdict.in_words(name);
            let was = self.comparison.as_mut().and_then(|all| all.note(&frame, &words));
            if options.each || was.is_some() {
                let flow = flow.map_or("-".to_owned(), |flow| flow.to_string());
                let (seconds, full) = (now.as_secs_f64(), verdict.in_full(name));
                let what = was.map_or(full, |was| format!("{was} => {words}"));
                writeln!(out, "{count:>6} {seconds:>12.6}  {flow:<44} {what}")?;
            }
            let meaning = match verdict {
                Verdict::Drop(reason) => reason.meaning(),
                _ => "",
            };
            *self.tally.entry((words, meaning)).or_default() += 1;
        }
        let comparison = self.comparison.take();
        self.finish(count, cut, options.mtu, comparison.as_ref(), out)?;
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        match comparison {
            Some(comparison) if comparison.is_empty() => Err(format!(
                "{}: has no frame that can be compared: one that is whole and has a verdict, as a director's capture does",
                options.input.display()
            )
            .into()),
            comparison => Ok(comparison.map_or(0, |comparison| comparison.differ())),
        }
    }

    fn frame(
        &mut self,
        captured: &CapturedFrame,
        now: Duration,
        flow: Option<FiveTuple>,
    ) -> Fallible<Verdict> {
        let Self { plan, pipeline, tap, sent, .. } = self;
        let time = captured.time;
        let mut memory = [&[0; HEADROOM], &*captured.bytes].concat();
        let end = memory.len();
        let mut frame = Frame::in_memory(&mut memory, HEADROOM..end);
        let now = Timestamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let verdict = pipeline.process_one(&plan.snapshot, now, &mut frame);
        let is_sent = frame.action() != Action::Release;
        *sent += u64::from(is_sent);
        let mut offer = |bytes: &[u8]| match tap {
            Some(tap) => tap.offer(&Sample::new(time, bytes, verdict).of_flow(flow)).map(drop),
            None => Ok(()),
        };
        // What is sent in pieces, or answered by another frame, is not sent itself.
        if is_sent || !matches!(verdict, Verdict::Forward(_) | Verdict::Answer(_)) {
            offer(frame.bytes())?;
        }
        pipeline.drain(|port, bytes| {
            if port == Port::PROBER {
                return Ok(()); // a copy of the frame
            }
            *sent += 1;
            offer(bytes)
        })?;
        Ok(verdict)
    }

    fn finish(
        self,
        count: u64,
        cut: u64,
        mtu: u32,
        comparison: Option<&Comparison>,
        out: &mut impl Write,
    ) -> Fallible<()> {
        let widths = self.tally.keys().map(|(words, _)| words.chars().count());
        let width = widths.max().unwrap_or_default().max("verdict".len());
        writeln!(out, "\n{:width$}  frames", "verdict")?;
        for ((words, meaning), frames) in &self.tally {
            let line = format!("{words:width$}  {frames:>6}  {meaning}");
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(out, "{:width$}  {count:>6}", "all")?;
        writeln!(out, "{} frames sent, on links with an MTU of {mtu}", self.sent)?;
        if cut > 0 {
            writeln!(
                out,
                "note: {cut} frames were cut off when they were captured, and are judged as what is left of them; \
                 capture with `tcpdump -s 0`"
            )?;
        }
        if let Some(tap) = self.tap {
            let counts = tap.counts();
            writeln!(out, "output: {} frames, {} bytes", counts.written, counts.bytes)?;
            if counts.ended > 0 {
                writeln!(out, "note: {} frames more did not fit --max-bytes", counts.ended)?;
            }
            tap.into_output().into_inner().map_err(|error| error.into_error())?.sync_all()?;
        }
        if let Some(comparison) = comparison {
            comparison.tell(out)?;
        }
        Ok(out.flush()?)
    }
}
