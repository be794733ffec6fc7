//! The flow table against a slow and obvious model of its rules, by lists of operations.

use dsrlb::balancer::{
    FlowKey, FlowRecord, FlowTable, FlowTimes, Found, Imported, Inserted, Lifetimes, Signal, Spot,
    State,
};
use dsrlb::flow::{HashKey, Timestamp};
use dsrlb::verdict::BackendIndex;
use std::collections::HashMap;
use std::time::Duration;

const TICK: u64 = 1 << 27;
const SLOTS: usize = 4;
const SIGNALS: [Signal; 8] = [
    Signal::Syn,
    Signal::Data,
    Signal::Fin,
    Signal::Reset,
    Signal::Udp,
    Signal::Sctp,
    Signal::Other,
    Signal::Stray,
];

/// Three services: the defaults, short times, and none to speak of.
fn times(number: u8) -> FlowTimes {
    let seconds = Duration::from_secs;
    match number % 3 {
        0 => FlowTimes::default(),
        1 => FlowTimes {
            syn: seconds(5),
            copy: seconds(1),
            established: seconds(20),
            closing: seconds(2),
            udp: seconds(7),
            quic: seconds(8),
            sctp: seconds(11),
            other: seconds(9),
        },
        _ => FlowTimes {
            syn: Duration::ZERO,
            copy: Duration::MAX,
            established: Duration::MAX,
            closing: seconds(1),
            udp: Duration::from_millis(1),
            quic: Duration::ZERO,
            sctp: Duration::from_millis(500),
            other: Duration::ZERO,
        },
    }
}

fn ticks(time: Duration) -> u64 {
    let whole = time.as_nanos().div_ceil(u128::from(TICK)) + 1;
    whole.min(1 << 27) as u64
}

/// How long a flow of a protocol that is not TCP is remembered.
fn idle(times: &FlowTimes, signal: Signal) -> Duration {
    match signal {
        Signal::Udp => times.udp,
        Signal::Sctp => times.sctp,
        _ => times.other,
    }
}

fn proven(state: State) -> bool {
    [State::Established, State::Active, State::Closing].contains(&state)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Item {
    set: usize,
    backend: BackendIndex,
    state: State,
    /// In ticks since the epoch.
    end: u64,
    /// Whether another table told of it, and nothing has been heard of it since.
    told: bool,
}

/// What the documentation of the table says, in as many words.
struct Model {
    sets: usize,
    flows: HashMap<u64, Item>,
    generations: [u32; SLOTS],
    now: u64,
    base: u64,
    swept: usize,
    refused: u64,
    displaced: u64,
}

impl Model {
    fn usable(&self, backend: BackendIndex) -> bool {
        self.generations.get(backend.slot()) == Some(&backend.generation())
    }

    fn tick(&self) -> u64 {
        self.now / TICK
    }

    fn sets_of(&self, key: u64) -> [usize; 2] {
        let share = |hash: u64, of: usize| ((u128::from(hash) * of as u128) >> 64) as usize;
        let first = share(key, self.sets);
        if self.sets == 1 {
            return [0, 0];
        }
        let low = key.rotate_right(32);
        [first, (first + 1 + share(low, self.sets - 1)) % self.sets]
    }

    fn over(&self, item: &Item) -> bool {
        item.end <= self.tick() || !self.usable(item.backend)
    }

    fn purge(&mut self, set: usize) {
        let (now, generations) = (self.tick(), self.generations);
        let usable = |b: BackendIndex| generations.get(b.slot()) == Some(&b.generation());
        self.flows.retain(|_, i| i.set != set || (i.end > now && usable(i.backend)));
    }

    fn lookup(&mut self, key: u64, signal: Signal, times: &FlowTimes) -> Found {
        let Some(item) = self.flows.get(&key).copied() else {
            return Found::Missing;
        };
        if self.over(&item) {
            self.flows.remove(&key);
            return Found::Missing;
        }
        let now = self.tick();
        let (state, tcp) = (item.state, item.state != State::Active);
        let whole = if state == State::Established { times.established } else { times.syn };
        let is_copy = item.end + ticks(times.copy) > now + ticks(whole);
        let (state, end) = match signal {
            Signal::Stray => (state, item.end),
            Signal::Syn
                if state == State::Closing || (tcp && state != State::Opening && !is_copy) =>
            {
                self.flows.remove(&key);
                return Found::Reopened(item.backend);
            }
            Signal::Data if state == State::Closing => (state, now + ticks(times.closing)),
            Signal::Data if tcp => (State::Established, now + ticks(times.established)),
            Signal::Fin if tcp => (State::Closing, item.end.min(now + ticks(times.closing))),
            Signal::Reset if tcp => {
                let state = if proven(state) { State::Closing } else { state };
                (state, item.end.min(now + ticks(times.closing)))
            }
            Signal::Udp | Signal::Sctp | Signal::Other
                if state == State::Single || state == State::Active =>
            {
                (State::Active, now + ticks(idle(times, signal)))
            }
            _ => (state, item.end),
        };
        // A second FIN or RST does not move the end of a closing flow.
        let is_end = matches!(signal, Signal::Fin | Signal::Reset);
        let end = if item.state == State::Closing && is_end { item.end } else { end };
        // What changed nothing was nothing to hear; the same end again is one.
        let says_something = match signal {
            Signal::Stray | Signal::Syn => false,
            Signal::Data => tcp,
            Signal::Fin | Signal::Reset => tcp && item.state != State::Closing,
            Signal::Udp | Signal::Sctp | Signal::Other => !tcp || item.state == State::Single,
        };
        let told = item.told && !says_something;
        self.flows.insert(key, Item { state, end, told, ..item });
        Found::Known(item.backend, state)
    }

    fn insert(
        &mut self,
        key: u64,
        to: BackendIndex,
        signal: Signal,
        times: &FlowTimes,
    ) -> Inserted {
        let (state, time) = match signal {
            Signal::Syn => (State::Opening, times.syn),
            Signal::Data => (State::Single, times.syn),
            Signal::Udp | Signal::Sctp | Signal::Other => (State::Single, idle(times, signal)),
            _ => return Inserted::NotKept,
        };
        let (set, end) = (0, self.tick() + ticks(time));
        self.put(key, Item { set, backend: to, state, end, told: false })
    }

    /// What is told: the rules of `FlowTable::import`.
    fn import(&mut self, key: u64, told: Item) -> Imported {
        let gone = told.end <= self.tick() || !self.usable(told.backend);
        if gone || !proven(told.state) || told.backend.slot() >= SLOTS {
            return Imported::NotKept;
        }
        match self.flows.get(&key).copied().filter(|item| !self.over(item)) {
            Some(item) => {
                let later = told.end > item.end;
                let better = if item.told {
                    item.state != told.state || later
                } else if item.state == State::Single {
                    true
                } else if item.state == State::Opening {
                    item.backend == told.backend
                } else {
                    item.state == told.state && item.backend == told.backend && later
                };
                if !better {
                    return Imported::Known;
                }
                self.flows.insert(key, Item { set: item.set, ..told });
                Imported::Updated
            }
            None => match self.put(key, told) {
                Inserted::New(_) => Imported::New,
                Inserted::Refused => Imported::Refused,
                other => panic!("{other:?}"),
            },
        }
    }

    fn put(&mut self, key: u64, new: Item) -> Inserted {
        let Item { backend, state, .. } = new;
        if backend.slot() >= SLOTS {
            return Inserted::NotKept;
        }
        let sets = self.sets_of(key);
        let now = self.tick();
        self.flows.retain(|_, item| !sets.contains(&item.set) || item.end > now);
        match self.flows.get(&key).copied() {
            Some(item) if self.usable(item.backend) => return Inserted::Known(item.backend),
            // What has lost its backend goes where it is in the way.
            Some(_) => sets.iter().for_each(|set| self.purge(*set)),
            None if self.place(sets, state).is_none() => {
                sets.iter().for_each(|set| self.purge(*set));
            }
            None => {}
        }
        let Some((set, gone)) = self.place(sets, state) else {
            self.refused += 1;
            return Inserted::Refused;
        };
        if let Some(gone) = gone {
            self.flows.remove(&gone);
            self.displaced += 1;
        }
        self.flows.insert(key, Item { set, ..new });
        Inserted::New(state)
    }

    /// The best place in these sets, and who would have to go. A set costs (0, proven flows in it, -), or
    /// (1, rank, end) of the flow that would have to go.
    fn place(&self, sets: [usize; 2], state: State) -> Option<(usize, Option<u64>)> {
        let mut offers = Vec::new();
        for set in sets {
            let in_it: Vec<_> = self.flows.iter().filter(|(_, item)| item.set == set).collect();
            let held = in_it.iter().filter(|(_, item)| proven(item.state)).count();
            let mut guests: Vec<_> = in_it.iter().filter(|(_, item)| !proven(item.state)).collect();
            if in_it.len() < 4 && (proven(state) || guests.is_empty()) {
                offers.push(((0, held as u64, 0), set, None));
                continue;
            }
            guests.retain(|(_, item)| item.state <= state);
            if let Some((gone, item)) = guests.first() {
                offers.push(((1, item.state as u64, item.end), set, Some(**gone)));
            }
        }
        let least = offers.iter().map(|offer| offer.0).min();
        let best = offers.into_iter().find(|offer| Some(offer.0) == least);
        best.map(|(_, set, gone)| (set, gone))
    }

    fn rebase(&mut self) {
        if self.tick() - self.base >= 1 << 26 {
            self.base = self.tick();
            let now = self.tick();
            self.flows.retain(|_, item| item.end > now);
        }
    }

    fn sweep(&mut self, budget: usize) {
        self.rebase();
        for _ in 0..budget.min(self.sets) {
            self.purge(self.swept);
            self.swept = (self.swept + 1) % self.sets;
        }
    }
}

/// Any list of operations, four bytes each after the number of sets: table and model agree on every
/// answer and every count, and no proven flow goes but by its own packets, its backend or time.
pub fn check_flow_table(data: &[u8]) {
    let Some((first, steps)) = data.split_first() else {
        return;
    };
    let sets = usize::from(first % 4) + 1;
    let start = 1_800_000_000_000_000_000;
    let new = FlowTable::new(sets * 4, SLOTS, HashKey::default(), Timestamp(start));
    let mut table = new.expect("a small table");
    assert_eq!((table.sets(), table.capacity()), (sets, sets * 4));
    let mut model = Model {
        sets,
        flows: HashMap::new(),
        generations: [0; SLOTS],
        now: start,
        base: start / TICK,
        swept: 0,
        refused: 0,
        displaced: 0,
    };
    for step in steps.chunks_exact(4).take(4096) {
        let &[operation, number, a, b] = step else {
            return;
        };
        let key = HashKey::default().hash_bytes(&[number % 64]);
        let now = Timestamp(model.now);
        let generations = model.generations;
        let usable =
            |index: BackendIndex| generations.get(index.slot()) == Some(&index.generation());
        // Every fifth slot is one that the table has no counter for.
        let slot = usize::from(a % 5);
        let backend = BackendIndex::new(slot, generations.get(slot).copied().unwrap_or(0));
        let (times, signal) = (times(b), SIGNALS[usize::from(b / 3) % SIGNALS.len()]);
        match operation % 16 {
            // A packet, as a balancer would have it: most of them.
            0..=9 => {
                let lives = Lifetimes::from(&times);
                let alone = table.locate_one(FlowKey(key));
                let located = table.locate([FlowKey(key)]);
                assert_eq!(located.flows(), [(FlowKey(key), alone)]);
                let (steady, never) = (lives.steady(|_| true), lives.steady(|_| false));
                let renewal = |index| if usable(index) { &steady } else { &never }.of(signal);
                let tick = table.tick(now);
                model.rebase();
                let renewed = table.renew(FlowKey(key), alone, tick, renewal);
                let found = match renewed {
                    // What goes on as it was.
                    Some(index) => {
                        match table.lookup(FlowKey(key), Signal::Stray, &lives, now, usable) {
                            Found::Known(same, state) if same == index => {
                                Found::Known(index, state)
                            }
                            other => panic!("renewed for {index:?}, but {other:?}"),
                        }
                    }
                    None => table.lookup(FlowKey(key), signal, &lives, now, usable),
                };
                assert_eq!(found, model.lookup(key, signal, &times));
                if !matches!(found, Found::Known(..)) {
                    // Nothing was inserted since it was located.
                    let inserted = table.insert(
                        FlowKey(key),
                        alone,
                        backend,
                        lives.first(signal),
                        tick,
                        usable,
                    );
                    assert_eq!(inserted, model.insert(key, backend, signal, &times));
                }
            }
            10 => {
                let (lives, tick) = (Lifetimes::from(&times), table.tick(now));
                model.rebase();
                let inserted = table.insert(
                    FlowKey(key),
                    Spot::UNKNOWN,
                    backend,
                    lives.first(signal),
                    tick,
                    usable,
                );
                assert_eq!(inserted, model.insert(key, backend, signal, &times));
            }
            11 => model.now += u64::from(a) * TICK / 2 + u64::from(b),
            12 => {
                // Up to 510 days, after which somebody always looks at the table.
                model.now += u64::from(a / 4) * (1 << 20) * TICK * 4;
                table.sweep(Timestamp(model.now), usize::from(b), usable);
                model.sweep(usize::from(b));
            }
            13 => {
                table.sweep(now, usize::from(b % 8), usable);
                model.sweep(usize::from(b % 8));
            }
            14 if a % 2 == 0 => model.generations[usize::from(number) % SLOTS] += 1,
            14 => {
                let removed = model.flows.remove(&key).map(|item| item.backend);
                assert_eq!(table.remove(FlowKey(key)), removed);
            }
            _ => {
                let states = [
                    State::Opening,
                    State::Single,
                    State::Established,
                    State::Active,
                    State::Closing,
                ];
                let state = states[usize::from(b) % states.len()];
                let remaining = Duration::from_nanos(u64::from(b) * TICK);
                let record = FlowRecord { key: FlowKey(key), backend, state, remaining };
                let end = model.tick() + u64::from(b);
                let expected = model.import(key, Item { set: 0, backend, state, end, told: true });
                assert_eq!(table.import(record, now, usable), expected);
            }
        }
        compare(&table, &model);
    }
    // Left alone, everything ends.
    let long = Timestamp(model.now.saturating_add(250 * 24 * 3600 * 1_000_000_000));
    table.sweep(long, sets, |_| true);
    assert_eq!((table.counts().proven, table.counts().unproven), (0, 0));
    assert!((0..SLOTS).all(|slot| table.live(slot) == 0));
}

fn compare(table: &FlowTable, model: &Model) {
    let of = |wanted: bool| model.flows.values().filter(|i| proven(i.state) == wanted).count();
    let counts = table.counts();
    assert_eq!((counts.proven, counts.unproven), (of(true) as u64, of(false) as u64));
    assert_eq!((counts.refused, counts.displaced), (model.refused, model.displaced));
    for slot in 0..=SLOTS {
        let live = model.flows.values().filter(|item| item.backend.slot() == slot).count();
        assert_eq!(table.live(slot) as usize, live);
    }
    let record = |(key, item): (&u64, &Item)| {
        let left = item.end.checked_sub(model.tick()).filter(|left| *left > 0)?;
        let remaining = Duration::from_nanos(left * TICK);
        Some(FlowRecord { key: FlowKey(*key), backend: item.backend, state: item.state, remaining })
    };
    let own = |(_, item): &(&u64, &Item)| !item.told && proven(item.state);
    let (all, now) = (0..usize::MAX, Timestamp(model.now));
    let sorted = |mut records: Vec<FlowRecord>| {
        records.sort_by_key(|record| record.key);
        records
    };
    let expected = sorted(model.flows.iter().filter_map(record).collect());
    assert_eq!(sorted(table.records(all.clone(), now).collect()), expected);
    let expected = sorted(model.flows.iter().filter(own).filter_map(record).collect());
    assert_eq!(sorted(table.own_records(all, now).collect()), expected);
}
