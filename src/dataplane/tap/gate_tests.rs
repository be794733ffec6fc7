use super::*;
use crate::dataplane::minimal::frame_of;
use crate::packet::MacAddress;
use crate::verdict::{BackendIndex, DropReason, Verdict};
use std::num::NonZeroU32;
use std::time::Duration;

const FLOW: &str = "192.0.2.7:40000 > 10.0.0.100:80 tcp";
const DROP: Verdict = Verdict::Drop(DropReason::NoService);

fn frame(flow: &str) -> Vec<u8> {
    frame_of(&flow.parse().unwrap(), MacAddress([2, 0, 0, 0, 0, 1])).unwrap()
}

/// What of these frames, a millisecond apart, is chosen.
fn chosen(chosen: Chosen, samples: &[(&[u8], Verdict)]) -> Vec<bool> {
    let mut gate = Gate::new(chosen, Bounds::default());
    let times = (0..).map(Duration::from_millis);
    let samples = samples.iter().zip(times);
    let all: Vec<bool> = samples
        .map(|((frame, verdict), time)| gate.choose(&Sample::new(time, frame, *verdict)).is_ok())
        .collect();
    let refused = all.iter().filter(|taken| !**taken).count() as u64;
    assert_eq!(gate.counts(), TapCounts { not_chosen: refused, ..TapCounts::default() });
    all
}

#[test]
fn each_filter_takes_what_it_says_and_nothing_else() {
    let [first, second] = [BackendIndex::new(0, 0), BackendIndex::new(1, 0)];
    let reused = BackendIndex::new(0, 1);
    let own = frame(FLOW);
    let other = frame("192.0.2.7:40001 > 10.0.0.100:80 tcp");
    let samples: [(&[u8], Verdict); 6] = [
        (&own, Verdict::Forward(first)),
        (&other, Verdict::Forward(second)),
        (&other, Verdict::Forward(reused)),
        (&own, DROP),
        (&own[..20], Verdict::Drop(DropReason::Ipv4Truncated)),
        (&[], Verdict::Drop(DropReason::EthernetTruncated)),
    ];
    for (filter, expected) in [
        (Chosen::All, [true; 6]),
        (Chosen::Dropped, [false, false, false, true, true, true]),
        (Chosen::Drops(DropReason::NoService), [false, false, false, true, false, false]),
        (Chosen::Flow(FLOW.parse().unwrap()), [true, false, false, true, false, false]),
        (Chosen::Backend(vec![first]), [true, false, false, false, false, false]),
        (Chosen::Backend(vec![second, reused]), [false, true, true, false, false, false]),
        (Chosen::Backend(vec![]), [false; 6]),
        (Chosen::OneIn(NonZeroU32::MIN), [true; 6]),
        (Chosen::OneIn(NonZeroU32::new(4).unwrap()), [true, false, false, false, true, false]),
    ] {
        assert_eq!(chosen(filter.clone(), &samples), expected, "{filter:?}");
    }
}

#[test]
fn a_flow_that_is_told_counts_before_the_one_in_the_frame() {
    let bytes = frame("10.0.0.1:1 > 10.0.0.11:4 udp");
    let mut gate = Gate::new(Chosen::Flow(FLOW.parse().unwrap()), Bounds::default());
    let sample = Sample::new(Duration::ZERO, &bytes, DROP);
    assert_eq!(gate.choose(&sample), Err(Taken::NotChosen));
    assert_eq!(gate.choose(&sample.of_flow(FLOW.parse().ok())), Ok(()));
}

/// And five at once.
fn ten_a_second() -> Gate {
    let bounds = Bounds { frames_per_second: 10, frames_at_once: 5, ..Bounds::NONE };
    Gate::new(Chosen::All, bounds)
}

/// How many are, of one frame in each of these milliseconds.
fn taken(gate: &mut Gate, milliseconds: std::ops::Range<u64>) -> usize {
    let times = milliseconds.map(Duration::from_millis);
    times.filter(|time| gate.choose(&Sample::new(*time, &[], DROP)).is_ok()).count()
}

#[test]
fn no_more_than_the_rate_is_taken_even_if_time_goes_back() {
    let mut gate = ten_a_second();
    let mut taken = |milliseconds| taken(&mut gate, milliseconds);
    // Five at once, and one each tenth of a second from then on.
    assert_eq!(taken(5000..6000), 5 + 9);
    assert_eq!(taken(0..1000), 0);
    assert_eq!(taken(6000..7000), 10);
    assert_eq!(gate.counts().too_many, 1000 - 14 + 1000 + 1000 - 10);

    let mut gate = Gate::new(Chosen::All, Bounds::NONE);
    for seconds in [9, 3, 9, 0] {
        let sample = Sample::new(Duration::from_secs(seconds), &[], DROP);
        assert_eq!(gate.choose(&sample), Ok(()), "without bounds, order does not matter");
    }
}

/// By an hour, as when a machine has slept: what comes then is taken at the rate, and nothing at once for it.
#[test]
fn a_clock_that_is_set_back_goes_on_from_there() {
    let mut gate = ten_a_second();
    let mut taken = |milliseconds| taken(&mut gate, milliseconds);
    assert_eq!(taken(3_600_000..3_601_000), 5 + 9);
    assert_eq!(taken(0..1000), 10);
    assert_eq!(taken(1000..2000), 10);
    // Also another time, and forward again.
    assert_eq!(taken(3_600_000..3_600_001), 1);
    assert_eq!(taken(0..1), 1);
}

#[test]
fn a_rate_of_zero_takes_nothing() {
    let mut gate = Gate::new(Chosen::All, Bounds { frames_per_second: 0, ..Bounds::NONE });
    let sample = Sample::new(Duration::MAX, &[], DROP);
    assert_eq!(gate.choose(&sample), Err(Taken::TooMany));
}

#[test]
fn the_first_that_does_not_fit_ends_it_also_for_smaller_ones() {
    let mut gate = Gate::new(Chosen::All, Bounds { bytes: 100, ..Bounds::NONE });
    let sample = Sample::new(Duration::ZERO, &[], DROP);
    for bytes in [60, 40] {
        assert_eq!((gate.choose(&sample), gate.fits(bytes)), (Ok(()), Ok(())));
        gate.wrote(bytes, 1);
    }
    assert_eq!((gate.choose(&sample), gate.fits(1)), (Ok(()), Err(Taken::Ended)));
    assert_eq!(gate.choose(&sample), Err(Taken::Ended));
    let expected = TapCounts { written: 2, ended: 2, bytes: 100, ..TapCounts::default() };
    assert_eq!(gate.counts(), expected);
}
