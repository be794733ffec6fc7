//! The page on metrics and the dashboard know what is exported, and nothing else.

use super::tests::{empty, key, with};
use super::*;
use crate::dataplane::Idle;
use crate::dataplane::af_xdp::{DeviceStats, RedirectStats};
use crate::director::stats::{self, BackendStatus};
use crate::health::ProbeCounts;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// By name, what it is and the labels of its series.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn text() -> String {
    let probes = Some(ProbeCounts { last: Some(Duration::from_millis(1)), ..Default::default() });
    let well = BackendStatus { probes, ..stats::tests::backend(key(1), "b1") };
    let idle = Some(Idle::Unhealthy("refused".to_owned()));
    let ill = BackendStatus { idle, ..stats::tests::backend(key(2), "b1") };
    let full = with(vec![well, ill], [key(1), key(2), key(3)].into_iter());
    prometheus_text(Stats {
        redirect: Some(RedirectStats::default()),
        devices: vec![DeviceStats::default()],
        ..Stats { services: full.services, backends: full.backends, ..empty() }
    })
}

/// Names and values of the labels of a series, as long as no value has a quote in it.
fn labels(series: &str) -> impl Iterator<Item = (&str, &str)> {
    let inner = series.split_once('{').map_or("", |(_, rest)| rest);
    inner.split("\",").filter_map(|label| {
        let (name, value) = label.split_once("=\"")?;
        Some((name, value.split('"').next().unwrap_or_default()))
    })
}

fn exported(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let (_, known) = families.get_mut(name).unwrap();
            known.extend(labels(line).map(|(name, _)| name.to_owned()));
        }
    }
    families
}

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_page_has_each_metric_with_its_kind_and_labels() {
    let mut documented = Families::new();
    for row in docs("metrics.md").lines().filter(|line| line.starts_with("| `dsrlb_")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        let name = cells[1].trim_matches('`').to_owned();
        assert!(documented.insert(name, (cells[2].to_owned(), labels)).is_none(), "twice: {row}");
    }
    assert_eq!(documented, exported(&text()));
}

/// The metrics of an expression, each with what it says of labels.
fn queried(expression: &str) -> Vec<(&str, &str)> {
    let places = expression.match_indices("dsrlb_").map(|(at, _)| &expression[at..]);
    let each = places.map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let braces = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        (name, braces.unwrap_or_default())
    });
    each.collect()
}

#[test]
fn the_dashboard_asks_for_what_is_exported_alone() {
    let text = text();
    let families = exported(&text);
    let pairs: BTreeSet<_> = text.lines().flat_map(labels).collect();
    let dashboard: serde_json::Value = serde_json::from_str(&docs("grafana.json")).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!targets.is_empty() || panel["type"] == "row", "{panel:#}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let queried = queried(expression);
            assert!(!queried.is_empty(), "{expression}");
            let mut known = BTreeSet::new();
            for (name, braces) in queried {
                let (_, labels) = families.get(name).unwrap_or_else(|| panic!("no {name}"));
                known.extend(labels.iter().map(String::as_str));
                for condition in braces.split(',').filter(|of| !of.is_empty()) {
                    let label = condition.split(['=', '!', '~']).next().unwrap();
                    let value = condition.split('"').nth(1).unwrap();
                    // Those of a variable are whatever there is; `instance` is Prometheus's own.
                    let mut values = value.split('|');
                    let is_there = value.starts_with('$')
                        || values.all(|value| pairs.contains(&(label, value)));
                    assert!(labels.contains(label) || label == "instance", "{expression}: {label}");
                    assert!(is_there, "{expression}: {value}");
                }
                asked.insert(name.to_owned());
            }
            // What it sums by, and what the legend names, is a label of it.
            let sums = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
            let legend = target["legendFormat"].as_str().unwrap();
            let named = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
            for label in sums.flat_map(|list| list.split(", ")).chain(named) {
                assert!(known.contains(label) || label == "instance", "{expression}: {label}");
            }
        }
    }
    // Those of variables, too.
    assert!(queried(&docs("grafana.json")).iter().all(|(name, _)| families.contains_key(*name)));
    for needed in ["backend_packets_total", "dropped_frames_total", "backend_state", "flows"] {
        assert!(asked.contains(&format!("dsrlb_{needed}")), "{needed}");
    }
    assert!(docs("grafana.json").contains("ring-full"));
}
