//! What people read, in `golden.txt`. After an intended change: `DSRLB_GOLDEN=write cargo test --test
//! explain`, and review the difference.

use crate::support::frames::{Protocol, fragment, ipv4};
use crate::world::{BACKENDS, Condition, World};
use crate::{pipeline, process};
use dsrlb::balancer::{Assignment, Balancer, FlowBalancer, HashBalancer, Record, ServiceTable};
use dsrlb::dataplane::{Explanation, NextHops, Pipeline, Plan};
use dsrlb::flow::{FiveTuple, HashKey, PacketInfo, Timestamp};
use std::path::Path;

const WELL: [Condition; BACKENDS] = [Condition::Well; BACKENDS];
const FLOW: &str = "192.0.2.1:40000 > 10.0.0.100:80 tcp";

/// All that is said, each under its title.
#[derive(Default)]
struct Page(String);

impl Page {
    fn say(&mut self, title: &str, plan: &Plan, explanation: Explanation) {
        let name = |index| {
            let member = plan.members.iter().find(|member| member.index == index)?;
            Some(member.backend.id().to_owned())
        };
        self.0 += &format!("# {title}\n{}\n\n", explanation.named(name));
    }

    fn flow<B: Balancer>(&mut self, title: &str, pipeline: &Pipeline<B>, plan: &Plan, flow: &str) {
        let flow: FiveTuple = flow.parse().unwrap();
        let explanation = pipeline.explain_flow(&plan.snapshot, Timestamp(0), &flow).unwrap();
        self.say(title, plan, explanation);
    }
}

/// One that does not say how it decides.
#[derive(Debug)]
struct Mute;

impl Balancer for Mute {
    fn assign(&mut self, _: &ServiceTable, _: &PacketInfo, _: Timestamp) -> Assignment {
        Assignment::NotVip
    }
}

#[test]
fn it_reads_as_it_should() {
    let (mut page, mut world) = (Page::default(), World::new());
    let plan = world.plan(WELL, Timestamp(0));
    page.flow("by hash alone", &pipeline(HashBalancer), &plan, FLOW);

    let balancer = FlowBalancer::new(1024, 64, HashKey::new([7; 16])).unwrap();
    let mut pipeline = pipeline(balancer);
    page.flow("a flow that is not known", &pipeline, &plan, FLOW);
    let frame = ipv4([192, 0, 2, 1], [10, 0, 0, 100], Protocol::Tcp(40_000, 80), b"");
    for _ in 0..2 {
        process(&mut pipeline, &plan, Timestamp(0), &frame);
    }
    let all_but_one =
        |condition| std::array::from_fn(|at| if at < 3 { condition } else { WELL[3] });
    let draining = world.plan(all_but_one(Condition::Draining), Timestamp(0));
    page.flow("a flow that a draining backend keeps", &pipeline, &draining, FLOW);
    let mut syn = frame.clone();
    syn[47] = 2;
    let later = Timestamp(30_000_000_000);
    let explanation = pipeline.explain(&draining.snapshot, later, &syn);
    page.say("its port is used again", &draining, explanation);
    let disabled = world.plan(all_but_one(Condition::Disabled), Timestamp(0));
    page.flow("a flow that a disabled backend does not keep", &pipeline, &disabled, FLOW);

    let plan = world.plan(WELL, Timestamp(0));
    page.flow("no service", &pipeline, &plan, "192.0.2.1:40000 > 10.0.0.100:81 tcp");
    page.flow("a ping", &pipeline, &plan, "192.0.2.1 > 10.0.0.100 icmp");
    page.flow("a ping that is forwarded", &pipeline, &plan, "192.0.2.1 > 10.0.0.101 icmp");
    page.flow("no VIP", &pipeline, &plan, "192.0.2.1:40000 > 198.51.100.1:80 tcp");
    page.flow("sessionless", &pipeline, &plan, "192.0.2.1:40000 > 10.0.0.102:80 tcp");
    let datagram = ipv4([192, 0, 2, 1], [10, 0, 0, 100], Protocol::Udp(40_000, 443), &{
        [&[0x41, 7, 2][..], &[9; 24]].concat()
    });
    let explanation = pipeline.explain(&plan.snapshot, later, &datagram);
    page.say("QUIC by connection ID", &plan, explanation);
    let large = ipv4([192, 0, 2, 1], [10, 0, 0, 100], Protocol::Tcp(40_000, 80), &[1; 1400]);
    page.say("too large", &plan, pipeline.explain(&plan.snapshot, Timestamp(0), &large));
    let first = fragment(large, 0, true);
    page.say("a fragment", &plan, pipeline.explain(&plan.snapshot, Timestamp(0), &first));
    page.say("not IP", &plan, pipeline.explain(&plan.snapshot, Timestamp(0), &[0; 60]));
    let mut lost = world.plan(WELL, Timestamp(0));
    lost.snapshot.next_hops = NextHops::default();
    page.flow("no next hop", &pipeline, &lost, FLOW);
    let balancer = FlowBalancer::new(1024, 64, HashKey::new([7; 16])).unwrap();
    let contested = crate::pipeline(balancer.record(Record::Contested));
    page.flow("a flow that is contested", &contested, &draining, FLOW);
    let ill = world.plan([Condition::Ill; BACKENDS], Timestamp(0));
    page.flow("no backend", &pipeline, &ill, "[2001:db8::1]:40000 > [fd00::100]:80 udp");
    page.flow("a balancer that says nothing", &crate::pipeline(Mute), &plan, FLOW);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain/golden.txt");
    if std::env::var("DSRLB_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &page.0).unwrap();
    }
    assert_eq!(page.0, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn a_flow_of_two_families_is_refused() {
    let plan = World::new().plan(WELL, Timestamp(0));
    let flow: FiveTuple = FLOW.parse().unwrap();
    let mixed = FiveTuple { source: "2001:db8::1".parse().unwrap(), ..flow };
    let error = pipeline(Mute).explain_flow(&plan.snapshot, Timestamp(0), &mixed).unwrap_err();
    assert!(error.to_string().contains("two families"), "{error}");
}
