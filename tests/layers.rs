//! The direction of the layers, and where `unsafe` may be: read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources_of(module: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let file = root.join(format!("{module}.rs"));
    if file.exists() {
        found.push(file);
    } else {
        sources(&root.join(module), &mut found);
    }
    assert!(!found.is_empty(), "there is no module {module}");
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).unwrap());
    found.into_iter().map(read).collect()
}

/// The modules of this crate that the code names in its `use` declarations and paths; what comments
/// point to does not count.
fn named(source: &str) -> Vec<&str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = code.flat_map(|line| line.split("crate::").skip(1));
    after
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn each_layer_names_only_those_below_it() {
    for (module, may_use) in [
        ("error", &[][..]),
        ("addresses", &[]),
        ("verdict", &[]),
        ("flow", &["error", "verdict"]),
        ("forwarding", &["error"]),
        ("packet", &["error", "flow", "forwarding", "verdict"]),
        ("balancer", &["addresses", "error", "flow", "forwarding", "text", "verdict"]),
        ("health", &["error", "flow", "packet", "text"]),
        (
            "dataplane",
            &[
                "addresses",
                "balancer",
                "error",
                "flow",
                "forwarding",
                "health",
                "packet",
                "verdict",
            ],
        ),
        (
            "config",
            &[
                "balancer",
                "dataplane",
                "error",
                "flow",
                "forwarding",
                "health",
                "packet",
                "text",
                "verdict",
            ],
        ),
        ("setup_guide", &["balancer", "config", "error", "flow", "forwarding"]),
    ] {
        for (path, source) in sources_of(module) {
            for name in named(&source).into_iter().filter(|name| *name != module) {
                assert!(may_use.contains(&name), "{path} names {name}, which {module} may not");
            }
        }
    }
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    for module in [
        "flow",
        "forwarding",
        "packet",
        "balancer",
        "config",
        "setup_guide",
        "verdict",
        "doctor/judge",
    ] {
        // What waits for configurations and reads files is in one place.
        let is_pure = |(path, _): &(String, String)| !path.contains("src/config/source/");
        for (path, source) in sources_of(module).into_iter().filter(is_pure) {
            let code = source.split("#[cfg(test)]").next().unwrap();
            let code: Vec<_> =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            for forbidden in
                ["std::fs", "std::io", "std::thread", "Instant", "SystemTime", "UdpSocket"]
            {
                assert!(!code.contains(forbidden), "{path} uses {forbidden}");
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_one_place_and_forbidden_elsewhere() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    for path in all {
        let source = fs::read_to_string(&path).unwrap();
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_unsafe = code.filter(|line| !line.contains("unsafe_code")).any(|line| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
        });
        let allowed = path.to_string_lossy().contains("dataplane/af_xdp/");
        assert!(!is_unsafe || allowed, "{} has unsafe code", path.display());
    }
    for module in ["balancer", "config", "director", "doctor", "health", "packet", "setup_guide"] {
        let sources = sources_of(module);
        let forbids = sources.iter().any(|(_, source)| source.contains("#![forbid(unsafe_code)]"));
        assert!(forbids, "{module} does not forbid unsafe code");
    }
}

/// What workers share is read by all of them at once: if nothing in it can change behind a shared reference, no packet
/// writes to it. (A backend or a selector of the embedder's own is the embedder's to keep like that.)
#[test]
fn nothing_that_snapshots_are_made_of_changes_behind_a_shared_reference() {
    let cells = ["Cell", "Mutex", "RwLock", "OnceLock", "LazyLock", "Condvar", "ArcSwap"];
    let modules = [
        "balancer",
        "flow",
        "forwarding",
        "packet",
        "verdict",
        "dataplane/snapshot",
        "dataplane/next_hops",
    ];
    for (path, source) in modules.iter().flat_map(|module| sources_of(module)) {
        let code: Vec<_> =
            source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let words = code.iter().flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
        for word in words {
            let changes =
                word.starts_with("Atomic") || cells.iter().any(|cell| word.ends_with(cell));
            assert!(!changes, "{path} uses {word}");
        }
    }
}
