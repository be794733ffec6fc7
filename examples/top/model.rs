//! What is shown, and what keys do to it. Pure: what is new is told to it.

use super::sample::{Backend, Sample, Service, Totals};
use super::trace::{Trace, rate};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::HashMap;

/// How far a page is, in rows.
const PAGE: usize = 10;

/// What comes in from the appliance.
#[derive(Debug)]
pub enum News {
    Sample(Sample),
    /// It gave no sample, and why.
    Silent(String),
    /// What became of a command, in words.
    Done(Result<String, String>),
}

/// What a key asks of the program.
#[derive(PartialEq, Debug)]
pub enum Intent {
    Quit,
    Command(Order),
}

/// A command for the appliance.
#[derive(Clone, PartialEq, Debug)]
pub struct Order {
    /// Else undrain.
    pub drain: bool,
    pub service: String,
    pub backend: String,
}

/// A service, or one of its backends.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub service: &'a Service,
    pub backend: Option<&'a Backend>,
}

impl<'a> Row<'a> {
    pub fn key(&self) -> Key<'a> {
        (&self.service.name, self.backend.map_or("", |backend| &backend.id))
    }
}

/// The names of a service and of a backend, which is empty for the service itself.
pub type Key<'a> = (&'a str, &'a str);

/// The rates of all that the appliance counts as a whole.
#[derive(Default, Debug)]
pub struct Overall {
    pub received: Trace,
    pub forwarded: Trace,
    pub dropped: Trace,
    pub lost: Trace,
    /// Bytes forwarded in a second.
    pub bytes: Option<f64>,
}

#[derive(Default, Debug)]
pub struct Model {
    pub overall: Overall,
    pub sample: Sample,
    /// Why the sample is no longer what is.
    pub silent: Option<String>,
    /// What the last command came to.
    pub note: Option<Result<String, String>>,
    before: Option<Sample>,
    traces: HashMap<String, HashMap<String, Trace>>,
    /// The row that keys are about; it stays with the same service and backend.
    cursor: usize,
}

impl Model {
    pub fn take(&mut self, news: News) {
        match news {
            News::Sample(sample) => self.advance(sample),
            News::Silent(why) => self.silent = Some(why),
            News::Done(outcome) => self.note = Some(outcome),
        }
    }

    fn advance(&mut self, sample: Sample) {
        self.silent = None;
        let before = std::mem::replace(&mut self.sample, sample);
        let selected = rows(&before).nth(self.cursor).map(|row| row.key());
        let at = selected.and_then(|key| rows(&self.sample).position(|row| row.key() == key));
        let last = rows(&self.sample).count().saturating_sub(1);
        self.cursor = at.unwrap_or(self.cursor.min(last));
        // The very first sample has none before it.
        self.before = (before != Sample::default()).then_some(before);
        self.trace();
    }

    /// Notes how fast everything was since the sample before.
    fn trace(&mut self) {
        let (now, before) = (&self.sample, self.before.as_ref());
        let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        let since = |of: fn(&Totals) -> u64| {
            rate(of(&now.totals), before.map(|before| of(&before.totals)), seconds)
        };
        self.overall.received.push(since(|totals| totals.received));
        self.overall.forwarded.push(since(|totals| totals.forwarded));
        self.overall.dropped.push(since(|totals| totals.dropped));
        self.overall.lost.push(since(|totals| totals.lost));
        self.overall.bytes = since(|totals| totals.bytes);

        let old: HashMap<Key<'_>, &Backend> = before.map(index).unwrap_or_default();
        let mut traces = std::mem::take(&mut self.traces);
        for service in &now.services {
            let mut of_service = traces.remove(&service.name).unwrap_or_default();
            let mut kept = HashMap::new();
            let (mut packets, mut bytes) = (None, None);
            for backend in &service.backends {
                let last = old.get(&(service.name.as_str(), backend.id.as_str()));
                let mut trace = of_service.remove(&backend.id).unwrap_or_default();
                trace.push(rate(backend.packets, last.map(|last| last.packets), seconds));
                trace.bytes = rate(backend.bytes, last.map(|last| last.bytes), seconds);
                packets = add(packets, trace.last);
                bytes = add(bytes, trace.bytes);
                kept.insert(backend.id.clone(), trace);
            }
            let mut trace = of_service.remove("").unwrap_or_default();
            trace.push(packets);
            trace.bytes = bytes;
            kept.insert(String::new(), trace);
            self.traces.insert(service.name.clone(), kept);
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        rows(&self.sample)
    }

    pub fn cursor(&self) -> usize {
        self.cursor
    }

    pub fn selected(&self) -> Option<Row<'_>> {
        self.rows().nth(self.cursor)
    }

    pub fn trace_of(&self, (service, backend): Key<'_>) -> Option<&Trace> {
        self.traces.get(service)?.get(backend)
    }

    /// How many frames were dropped for each reason there was, and how many in a second, the most
    /// pressing first.
    pub fn reasons(&self) -> Vec<(&str, u64, Option<f64>)> {
        let before = self.before.as_ref();
        let seconds = before.map_or(0.0, |before| (self.sample.at - before.at).as_secs_f64());
        let each = [
            (&self.sample.dropped, before.map(|before| &before.dropped)),
            (&self.sample.lost, before.map(|before| &before.lost)),
        ];
        let mut all: Vec<_> = each
            .into_iter()
            .flat_map(|(now, before)| {
                now.iter().filter(|(_, count)| **count > 0).map(move |(reason, count)| {
                    let last = before.and_then(|before| before.get(reason)).copied();
                    (reason.as_str(), *count, rate(*count, last, seconds))
                })
            })
            .collect();
        all.sort_by(|(_, a, a_rate), (_, b, b_rate)| {
            let rates = b_rate.unwrap_or(0.0).total_cmp(&a_rate.unwrap_or(0.0));
            rates.then(b.cmp(a))
        });
        all
    }

    /// What a key asks for, unless it only moves the cursor.
    pub fn key(&mut self, key: KeyEvent) -> Option<Intent> {
        let last = self.rows().count().saturating_sub(1);
        self.cursor = match key.code {
            KeyCode::Char('q') => return Some(Intent::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Some(Intent::Quit);
            }
            KeyCode::Char('d') => return self.order(true),
            KeyCode::Char('u') => return self.order(false),
            KeyCode::Down | KeyCode::Char('j') => self.cursor + 1,
            KeyCode::Up | KeyCode::Char('k') => self.cursor.saturating_sub(1),
            KeyCode::PageDown => self.cursor + PAGE,
            KeyCode::PageUp => self.cursor.saturating_sub(PAGE),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => return None,
        }
        .min(last);
        None
    }

    fn order(&mut self, drain: bool) -> Option<Intent> {
        let row = self.selected()?;
        let service = row.service.name.clone();
        let Some(backend) = row.backend.map(|backend| backend.id.clone()) else {
            self.note = Some(Err("choose a backend first".to_owned()));
            return None;
        };
        Some(Intent::Command(Order { drain, service, backend }))
    }
}

fn rows(sample: &Sample) -> impl Iterator<Item = Row<'_>> {
    sample.services.iter().flat_map(|service| {
        let backends = service.backends.iter().map(Some);
        std::iter::once(None).chain(backends).map(move |backend| Row { service, backend })
    })
}

fn index(sample: &Sample) -> HashMap<Key<'_>, &Backend> {
    let all = rows(sample).filter_map(|row| Some((row.key(), row.backend?)));
    all.collect()
}

/// What is known of both.
fn add(sum: Option<f64>, one: Option<f64>) -> Option<f64> {
    match (sum, one) {
        (Some(sum), Some(one)) => Some(sum + one),
        (known, None) | (None, known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::{HEALTH, METRICS};
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, metrics: &str) -> News {
        News::Sample(Sample::read(Duration::from_secs(seconds), metrics, HEALTH).unwrap())
    }

    /// With this many packets forwarded to web-1, and dropped.
    fn counted(packets: u64, dropped: u64) -> String {
        let packets = METRICS.replace("web-1\"} 980", &format!("web-1\"}} {packets}"));
        packets.replace("reason=\"looped\"} 0", &format!("reason=\"looped\"}} {dropped}"))
    }

    fn press(model: &mut Model, keys: &str) -> Vec<Intent> {
        let code = |key| match key {
            'v' => KeyCode::Down,
            '^' => KeyCode::Up,
            '$' => KeyCode::End,
            '0' => KeyCode::Home,
            other => KeyCode::Char(other),
        };
        keys.chars().filter_map(|key| model.key(KeyEvent::from(code(key)))).collect()
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let mut model = Model::default();
        model.take(at(10, METRICS));
        let web = ("10.0.0.100:80/tcp", "web-1");
        assert_eq!(model.trace_of(web).unwrap().last, None);
        model.take(at(12, &counted(1480, 4)));
        assert_eq!(model.trace_of(web).unwrap().last, Some(250.0));
        assert_eq!(model.trace_of((web.0, "")).unwrap().last, Some(250.0), "the service's");
        assert_eq!(model.overall.dropped.last, Some(2.0));
        assert_eq!(model.overall.received.last, Some(0.0));
        let reasons = model.reasons();
        assert_eq!(reasons[0], ("looped", 4, Some(2.0)));
        assert_eq!(reasons[1], ("no-service", 20, Some(0.0)));
        assert_eq!(reasons[2], ("receive ring-full", 3, Some(0.0)));

        // Counters that began anew say nothing of the time between.
        model.take(at(14, &counted(100, 4)));
        assert_eq!(model.trace_of(web).unwrap().last, None);
        model.take(at(15, &counted(150, 4)));
        assert_eq!(model.trace_of(web).unwrap().last, Some(50.0));
        let history: Vec<u64> = model.trace_of(web).unwrap().history(10);
        assert_eq!(history, [0, 250, 0, 50]);
    }

    #[test]
    fn what_has_gone_is_forgotten_and_the_cursor_stays_with_its_backend() {
        let mut model = Model::default();
        model.take(at(1, METRICS));
        press(&mut model, "vv");
        assert_eq!(model.selected().unwrap().key(), ("10.0.0.100:80/tcp", "web-2"));
        let without: Vec<_> = METRICS.lines().filter(|line| !line.contains("web-1")).collect();
        model.take(at(2, &(without.join("\n") + "\n")));
        assert_eq!(model.selected().unwrap().key(), ("10.0.0.100:80/tcp", "web-2"));
        assert!(model.trace_of(("10.0.0.100:80/tcp", "web-1")).is_none());
        model.take(at(3, "dsrlb_up 1\n"));
        assert!(model.selected().is_none());
        assert!(press(&mut model, "d^v").is_empty());
    }

    #[test]
    fn keys_move_and_ask() {
        let mut model = Model::default();
        model.take(at(1, METRICS));
        assert!(press(&mut model, "d").is_empty(), "a service is not drained");
        assert_eq!(model.note.take(), Some(Err("choose a backend first".to_owned())));
        let order = |drain, backend: &str| {
            let (service, backend) = ("10.0.0.100:80/tcp".to_owned(), backend.to_owned());
            Intent::Command(Order { drain, service, backend })
        };
        assert_eq!(press(&mut model, "vd"), [order(true, "web-1")]);
        assert_eq!(press(&mut model, "ju"), [order(false, "web-2")]);
        press(&mut model, "$v");
        assert_eq!(model.selected().unwrap().key(), ("[fd00::100]:443/tcp", ""));
        press(&mut model, "0k");
        assert_eq!(model.cursor(), 0);
        assert_eq!(press(&mut model, "xq"), [Intent::Quit]);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(model.key(interrupt), Some(Intent::Quit));
    }
}
