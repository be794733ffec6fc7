//! Captures as others read them.

use std::io::{ErrorKind, Write};
use std::process::Command;

/// What `xtask test` sets, having installed all that tests need.
const SKIP_NOTHING: &str = "DSRLB_SKIP_NOTHING";

/// Whether there is tshark; says that `what` is skipped if not.
pub fn has_tshark(what: &str) -> bool {
    match Command::new("tshark").arg("--version").output() {
        Ok(output) => output.status.success(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(std::env::var_os(SKIP_NOTHING).is_none(), "there is no tshark for {what}");
            // Not `println!`, which the test harness holds back.
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no tshark for {what}");
            false
        }
    }
}
