//! Workers that share a snapshot: none of them writes where another reads or writes.

mod support;

use dsrlb::balancer::{Assignment, FlowBalancer, HashBalancer};
use dsrlb::dataplane::{
    Frame, HEADROOM, MAX_BATCH, MemoryIo, NextHop, Pipeline, Snapshot, Worker, WorkerCounters,
};
use dsrlb::flow::{HashKey, Timestamp};
use dsrlb::verdict::{BackendIndex, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::frames::{Protocol, ipv4, ipv6};
use support::pool;

const WORKERS: usize = 16;
const BATCHES: usize = 100;

/// A batch of all that changes something in a worker: new flows and known ones, fragments, errors to send, others'.
fn batch(worker: usize, number: usize) -> Vec<Vec<u8>> {
    let frame = |at: usize| {
        let client = [192, 0, worker as u8, (number % 50) as u8];
        let port = 40_000 + (number / 50 * MAX_BATCH + at) as u16 % 512;
        match at % 6 {
            0 => ipv4(client, [10, 0, 0, 100], Protocol::Udp(port, 53), b"question"),
            1 => ipv4(client, [10, 0, 0, 100], Protocol::Echo, b""),
            2 => ipv4(client, [10, 0, 0, 100], Protocol::Tcp(port, 81), b""),
            3 => {
                let mut to = [0; 16];
                (to[0], to[14], to[15]) = (0xfd, 1, 0);
                ipv6([0x20 + worker as u8; 16], to, Protocol::Tcp(port, 80), b"")
            }
            _ => ipv4(client, [10, 0, 0, 100], Protocol::Tcp(port, 80), b""),
        }
    };
    (0..MAX_BATCH).map(frame).collect()
}

/// How many packets of a worker were forwarded.
fn work(worker: usize, snapshot: &Snapshot) -> u64 {
    let balancer = FlowBalancer::new(1 << 12, 64, HashKey::new([worker as u8; 16])).unwrap();
    let mut pipeline = Pipeline::new(balancer, Arc::new(WorkerCounters::new(64)));
    let mut forwarded = 0;
    for number in 0..BATCHES {
        let mut memory: Vec<_> = batch(worker, number)
            .into_iter()
            .map(|frame| [&[0; HEADROOM][..], &frame].concat())
            .collect();
        let lent = memory.iter_mut().map(|bytes| {
            let end = bytes.len();
            Frame::in_memory(bytes, HEADROOM..end)
        });
        let mut lent: Vec<_> = lent.collect();
        let verdicts = pipeline.process(snapshot, Timestamp(number as u64), &mut lent);
        forwarded += verdicts.iter().filter(|it| matches!(it, Verdict::Forward(_))).count() as u64;
        let _: Result<(), ()> = pipeline.drain(|_, _| Ok(()));
    }
    forwarded
}

#[test]
fn sixteen_workers_leave_their_snapshot_as_it_was() {
    let snapshot = Arc::new(pool::plan().snapshot);
    let before = format!("{snapshot:?}");
    let at_work = AtomicUsize::new(WORKERS);
    let (forwarded, most, looks) = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (snapshot, at_work) = (&*snapshot, &at_work);
                scope.spawn(move || {
                    let forwarded = work(worker, snapshot);
                    at_work.fetch_sub(1, Ordering::Relaxed);
                    forwarded
                })
            })
            .collect();
        // Who takes a reference of their own for a packet writes to what all of them share.
        let (mut most, mut looks) = (0, 0_u64);
        while at_work.load(Ordering::Relaxed) > 0 {
            most = most.max(Arc::strong_count(&snapshot.services));
            looks += 1;
        }
        let forwarded: Vec<u64> = workers.into_iter().map(|it| it.join().unwrap()).collect();
        (forwarded, most, looks)
    });
    assert!(forwarded.iter().all(|count| *count > 1000), "{forwarded:?}");
    assert_eq!(most, 1, "in {looks} looks");
    assert!(looks > 1000, "{looks}");
    assert_eq!(format!("{snapshot:?}"), before);
}

/// What a packet takes out of the snapshot is copied, so that it counts no references.
#[test]
fn what_is_taken_out_of_a_snapshot_is_copied() {
    fn is_copied<T: Copy>() {}
    is_copied::<Assignment>();
    is_copied::<BackendIndex>();
    is_copied::<NextHop>();
    is_copied::<Verdict>();
}

/// Whatever is aligned to lines takes whole ones: nothing else is on them.
#[test]
fn a_worker_and_its_counters_are_on_lines_of_their_own() {
    assert!(align_of::<WorkerCounters>() >= 128);
    assert!(align_of::<Worker<MemoryIo, HashBalancer>>() >= 128);
}
