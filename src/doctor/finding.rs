//! What the doctor says.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// It was looked at and is well.
    Ok,
    /// Worth knowing.
    Info,
    /// A director would run, and serve worse than it could, or surprise.
    Warning,
    /// A director would not start, or clients would not be served.
    Error,
}

named!(
    Severity,
    "severity",
    "ok, info, warning or error",
    ["ok" => Ok, "info" => Info, "warning" => Warning, "error" => Error]
);

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Finding {
    /// Of what kind; one of [`FINDINGS`](super::FINDINGS).
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: an interface, a backend, a VIP, or the host.
    pub subject: String,
    /// What was seen.
    pub evidence: String,
    /// What to type, where that is possible as commands for a shell; where not on this host, after `on HOST:`
    /// in the evidence. Empty if nothing is to be done.
    pub remedy: String,
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Diagnosis {
    /// In the order in which it was looked at: the host, its interfaces, the VIPs, the backends.
    pub findings: Vec<Finding>,
    /// What could not be looked at; of each there is a finding that says why.
    pub not_looked_at: Vec<String>,
}

impl Diagnosis {
    /// The highest severity; none if nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// The findings with this identifier that are not just well.
    pub fn complaints<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Finding> {
        self.findings.iter().filter(move |f| f.id == id && f.severity != Severity::Ok)
    }
}

impl fmt::Display for Diagnosis {
    /// A line for each finding, in columns, and below it what to type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Finding) -> &str| {
            self.findings.iter().map(|finding| text(finding).chars().count()).max().unwrap_or(0)
        };
        let (ids, subjects) = (width(|finding| finding.id), width(|finding| &finding.subject));
        for (number, finding) in self.findings.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let Finding { id, severity, subject, evidence, remedy } = finding;
            let severity = severity.to_string();
            write!(f, "{severity:<7}  {id:<ids$}  {subject:<subjects$}  {evidence}")?;
            for line in remedy.lines() {
                write!(f, "\n{:<7}  > {line}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &'static str, severity: Severity, remedy: &str) -> Finding {
        let (subject, evidence) = ("eth0".to_owned(), "seen".to_owned());
        Finding { id, severity, subject, evidence, remedy: remedy.to_owned() }
    }

    #[test]
    fn the_text_is_in_columns_with_what_to_type_below() {
        let findings = vec![
            finding("lro", Severity::Warning, "ethtool -K eth0 lro off\nanother"),
            finding("carrier", Severity::Ok, ""),
        ];
        let diagnosis = Diagnosis { findings, not_looked_at: Vec::new() };
        let expected = "warning  lro      eth0  seen\n         > ethtool -K eth0 lro off\n         \
                        > another\nok       carrier  eth0  seen";
        assert_eq!(diagnosis.to_string(), expected);
        assert_eq!(diagnosis.worst(), Some(Severity::Warning));
        assert_eq!(diagnosis.complaints("lro").count(), 1);
        assert_eq!(diagnosis.complaints("carrier").count(), 0);
        assert_eq!(Diagnosis::default().worst(), None);
    }

    #[cfg(feature = "file")]
    #[test]
    fn as_json_severities_are_words() {
        let findings = vec![finding("lro", Severity::Warning, "x")];
        let json = serde_json::to_value(Diagnosis { findings, not_looked_at: vec![] }).unwrap();
        let expected = serde_json::json!([{
            "id": "lro", "severity": "warning", "subject": "eth0", "evidence": "seen", "remedy": "x"
        }]);
        assert_eq!(json["findings"], expected);
    }
}
