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
