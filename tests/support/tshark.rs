//! Captures as others read them.

use std::io::{ErrorKind, Write};
use std::process::Command;

/// What `xtask test` sets, having installed all that tests need.
const SKIP_NOTHING: &str = "DSRLB_SKIP_NOTHING";

/// Whether there is a tshark that works; says that `what` is skipped if not.
pub fn has_tshark(what: &str) -> bool {
    let why = match Command::new("tshark").arg("--version").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("no tshark that works for {what}: {output:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            format!("no tshark for {what}")
        }
    };
    assert!(std::env::var_os(SKIP_NOTHING).is_none(), "there is {why}");
    // Not `println!`, which the test harness holds back.
    let _ = writeln!(std::io::stderr(), "SKIPPED: there is {why}");
    false
}
