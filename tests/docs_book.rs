//! The pages of `docs/` are in the book, lead somewhere, and show configurations that are taken.

use dsrlb::config::file::ConfigFile;
use std::fs;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Each page with its text.
fn pages() -> Vec<(String, String)> {
    let names = fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names
        .filter(|name| name.ends_with(".md"))
        .map(|name| (name.clone(), fs::read_to_string(docs().join(name)).unwrap()))
        .collect()
}

/// What `[text](link)` leads to, without what is not in this tree.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = ends.map(|link| link.split('#').next().unwrap_or_default());
    files.filter(|link| !link.is_empty() && !link.contains("://"))
}

#[test]
fn each_page_is_in_the_book_once_and_each_link_leads_somewhere() {
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    let pages = pages();
    assert!(pages.len() > 10);
    for (name, text) in &pages {
        let times = links(&summary).filter(|link| link == name).count();
        assert_eq!(times, usize::from(name != "SUMMARY.md"), "{name} in SUMMARY.md");
        for link in links(text) {
            assert!(docs().join(link).exists(), "{name}: {link} leads nowhere");
            assert!(!link.contains(".."), "{name}: {link} is not in the book once it is built");
        }
    }
}

#[test]
fn each_service_that_a_page_shows_is_a_configuration() {
    let mut shown = 0;
    for (name, text) in pages() {
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("[[service]]")) {
            let parsed = ConfigFile::parse(block);
            assert!(parsed.is_ok(), "{name}: {:?}\n{block}", parsed.err());
            shown += 1;
        }
    }
    assert!(shown >= 3, "only {shown} blocks were found");
}

/// The settings that the prose of a line names between backticks. One that comes again begins another configuration.
fn settings(line: &str) -> Vec<Vec<&str>> {
    let spans = line.split('`').skip(1).step_by(2);
    let mut all: Vec<Vec<&str>> = Vec::new();
    for span in spans {
        let Some((key, _)) = span.split_once(" = ") else { continue };
        let again = |of: &Vec<&str>| of.iter().any(|other| other.split(' ').next() == Some(key));
        match all.last_mut() {
            Some(last) if !again(last) => last.push(span),
            _ => all.push(vec![span]),
        }
    }
    all
}

#[test]
fn each_setting_that_migrating_names_is_taken() {
    let text = fs::read_to_string(docs().join("migrating.md")).unwrap();
    let mut taken = 0;
    for line in text.split("```").step_by(2).flat_map(str::lines) {
        assert_eq!(line.matches('`').count() % 2, 0, "a line ends within backticks: {line}");
        // Without the heading that says what a setting looks like.
        for settings in settings(line).iter().filter(|of| **of != ["key = value"]) {
            let of_backend =
                |setting: &&str| setting.starts_with("forward") || setting.starts_with("admin");
            let (backend, mut service): (Vec<&str>, Vec<&str>) =
                settings.iter().copied().partition(of_backend);
            if !service.iter().any(|setting| setting.starts_with("vip")) {
                service.push("vip = \"10.0.0.100:443/tcp\"");
            }
            let file = format!(
                "[[service]]\n{}\n[[service.backend]]\naddress = \"10.0.0.11\"\n{}\n",
                service.join("\n"),
                backend.join("\n")
            );
            let parsed = ConfigFile::parse(&file);
            assert!(parsed.is_ok(), "{:?}\n{file}", parsed.err());
            taken += settings.len();
        }
    }
    assert!(taken > 10, "only {taken} settings were found");
}
