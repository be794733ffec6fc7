//! Replays the committed fuzz corpus: whatever once broke a target is looked at on every run.

mod support;

#[cfg(feature = "file")]
#[path = "support/config.rs"]
mod config;

use std::fs;
use std::path::Path;
use support::{beyond, changes_model, flow_model, harness};

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is in the tree") {
        let path = entry.unwrap().path();
        check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 3, "{inputs} inputs in {}", corpus.display());
}

#[test]
fn parse() {
    replay("parse", harness::check_parse);
}

#[test]
fn rewrite() {
    replay("rewrite", harness::check_rewrite);
}

#[test]
fn maglev() {
    replay("maglev", harness::check_maglev);
}

#[test]
fn quic() {
    replay("quic", harness::check_quic);
}

#[test]
fn encapsulate() {
    replay("encapsulate", beyond::check_encapsulate);
}

#[test]
fn icmp() {
    replay("icmp", beyond::check_icmp);
}

#[test]
fn fragments() {
    replay("fragments", beyond::check_fragments);
}

#[test]
fn flow_changes() {
    replay("flow_changes", changes_model::check_changes);
}

#[test]
fn flow_table() {
    replay("flow_table", flow_model::check_flow_table);
}

#[cfg(feature = "file")]
#[test]
fn config() {
    replay("config", config::check_config);
}
