//! What the fuzz target for configuration files checks. By itself, as it needs feature `file`.

use dsrlb::config::file::ConfigFile;
use dsrlb::config::{Host, Limits, check};

/// Any text is either refused with something to say, or makes a configuration that can be checked;
/// what is said is short, and fit for a terminal.
pub fn check_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let refused = match ConfigFile::parse(&text) {
        Err(error) => Err(error),
        Ok(file) => file.to_config().and_then(|config| {
            let dataplane = file.dataplane.as_ref();
            let host = Host {
                addresses: vec!["10.0.0.1/24".parse().expect("a prefix")],
                tunnel_sources: dataplane.map(|of| of.tunnel_sources()).unwrap_or_default(),
                probe_sources: dataplane.map(|of| of.probe_sources()).unwrap_or_default(),
            };
            let limits = dataplane.map_or(Limits::default(), |of| of.limits());
            check(&config, &host, &limits)
        }),
    };
    let Err(error) = refused else {
        return;
    };
    assert!(!error.problems().is_empty());
    for problem in error.problems() {
        let text = problem.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.chars().count() < 2_000, "{text:?}");
    }
}
