//! From what was seen to what is said about it. Pure.

mod backends;
mod host;
mod links;
mod offloads;
mod services;
mod trial;
mod vips;

use super::catalogue::{CONFIG, NOT_LOOKED_AT};
use super::observed::Observed;
use super::{Checkup, Diagnosis, Finding, Severity};

/// Judges everything that was seen.
pub(super) fn judge(checkup: &Checkup, seen: &Observed) -> Diagnosis {
    let mut notes = Notes::default();
    host::judge(checkup, seen, &mut notes);
    for link in &seen.links {
        links::judge(checkup, link, &mut notes);
    }
    trial::judge(checkup, seen, &mut notes);
    if !seen.vips.held.is_empty() {
        config(checkup, seen, &mut notes);
        vips::judge(checkup, seen, &mut notes);
    }
    backends::judge(checkup, seen, &mut notes);
    services::judge(checkup, seen, &mut notes);
    for unseen in &seen.unseen {
        notes.warn(NOT_LOOKED_AT, &unseen.what, &unseen.why, &unseen.remedy);
    }
    let not_looked_at = seen.unseen.iter().map(|unseen| unseen.what.clone()).collect();
    Diagnosis { findings: notes.0, not_looked_at }
}

fn config(checkup: &Checkup, seen: &Observed, notes: &mut Notes) {
    if let Err(error) = checkup.check(&seen.vips) {
        for problem in error.problems() {
            let evidence = format!("{}: {}", problem.value, problem.expected);
            notes.error(CONFIG, &problem.path, evidence, "");
        }
    }
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Notes(Vec<Finding>);

impl Notes {
    fn say(
        &mut self,
        id: &'static str,
        severity: Severity,
        subject: impl ToString,
        evidence: impl ToString,
        remedy: impl ToString,
    ) {
        let (subject, evidence) = (subject.to_string(), evidence.to_string());
        let remedy = remedy.to_string();
        self.0.push(Finding { id, severity, subject, evidence, remedy });
    }

    fn ok(&mut self, id: &'static str, subject: impl ToString, evidence: impl ToString) {
        self.say(id, Severity::Ok, subject, evidence, "");
    }

    fn warn(
        &mut self,
        id: &'static str,
        subject: impl ToString,
        evidence: impl ToString,
        remedy: impl ToString,
    ) {
        self.say(id, Severity::Warning, subject, evidence, remedy);
    }

    fn error(
        &mut self,
        id: &'static str,
        subject: impl ToString,
        evidence: impl ToString,
        remedy: impl ToString,
    ) {
        self.say(id, Severity::Error, subject, evidence, remedy);
    }

    fn has_complaint(&self, id: &str) -> bool {
        self.0.iter().any(|finding| finding.id == id && finding.severity > Severity::Ok)
    }
}

/// For the tests of what judges.
#[cfg(test)]
mod trying {
    use super::{Checkup, Observed, judge};
    use crate::doctor::Severity;
    use crate::doctor::observed::{Link, Properties};

    /// An interface that is well, named `eth0`.
    pub(super) fn link() -> Properties {
        Properties { index: 2, up: true, carrier: true, mtu: 1500, ..Properties::default() }
    }

    pub(super) fn seen(there: Properties) -> Observed {
        let link = Link { name: "eth0".to_owned(), there: Some(there) };
        Observed { links: vec![link], ..Observed::default() }
    }

    /// What is said of that kind, without what is well: how bad, and what to type.
    pub(super) fn complaints(
        id: &str,
        checkup: &Checkup,
        seen: &Observed,
    ) -> Vec<(Severity, String)> {
        let diagnosis = judge(checkup, seen);
        diagnosis.complaints(id).map(|f| (f.severity, f.remedy.clone())).collect()
    }
}
