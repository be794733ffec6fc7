//! What is explained is what happens, nothing happens by explaining, and it reads well.

#[path = "../support/mod.rs"]
mod support;

mod text;
mod world;

use dsrlb::balancer::{Balancer, FlowBalancer, HashBalancer, Record};
use dsrlb::dataplane::{
    Action, Counts, Explanation, FragmentLimits, FragmentTrace, Frame, HEADROOM, Pipeline,
    PipelineOptions, Plan, Port, WorkerCounters,
};
use dsrlb::flow::{HashKey, Timestamp};
use dsrlb::verdict::{BackendIndex, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use world::{BACKENDS, Condition, World, frame, packet};

/// What comes, and when.
#[derive(Clone, Debug)]
enum Step {
    Packet(world::Packet),
    Change([Condition; BACKENDS]),
    /// Seconds that pass.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let condition = prop_oneof![
        5 => Just(Condition::Well),
        1 => Just(Condition::Ill),
        1 => Just(Condition::Draining),
        1 => Just(Condition::Disabled),
        1 => Just(Condition::Unresolved),
    ];
    let conditions = proptest::array::uniform(condition);
    prop_oneof![
        12 => packet().prop_map(Step::Packet),
        1 => conditions.prop_map(Step::Change),
        2 => prop_oneof![Just(0), Just(1), Just(4), Just(40), Just(100), Just(1000)].prop_map(Step::Wait),
    ]
}

/// Little of everything, so that each limit is met.
fn pipeline<B: Balancer>(balancer: B) -> Pipeline<B> {
    let fragments = FragmentLimits { datagrams: 8, waiting: 2, ..FragmentLimits::default() };
    let options =
        PipelineOptions { fragments, errors_per_second: 1, errors_at_once: 2, secret: [3; 16] };
    Pipeline::with_options(balancer, Arc::new(WorkerCounters::new(64)), &options)
}

/// The verdict, and the frames that are sent.
fn process<B: Balancer>(
    pipeline: &mut Pipeline<B>,
    plan: &Plan,
    now: Timestamp,
    bytes: &[u8],
) -> (Verdict, Vec<Vec<u8>>) {
    let mut memory = [&[0; HEADROOM], bytes].concat();
    let end = memory.len();
    let mut frame = Frame::in_memory(&mut memory, HEADROOM..end);
    let verdict = pipeline.process_one(&plan.snapshot, now, &mut frame);
    let mut sent = Vec::new();
    if let Action::Transmit(_) = frame.action() {
        sent.push(frame.bytes().to_vec());
    }
    let drained: Result<(), ()> = pipeline.drain(|port, bytes| {
        if port != Port::PROBER {
            sent.push(bytes.to_vec());
        }
        Ok(())
    });
    assert_eq!(drained, Ok(()));
    (verdict, sent)
}

/// What can be seen from outside of what a pipeline knows.
fn visible<B: Balancer>(
    pipeline: &Pipeline<B>,
    plan: &Plan,
) -> (Counts, Vec<u64>, Vec<(u64, u64)>) {
    let mut counts = Counts::default();
    pipeline.counters().add_to(&mut counts);
    let indices: Vec<BackendIndex> = plan.members.iter().map(|member| member.index).collect();
    (
        counts,
        indices.iter().map(|index| pipeline.balancer().flows(*index)).collect(),
        indices.iter().map(|index| pipeline.counters().backend(*index)).collect(),
    )
}

/// What all cases together have come to, to show that the test is one.
static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);

fn note(explanation: &Explanation) {
    let mut seen = SEEN.lock().unwrap();
    let seen = seen.get_or_insert_default();
    let verdict = match explanation.verdict {
        Some(Verdict::Forward(_)) => "forward".to_owned(),
        Some(Verdict::Answer(kind)) => format!("answer-{}", kind.as_str()),
        Some(Verdict::Drop(reason)) => reason.to_string(),
        Some(other) => format!("{other:?}").to_lowercase(),
        None => "nothing".to_owned(),
    };
    seen.insert(verdict);
    if let Some(placement) = explanation.placement {
        seen.insert(format!("{:?}", placement.decider));
        let recall = placement.recall.map(|of| [of.before, of.after].map(|of| of.is_some()));
        seen.insert(match recall {
            None => "NotAsked".to_owned(),
            Some(recall) => {
                let [before, after] =
                    recall.map(|is_some| if is_some { "Known" } else { "Unknown" });
                format!("{before}-{after}")
            }
        });
    }
    if let Some(fragment) = explanation.fragment {
        let fragment = format!("{fragment:?}");
        seen.insert(fragment.split('(').next().unwrap_or_default().to_owned());
    }
}

/// Two pipelines go the same way, one of which is asked before each packet, twice.
fn check<B: Balancer>(steps: &[Step], new: impl Fn() -> B) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut plan = world.plan([Condition::Well; BACKENDS], Timestamp(0));
    let (mut asked, mut silent) = (pipeline(new()), pipeline(new()));
    let mut now = Timestamp(0);
    for step in steps {
        let packet = match step {
            Step::Packet(packet) => packet,
            Step::Change(conditions) => {
                plan = world.plan(*conditions, now);
                continue;
            }
            Step::Wait(seconds) => {
                now.0 += seconds * 1_000_000_000;
                continue;
            }
        };
        let bytes = frame(packet);
        let before = visible(&asked, &plan);
        let explanation = asked.explain(&plan.snapshot, now, &bytes);
        prop_assert_eq!(&asked.explain(&plan.snapshot, now, &bytes), &explanation);
        prop_assert_eq!(visible(&asked, &plan), before, "nothing is counted or remembered");
        note(&explanation);

        let (verdict, sent) = process(&mut asked, &plan, now, &bytes);
        prop_assert_eq!(explanation.verdict, Some(verdict), "{}", explanation);
        // A first fragment takes those along that have waited for it.
        match explanation.fragment {
            Some(FragmentTrace::Leads) => prop_assert!(explanation.frames <= sent.len()),
            _ => prop_assert_eq!(explanation.frames, sent.len(), "{}", explanation),
        }
        prop_assert_eq!(process(&mut silent, &plan, now, &bytes), (verdict, sent));
        prop_assert_eq!(visible(&silent, &plan), visible(&asked, &plan));
        prop_assert!(!explanation.to_string().is_empty());
    }
    Ok(())
}

/// Runs cases; without randomness all kinds of outcomes come up each time.
fn run(cases: u32, rng: Option<TestRng>) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = match rng {
        Some(rng) => TestRunner::new_with_rng(config, rng),
        None => TestRunner::new(config),
    };
    let remembering = |entries| {
        move || FlowBalancer::new(entries, 64, HashKey::new([7; 16])).expect("a small table")
    };
    let all = runner.run(&prop::collection::vec(step(), 1..200), |steps| {
        check(&steps, || HashBalancer)?;
        check(&steps, remembering(1024))?;
        // So small that flows displace each other.
        check(&steps, remembering(4))?;
        check(&steps, || remembering(1024)().record(Record::Contested))?;
        check(&steps, || remembering(4)().record(Record::Contested))?;
        check(&steps, || -> Box<dyn Balancer> { Box::new(remembering(64)()) })
    });
    all.unwrap();
}

#[test]
fn what_is_explained_is_what_happens() {
    run(20, None);
    *SEEN.lock().unwrap() = None;
    run(60, Some(TestRng::deterministic_rng(RngAlgorithm::ChaCha)));
    let seen = SEEN.lock().unwrap().take().unwrap_or_default();
    let expected = "forward pass hold probe looped no-backend no-service martian-source source-is-vip \
        ipv4-total-length icmp-rate-limited fragment-conflict fragments-full aggregated echo-refused \
        answer-echo answer-packet-too-big answer-time-exceeded Lookup ConnectionId FlowTable Selector \
        NotAsked Elder Unknown-Known Unknown-Unknown Known-Known Known-Unknown Leads Follows FollowsDrop Waits Full Conflicts";
    for expected in expected.split_whitespace() {
        assert!(seen.contains(expected), "no case has come to {expected}: {seen:?}");
    }
}
