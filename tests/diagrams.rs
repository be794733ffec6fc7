//! The diagrams in `docs/diagrams/` are drawn from the text beside them. `DSRLB_PICTURE=write` draws them again.

use dsrlb::forwarding::Forwarding;
use pikchr::{Pikchr, PikchrFlags};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The descriptions, in Pikchr (<https://pikchr.org>).
fn descriptions() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("docs/diagrams")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "pikchr")).collect()
}

/// The picture of a description. Pikchr leaves the font to the page around; in a file of its own there is none.
fn draw(description: &Path) -> String {
    let text = fs::read_to_string(description).unwrap();
    let svg = Pikchr::render(&text, None, PikchrFlags::default())
        .unwrap_or_else(|error| panic!("{}: {error}", description.display()));
    svg.replacen("style='font-size:initial;'", "font-family='sans-serif' font-size='16'", 1)
}

#[test]
fn each_picture_is_what_its_description_says() {
    let descriptions = descriptions();
    assert_eq!(descriptions.len(), 3);
    for description in descriptions {
        let svg = draw(&description);
        let picture = description.with_extension("svg");
        if std::env::var_os("DSRLB_PICTURE").is_some_and(|what| what == "write") {
            fs::write(&picture, &svg).unwrap();
        }
        let drawn = fs::read_to_string(&picture).unwrap_or_default();
        assert!(
            drawn == svg,
            "{} is stale: DSRLB_PICTURE=write cargo test --test diagrams, and look at it",
            picture.display()
        );
    }
}

#[test]
fn each_picture_is_shown() {
    let pages = ["README.md", "ARCHITECTURE.md", "docs/forwarding.md"];
    let text: String =
        pages.iter().map(|page| fs::read_to_string(root().join(page)).unwrap()).collect();
    for description in descriptions() {
        let name = description.with_extension("svg");
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("diagrams/{name})")), "no page shows {name}");
    }
}

#[test]
fn the_headers_are_as_long_as_the_picture_says() {
    let text = fs::read_to_string(root().join("docs/diagrams/tunnels.pikchr")).unwrap();
    for (mode, label) in
        [("ipip", "ipip"), ("gue1:1", "gue, variant 1"), ("gue:1", "gue, variant 0")]
    {
        let Ok(Forwarding::Tunnel(tunnel)) = mode.parse() else { panic!("{mode}") };
        let (_, row) = text.split_once(&format!("mode(\"{label}\"")).unwrap();
        let (row, _) = row.split_once("\n\n").unwrap();
        let more = format!(
            "more(\"+ {} bytes (IPv6: {})\")",
            tunnel.overhead(false),
            tunnel.overhead(true)
        );
        assert!(row.ends_with(&more), "{label}: {more} in {row}");
    }
}
