//! One measurement: a contender is started, gets frames, and what arrives is counted.

use crate::contender::{Kind, Place, Running};
use crate::figures::Spread;
use crate::network::{self, Network};
use crate::plan::{BACKENDS, CLIENT, FIRST_BACKEND, Frames, Pace};
use crate::schedule::Schedule;
use crate::traffic::{Delays, Seen, Traffic, WINDOW, WINDOWS};
use std::cell::RefCell;
use std::error::Error;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A machine on which waits take no more than this is quiet.
const QUIET: f64 = 0.02;

/// What forwards less than so many frames a second is not measured with many flows.
const SLOW: f64 = 200e3;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub rounds: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    pub sizes: &'static [usize],
}

impl Times {
    pub fn full() -> Self {
        Self {
            rounds: 7,
            warm_up: Duration::from_millis(400),
            measured: Duration::from_millis(1000),
            sizes: &[64, 512, 1514],
        }
    }

    pub fn quick() -> Self {
        Self {
            rounds: 5,
            warm_up: Duration::from_millis(200),
            measured: Duration::from_millis(500),
            sizes: &[64],
        }
    }
}

/// Who forwards what, and where.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    pub kind: Kind,
    pub place: Place,
    pub frames: Frames,
    pub pace: Pace,
}

/// What came of it, by the second.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Handed to the wire.
    pub offered: f64,
    /// Arrived as they should.
    pub forwarded: f64,
    /// Of those, back at the client.
    pub returned: f64,
    /// Of one CPU, by the contender's process.
    pub cpu: f64,
    /// How long frames were under way in each eighth of a second, by its number, if they were stamped.
    pub delays: Vec<(u64, Delays)>,
}

/// The network and the generator; both stay for all measurements.
pub struct Bench {
    pub times: Times,
    network: Network,
    traffic: Traffic,
    cpus: [usize; 2],
    /// For how much of each measurement the process, or what sends to it, was ready and another had its CPU.
    disturbed: RefCell<Vec<f64>>,
}

impl Bench {
    pub fn new(times: Times) -> Result<Self, Box<dyn Error>> {
        let cpus = network::cpus();
        let cpus = cpus.try_into().map_err(|_| "this takes two CPUs")?;
        let network = Network::build()?;
        let traffic = Traffic::load(&network.client, &network.client_end)?;
        Ok(Self { times, network, traffic, cpus, disturbed: RefCell::default() })
    }

    /// How much others used the machine, in words.
    pub fn disturbance(&self) -> String {
        let Some(all) = Spread::of(self.disturbed.borrow().iter().copied()) else {
            return String::new();
        };
        let verdict = if all.median > QUIET {
            "**Others used the machine: these figures are provisional.**"
        } else {
            "The machine was quiet."
        };
        format!(
            "{verdict} The forwarder's process or the generator was ready, and another had its CPU, for {} % of a \
             measurement: the median of all (least to most).\n",
            all.text(0.01, 1)
        )
    }

    /// Measures once; frames that arrive as they should not are an error, whatever else came of it.
    pub fn measure(&self, case: &Case) -> Result<Sample, Box<dyn Error>> {
        let [near, far] = self.cpus;
        let outer = case.kind.outer();
        // Half of the table is what a balancer can rely upon.
        let entries = (2 * case.frames.flows as usize).max(1 << 18);
        let running = Running::start(&self.network, case.kind, case.place, far, entries)?;
        let before = self.traffic.seen()?;
        // Not while frames are under way: it takes a core's time.
        let delays = if case.pace.stamped { self.traffic.delays()? } else { Vec::new() };
        let idle = case.pace.rate == Some(0.0);
        let sender = if idle {
            None
        } else {
            let client = &self.network.client;
            Some(self.traffic.start(client, near, case.frames, case.pace, outer)?)
        };
        // Until each flow has come several times, at the least that any contender forwards.
        let known = Duration::from_secs_f64(3.0 * case.frames.flows as f64 / SLOW);
        sleep(self.times.warm_up.max(known));
        let schedules = || -> Result<[Schedule; 2], Box<dyn Error>> {
            let generator = sender.as_ref().map(|sender| sender.schedule()).transpose()?;
            Ok([running.schedule()?, generator.unwrap_or_default()])
        };
        let from = Traffic::now()?;
        let (first, before_it, start) = (self.traffic.seen()?, schedules()?, Instant::now());
        sleep(self.times.measured);
        let (last, after, seconds) =
            (self.traffic.seen()?, schedules()?, start.elapsed().as_secs_f64());
        let to = Traffic::now()?;
        let (own, generator) = (after[0] - before_it[0], after[1] - before_it[1]);
        // On one core the process waits for the kernel's thread, which is no disturbance.
        let waits = if case.place == Place::Apart { own.waited } else { Duration::ZERO };
        // Several threads may wait at once.
        let disturbed = (waits.max(generator.waited).as_secs_f64() / seconds).min(1.0);
        self.disturbed.borrow_mut().push(disturbed);
        if let Some(sender) = sender {
            sender.stop()?;
            self.check(case, &before)?;
        }
        let under_way = if case.pace.stamped { self.traffic.delays()? } else { Vec::new() };
        let delays = within(under_way, &delays, from..to);
        running.stop()?;
        let sum = |seen: &Seen| seen.arrived.iter().sum::<u64>();
        let client = |seen: &Seen| seen.arrived.get(usize::from(CLIENT)).copied().unwrap_or(0);
        Ok(Sample {
            offered: (last.sent - first.sent) as f64 / seconds,
            forwarded: (sum(&last) - sum(&first)) as f64 / seconds,
            returned: (client(&last) - client(&first)) as f64 / seconds,
            cpu: own.computed.as_secs_f64() / seconds,
            delays,
        })
    }

    /// Every frame that arrived was right, and each backend got its share: more than half of the mean.
    fn check(&self, case: &Case, before: &Seen) -> Result<(), Box<dyn Error>> {
        let now = self.traffic.seen()?;
        let wrong = now.wrong - before.wrong;
        if wrong > 0 {
            return Err(format!("{case:?}: {wrong} frames arrived that are wrong").into());
        }
        let counts: Vec<u64> =
            now.arrived.iter().zip(&before.arrived).map(|(n, b)| n - b).collect();
        let total: u64 = counts.iter().sum();
        let first = usize::from(FIRST_BACKEND);
        let backends = counts.get(first..first + usize::from(BACKENDS)).unwrap_or_default();
        let to_backends: u64 = backends.iter().sum();
        let returned = counts.get(usize::from(CLIENT)).copied().unwrap_or_default();
        let least = to_backends / u64::from(2 * BACKENDS);
        let is_fair = backends.iter().all(|count| *count > least);
        let (balances, returns) = (case.kind.balances(), case.kind.returns());
        let is_right = is_fair == balances && (returned > 0) == returns;
        if to_backends + returned == total && is_right {
            return Ok(());
        }
        Err(format!("{case:?}: {total} frames arrived, by destination {counts:?}").into())
    }
}

/// What has come since `before` in each window that lies within this time, in nanoseconds of the programs' clock.
fn within(mut now: Vec<Delays>, before: &[Delays], time: Range<u64>) -> Vec<(u64, Delays)> {
    for (now, then) in now.iter_mut().flatten().zip(before.iter().flatten()) {
        now.1 -= then.1;
    }
    let whole = time.start.div_ceil(WINDOW)..time.end / WINDOW;
    let window = |number: u64| Some((number, now.get((number % WINDOWS as u64) as usize)?.clone()));
    whole.filter_map(window).collect()
}
