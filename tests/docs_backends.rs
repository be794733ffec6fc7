//! What the documentation shows as a configuration is one.

use dsrlb::balancer::{Echo, Scope};
use dsrlb::config::file::ConfigFile;
use dsrlb::flow::HashInput;
use dsrlb::forwarding::{Encapsulation, Forwarding};
use std::fs;
use std::path::Path;

/// The text of a page and its blocks of TOML.
fn page(name: &str) -> (String, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    (text, blocks)
}

#[test]
fn the_appliances_words_are_configurations_that_say_the_same() {
    let (_, blocks) = page("appliances.md");
    let files: Vec<_> = blocks.iter().map(|block| ConfigFile::parse(block).unwrap()).collect();
    let services: Vec<_> = files.iter().map(|file| file.services[0].to_service()).collect();
    let [azure, netscaler, others, f5, kemp, ipvs, katran] = &services[..] else {
        panic!("{} blocks", services.len());
    };
    // HA ports with floating IP: all protocols and ports; three tuples to choose from.
    assert_eq!((azure.key.scope(), azure.hash_input), (Scope::All, HashInput::TwoTuple));
    assert_eq!((netscaler.key.scope(), netscaler.sessionless), (Scope::All, true));
    let modes: Vec<_> = others.backends.iter().map(|backend| backend.forwarding()).collect();
    assert!(matches!(modes[..], [Forwarding::L3Dsr(_), Forwarding::Tunnel(_)]), "{modes:?}");
    assert!(f5.times.closing < f5.times.established);
    assert_eq!(kemp.times.established.as_secs(), 660);
    let modes: Vec<_> = ipvs.backends.iter().map(|backend| backend.forwarding()).collect();
    assert_eq!(modes[..2], [Forwarding::L2, Forwarding::IPIP]);
    assert!(ipvs.backends[2].weight() == 0 && ipvs.echo == Echo::Answer);
    assert!(katran.backends.iter().any(|backend| matches!(
        backend.forwarding(),
        Forwarding::Tunnel(tunnel) if matches!(tunnel.encapsulation, Encapsulation::Gue { .. })
    )));
}

#[test]
fn the_page_on_backends_has_good_configurations_and_the_right_sizes() {
    let (text, blocks) = page("backends.md");
    assert!(!blocks.is_empty());
    for block in blocks {
        ConfigFile::parse(&block).unwrap();
    }
    for (mode, name) in
        [("ipip", "`ipip`"), ("gue1:1", "`gue` variant 1"), ("gue:1", "`gue` variant 0")]
    {
        for (over_ipv6, over) in [(false, "IPv4"), (true, "IPv6")] {
            let Ok(Forwarding::Tunnel(tunnel)) = mode.parse() else { panic!("{mode}") };
            let taken = tunnel.overhead(over_ipv6);
            // Less the headers of IP and TCP.
            let (ipv4, ipv6) = (1500 - taken - 40, 1500 - taken - 60);
            let row = format!("| {name} over {over} | {taken} | {ipv4} | {ipv6} |\n");
            assert!(text.contains(&row), "{row}");
        }
    }
}
