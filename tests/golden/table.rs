//! How a golden table is made and compared.

use crate::support::pool;
use dsrlb::dataplane::Plan;
use dsrlb::verdict::Verdict;
use std::fmt::Write;
use std::path::Path;

/// Runs of a byte that are longer are written as one and their number.
const LONG: usize = 64;

/// What becomes of each packet, as text. `check` gets each with its verdict and all that is sent.
pub(crate) fn decide(
    plan: &Plan,
    rows: Vec<(&'static str, Vec<u8>)>,
    mut check: impl FnMut(&[u8], Verdict, &[Vec<u8>]),
) -> String {
    let mut text = String::new();
    let mut pipeline = pool::pipeline();
    for (description, input) in rows {
        let (verdict, sent) = pool::send(&mut pipeline, plan, 0, &input);
        check(&input, verdict, &sent);
        writeln!(text, "\n{description}\nin       {}", hex(&input)).unwrap();
        writeln!(text, "verdict  {}", pool::describe(plan, verdict)).unwrap();
        for frame in sent {
            writeln!(text, "out      {}", hex(&frame)).unwrap();
        }
    }
    text
}

/// Asserts that the table is the one in the tree, or writes it there.
pub(crate) fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var("DSRLB_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(path).expect("the table is in the tree");
    for (ours, theirs) in text.split("\n\n").zip(golden.split("\n\n")) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(text, golden);
}

/// `0a0b`; two hundred sevens are `07*200`, set off by spaces.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        match run {
            [byte, ..] if run.len() > LONG => write!(text, " {byte:02x}*{} ", run.len()).unwrap(),
            _ => run.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap()),
        }
    }
    text.trim_end().to_owned()
}
