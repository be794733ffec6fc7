//! What has become of frames, by their comments, beside what would become of them now.

use dsrlb::dataplane::CapturedFrame;
use dsrlb::verdict::Verdict;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Frame by frame.
#[derive(Default)]
pub struct Comparison {
    compared: u64,
    /// Frames by what became of them and what would now.
    differences: BTreeMap<(String, String), u64>,
    without_verdict: u64,
    cut_off: u64,
    probes: u64,
}

impl Comparison {
    /// Notes a frame whose verdict is now `now`. Returns what it was, if that is another.
    pub fn note<'a>(&mut self, frame: &'a CapturedFrame, now: &str) -> Option<&'a str> {
        // Somebody may have added a remark.
        let verdicts = frame.comments.iter().map(String::as_str).filter_map(Verdict::words_in);
        let Some(was) = { verdicts }.next() else {
            self.without_verdict += 1;
            return None;
        };
        if frame.is_cut_off() {
            // It was judged as a whole.
            self.cut_off += 1;
            return None;
        }
        // Which address probes are from is the host's to say, unless the configuration does. They are nobody's traffic.
        if was == Verdict::Probe.in_words(|_| String::new()) {
            self.probes += 1;
            return None;
        }
        self.compared += 1;
        if was == now {
            return None;
        }
        *self.differences.entry((was.to_owned(), now.to_owned())).or_default() += 1;
        Some(was)
    }

    /// How many frames had another verdict.
    pub fn differ(&self) -> u64 {
        self.differences.values().sum()
    }

    /// Whether there was anything to compare.
    pub fn is_empty(&self) -> bool {
        self.compared == 0
    }

    /// Says what came of it.
    pub fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let (compared, differ) = (self.compared, self.differ());
        writeln!(out, "\ncompared: {compared} frames, {differ} of them differ")?;
        if differ > 0 {
            let width = |side: fn(&(String, String)) -> &String| {
                self.differences.keys().map(|key| side(key).chars().count()).max().unwrap_or(0)
            };
            let (left, right) = (width(|(was, _)| was).max(3), width(|(_, now)| now).max(3));
            writeln!(out, "{:left$}  {:right$}  frames", "was", "now")?;
            for ((was, now), frames) in &self.differences {
                writeln!(out, "{was:left$}  {now:right$}  {frames:>6}")?;
            }
        }
        for (count, why) in [
            (self.without_verdict, "have no verdict as their comment"),
            (self.cut_off, "were cut off when they were captured"),
            (self.probes, "are answers to the director's own probes"),
        ] {
            if count > 0 {
                writeln!(out, "not compared: {count} frames that {why}")?;
            }
        }
        Ok(())
    }
}
