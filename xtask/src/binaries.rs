//! Finds the test binaries that cargo built, and says which of them need root.

use crate::json::string_field;
use crate::{Result, process};
use std::path::PathBuf;
use std::process::Command;

/// A test target and the program cargo made of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Binary {
    pub(crate) name: String,
    kind: String,
    pub(crate) program: PathBuf,
}

impl Binary {
    /// Whether these tests make network namespaces and load XDP programs.
    pub(crate) fn needs_root(&self) -> bool {
        self.is_integration_test() && (self.name.starts_with("netns_") || self.name == "lab")
    }

    pub(crate) fn is_integration_test(&self) -> bool {
        self.kind == "test"
    }
}

/// Builds, with the `cargo test` command given, and returns the test binaries without running them.
pub(crate) fn build(cargo_test: &mut Command) -> Result<Vec<Binary>> {
    let messages =
        process::output(cargo_test.args(["--no-run", "--message-format=json-render-diagnostics"]))?;
    Ok(messages.lines().filter_map(parse).collect())
}

/// The test binary that one line of cargo's JSON messages tells of, if it tells of one. Libraries and programs built
/// for the tests to use have a profile whose `test` is false.
fn parse(message: &str) -> Option<Binary> {
    let (_, profile) = message.split_once(r#""profile":{"#)?;
    let (profile, _) = profile.split_once('}')?;
    if !profile.contains(r#""test":true"#) {
        return None;
    }
    let (_, target) = message.split_once(r#""target":{"kind":[""#)?;
    let (kind, target) = target.split_once('"')?;
    let program = string_field(message, "executable")?;
    Some(Binary { name: string_field(target, "name")?, kind: kind.into(), program: program.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTIFACT: &str = concat!(
        r#"{"reason":"compiler-artifact","package_id":"path+file:///d#dsrlb@0.1.0","manifest_path":"/d/Cargo.toml","#,
        r#""target":{"kind":["test"],"crate_types":["bin"],"name":"netns_dsr","src_path":"/d/tests/netns_dsr.rs","#,
        r#""edition":"2024","doc":false,"doctest":false,"test":true},"profile":{"opt_level":"0","debuginfo":2,"#,
        r#""debug_assertions":true,"overflow_checks":true,"test":true},"features":["af-xdp"],"filenames":[],"#,
        r#""executable":"/d/a \"b\"/netns_dsr-1f","fresh":true}"#,
    );

    #[test]
    fn an_integration_test_is_found_with_its_program() {
        let binary = parse(ARTIFACT).unwrap();
        assert_eq!(binary.name, "netns_dsr");
        assert_eq!(binary.program, PathBuf::from(r#"/d/a "b"/netns_dsr-1f"#));
        assert!(binary.is_integration_test() && binary.needs_root());
    }

    #[test]
    fn what_is_not_a_test_binary_is_passed_over() {
        let example = ARTIFACT.replace(
            r#""overflow_checks":true,"test":true"#,
            r#""overflow_checks":true,"test":false"#,
        );
        assert_eq!(parse(&example), None);
        assert_eq!(
            parse(&ARTIFACT.replace(r#""executable":"/d"#, r#""executable":null,"x":"/d"#)),
            None
        );
        assert_eq!(parse(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn only_the_namespace_tests_and_the_lab_need_root() {
        let named = |kind, name: &str| {
            parse(&ARTIFACT.replace(r#""test"],"#, kind).replace("netns_dsr\",", name)).unwrap()
        };
        assert!(named(r#""test"],"#, "lab\",").needs_root());
        assert!(!named(r#""test"],"#, "labels\",").needs_root());
        assert!(!named(r#""lib"],"#, "lab\",").needs_root());
    }
}
