//! The Rust version the project asks for is said in two places; they have to agree with each other and with the truth.

use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("reading {name} in the root of the tree: {error}"))
}

/// The minor version in `1.MINOR`, at the start of `text`.
fn minor(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("1.")?;
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

fn manifest_minor() -> u32 {
    let manifest = read("Cargo.toml");
    let (_, version) =
        manifest.split_once("rust-version = \"").expect("Cargo.toml has a rust-version");
    minor(version).expect("rust-version is 1.something")
}

#[test]
fn the_manifest_does_not_ask_for_a_newer_rust_than_this_one() {
    let output = Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8(output.stdout).expect("rustc prints UTF-8");
    let running = version.strip_prefix("rustc ").and_then(minor);
    let running = running.expect("rustc --version begins with `rustc 1.`");
    assert!(
        manifest_minor() <= running,
        "Cargo.toml asks for Rust 1.{}, this is {version}",
        manifest_minor()
    );
}

#[test]
fn the_readme_names_no_other_rust_than_the_manifest() {
    let readme = read("README.md");
    for (_, rest) in
        readme.match_indices("Rust 1.").map(|(at, _)| readme[at..].split_at("Rust ".len()))
    {
        assert_eq!(
            minor(rest),
            Some(manifest_minor()),
            "README.md says Rust {}",
            rest.lines().next().unwrap_or("")
        );
    }
}
