//! A test for which something is missing is skipped in words; but not for want of a program where `xtask` has installed it.

#[path = "support/skip.rs"]
mod skip;

use std::process::{Command, Output};

/// Set for the copy of this program that has to do without: what it lacks.
const CHILD: &str = "DSRLB_TEST_CHILD";
const PROGRAM: &str = "dsrlb-no-such-program";

#[test]
fn what_is_missing() {
    match std::env::var(CHILD).as_deref() {
        Ok("absent") => assert!(!skip::has(PROGRAM, "--version", "its-package", "to see")),
        Ok("broken") => assert!(!skip::has("false", "--version", "its-package", "to see")),
        Ok("kernel") => skip::kernel_cannot("this kernel has no such devices"),
        Ok(other) => panic!("{other}"),
        Err(_) => assert!(skip::has("true", "--version", "coreutils", "to see")),
    }
}

fn lacking(what: &str, may_lack: Option<&str>) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "what_is_missing", "--nocapture"]).env(CHILD, what);
    match may_lack {
        Some(packages) => child.env("DSRLB_MAY_LACK", packages),
        None => child.env_remove("DSRLB_MAY_LACK"),
    };
    child.output().unwrap()
}

#[test]
fn a_missing_program_fails_a_test_where_it_could_be_installed_and_a_kernel_never_does() {
    for may_lack in [None, Some("its-package"), Some("bpftool its-package")] {
        for what in ["absent", "broken"] {
            let output = lacking(what, may_lack);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what} {may_lack:?}: {said}");
            assert!(said.contains("SKIPPED: there is no ") && said.contains(" to see"), "{said}");
            assert!(said.contains("(package its-package)"), "{said}");
        }
    }
    for may_lack in ["", "bpftool its-package-2"] {
        for what in ["absent", "broken"] {
            let output = lacking(what, Some(may_lack));
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!output.status.success() && !said.contains("SKIPPED"), "{said}");
            assert!(said.contains("which package its-package has"), "{said}");
        }
    }
    for may_lack in [None, Some("")] {
        let output = lacking("kernel", may_lack);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("SKIPPED: this kernel has no such devices"), "{said}");
    }
}
