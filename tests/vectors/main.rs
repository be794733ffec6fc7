//! The published test vectors: `README.md` beside this file says what is in them.
//!
//! Tables are for ever, so a difference is a fault unless there is a new case. Write the files anew
//! with `DSRLB_VECTORS=write cargo test --test vectors` and review the difference.

#[path = "../support/skip.rs"]
mod skip;
mod tables;

use dsrlb::balancer::{Maglev, Rendezvous};
use dsrlb::flow::{FiveTuple, HashInput, HashKey, Protocol};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tables::{Pool, case, named};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Compares cases with a file, one case a line, or writes the file.
fn hold(name: &str, cases: &[Value]) {
    let mut text = String::from("[\n");
    for (number, case) in cases.iter().enumerate() {
        let comma = if number + 1 < cases.len() { "," } else { "" };
        writeln!(text, "{case}{comma}").unwrap();
    }
    text.push_str("]\n");
    let path = folder().join(name);
    if std::env::var_os("DSRLB_VECTORS").is_some_and(|mode| mode == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    for (number, (is, was)) in text.lines().zip(known.lines()).enumerate() {
        assert!(is == was, "{name}, line {}: is\n{is}\nand was\n{was}", number + 1);
    }
    assert_eq!(text.lines().count(), known.lines().count(), "{name}");
}

#[test]
fn hashes_are_those_published() {
    let keys = ["6473726c622064656661756c74203031", "000102030405060708090a0b0c0d0e0f"];
    let flows = [
        ("192.0.2.1", "198.51.100.7", 40_000, 443, Protocol::TCP),
        ("203.0.113.255", "198.51.100.7", 1, 53, Protocol::UDP),
        ("0.0.0.1", "255.255.255.254", 65_535, 65_535, Protocol::SCTP),
        ("192.0.2.1", "198.51.100.7", 0, 0, Protocol::ESP),
        ("2001:db8::1", "2001:db8::7", 40_000, 443, Protocol::TCP),
        ("2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa", "fd00::100", 5_353, 53, Protocol::UDP),
        ("2001:db8::1", "2001:db8::7", 0, 0, Protocol(255)),
    ];
    let mut cases = Vec::new();
    for key in keys {
        for (source, destination, source_port, destination_port, protocol) in flows {
            let address = |text: &str| text.parse::<IpAddr>().unwrap();
            let flow = FiveTuple {
                source: address(source),
                destination: address(destination),
                source_port,
                destination_port,
                protocol,
            };
            for (name, input) in HashInput::NAMES {
                let hash = key.parse::<HashKey>().unwrap().hash_flow(input, &flow);
                let slots = [1, 2, 251, 65_536, 65_537, 655_373, 8_388_593];
                cases.push(json!({
                    "key": key, "input": name, "source": source, "destination": destination,
                    "source-port": source_port, "destination-port": destination_port,
                    "protocol": protocol.0, "hash": format!("{:016x}", hash.0),
                    "slots": slots.map(|size| [size, hash.slot(size)]),
                }));
            }
        }
    }
    hold("hash.json", &cases);
}

#[test]
fn maglev_tables_are_those_published() {
    let long = format!("backend-{}", "x".repeat(300));
    let many = |weights: &[u16]| Pool::Rule { count: 1000, weights: weights.to_vec() };
    let cases = [
        (31, named(&[])),
        (31, named(&[("only", 7)])),
        (31, named(&[("10.0.0.13", 1), ("10.0.0.11", 1), ("10.0.0.12", 1)])),
        (251, named(&[("10.0.0.11", 1), ("10.0.0.12", 2), ("10.0.0.13", 5), ("off", 0)])),
        (251, named(&[("z", 1), ("Größe", 1), ("東京", 1), ("a b", 1), (&long, 1)])),
        (2, named(&[("a", 1), ("b", 1), ("c", 1)])),
        (65_537, named(&[("10.0.0.11", 1), ("10.0.0.12", 1), ("10.0.0.13", 1)])),
        (65_537, named(&[("heavy", 1000), ("light", 1)])),
        (65_537, named(&[("fd00::11", 65_535), ("fd00::12", 65_534), ("fd00::13", 1)])),
        (65_537, many(&[1])),
        (65_537, many(&[1, 10, 100])),
        (655_373, many(&[1, 1, 1, 1, 1000])),
    ];
    let cases = cases.map(|(size, pool)| {
        let maglev = Maglev::with_table_size(size).unwrap();
        case(&pool, |candidates| maglev.table(candidates))
    });
    hold("maglev.json", &cases);
}

#[test]
fn rendezvous_tables_are_those_published() {
    let long = format!("backend-{}", "x".repeat(300));
    let cases = [
        named(&[]),
        named(&[("only", 7)]),
        named(&[("10.0.0.13", 1), ("10.0.0.11", 1), ("10.0.0.12", 1)]),
        named(&[("heavy", 1000), ("light", 1), ("off", 0)]),
        named(&[("z", 1), ("Größe", 2), ("東京", 3), ("a b", 65_535), (&long, 65_534)]),
        Pool::Rule { count: 200, weights: vec![1] },
        Pool::Rule { count: 200, weights: vec![1, 10, 100] },
    ];
    hold("rendezvous.json", &cases.map(|pool| case(&pool, |c| Rendezvous.table(c))));
}

/// Another implementation, made of the specification alone, comes to the same results.
#[test]
fn an_independent_implementation_agrees() {
    if !skip::has("python3", "--version", "python3", "to run it") {
        return;
    }
    let checked = Command::new("python3").arg(folder().join("check.py")).output().unwrap();
    let (says, errors) =
        (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    print!("{says}");
    assert!(checked.status.success(), "{says}{errors}");
    assert_eq!(says.lines().filter(|line| line.ends_with("agree")).count(), 3, "{says}");
}
