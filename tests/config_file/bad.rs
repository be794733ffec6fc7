//! What is said of bad files.

use dsrlb::config::file::ConfigFile;

fn problems(text: &str) -> Vec<String> {
    match ConfigFile::parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().iter().map(ToString::to_string).collect(),
    }
}

const DATAPLANE: &str = "[dataplane]\ninterface = \"eth0\"\n";
const SERVICE: &str = "[[service]]\nvip = \"10.0.0.100:80/tcp\"\n";

/// A text, and what is said of it in each problem.
type Case<'a> = (String, &'a [&'a str]);

#[track_caller]
fn check(cases: &[Case<'_>]) {
    for (text, said) in cases {
        let problems = problems(text);
        assert_eq!(problems.len(), said.len(), "{text}\n{problems:#?}");
        for (problem, says) in problems.iter().zip(*said) {
            assert!(problem.contains(says), "{text}\n{problem}\n  does not say\n{says}");
        }
    }
}

#[test]
fn path_service_line_value_and_what_is_allowed_are_said() {
    let backend = format!("{DATAPLANE}{SERVICE}[[service.backend]]\naddress = \"10.0.0.11\"\n");
    let monitor = |rest: &str| format!("{SERVICE}monitor = {{ {rest} }}");
    let service = |rest: &str| format!("{SERVICE}{rest}");
    check(&[
        (
            format!("{backend}weight = 65536"),
            &[
                "service[0].backend[0].weight (service 10.0.0.100:80/tcp, line 7): 65536: expected a \
               whole number from 0 to 65535",
            ],
        ),
        (
            format!("{backend}weight = \"1\""),
            &["weight (service 10.0.0.100:80/tcp, line 7): \"1\": expected a whole"],
        ),
        (
            format!("{backend}wieght = 1"),
            &[
                "wieght (service 10.0.0.100:80/tcp, line 7): unknown key: did you mean `weight`? Allowed: id, address, weight, forward, admin, quic-server-id",
            ],
        ),
        (
            format!("{backend}zone = 1"),
            &[
                "backend[0].zone (service 10.0.0.100:80/tcp, line 7): unknown key: allowed are id, address",
            ],
        ),
        (
            format!("{backend}forward = \"l4\""),
            &[
                "forward (service 10.0.0.100:80/tcp, line 7): \"l4\": expected \"l2\", \"ipip\", { gue",
            ],
        ),
        (
            format!("{backend}forward = {{ gue = {{}} }}"),
            &[
                "backend[0].forward.gue.port (service 10.0.0.100:80/tcp, line 7): missing: is required: a whole number from 1 to 65535",
            ],
        ),
        (
            format!("{backend}forward = {{ gue = {{ port = 0 }} }}"),
            &["gue.port (service 10.0.0.100:80/tcp, line 7): 0: expected a whole number from 1"],
        ),
        (format!("{backend}forward = {{ l3dsr = {{ dscp = 0 }} }}"), &["0: 1 to 63"]),
        (
            format!("{backend}forward = {{ l3dsr = {{ dscp = 64 }} }}"),
            &["64: expected a whole number from 0 to 63"],
        ),
        (
            format!("{backend}forward = {{ l3dsr = {{ dscp = 1 }}, ipip = {{}} }}"),
            &["exactly one of ipip, gue and l3dsr"],
        ),
        (
            format!("{backend}forward = {{ ipip = {{ path-mtu = 500 }} }}"),
            &["path MTU: 500: at least 576"],
        ),
        (format!("{backend}admin = \"off\""), &["\"off\": expected enabled, draining or disabled"]),
        (format!("{backend}id = \"\\n\""), &["expected a name: 1 to 255 bytes"]),
        (format!("{backend}id = \"\""), &["\"\": expected a name: 1 to 255 bytes"]),
        (
            format!("{SERVICE}[[service.backend]]\naddress = \"10.0.0\""),
            &["\"10.0.0\": expected an IPv4 or IPv6 address"],
        ),
        (
            format!("{SERVICE}[[service.backend]]\nweight = 1"),
            &["backend[0].address (service 10.0.0.100:80/tcp, line 3): missing: is required"],
        ),
        (
            "[[service]]\nvip = \"10.0.0.100:80\"".into(),
            &[
                "service[0].vip (service 10.0.0.100:80, line 2): \"10.0.0.100:80\": expected an address or prefix",
            ],
        ),
        ("[[service]]".into(), &["service[0].vip (line 1): missing"]),
        (service("hash = \"4-tuple\""), &["expected source-ip, destination-ip, 2-tuple"]),
        (
            service("hash-key = \"0011\""),
            &[
                "hash-key (service 10.0.0.100:80/tcp, line 3): (not shown): expected 32 hexadecimal digits",
            ],
        ),
        (service("policy = \"roundrobin\""), &["expected maglev or rendezvous"]),
        (service("table-size = 65536"), &["must be a prime"]),
        (service("table-size = 251\npolicy = \"rendezvous\""), &["251: goes with policy maglev"]),
        (service("echo = true"), &["true: expected answer, drop or forward"]),
        (
            service("when-all-down = \"fallback\""),
            &["fallback (service 10.0.0.100:80/tcp, line 1): missing: is required"],
        ),
        (
            service("fallback = { address = \"10.0.0.9\" }"),
            &["a table of address: goes with when-all-down"],
        ),
        (
            service(
                "when-all-down = \"fallback\"\nfallback = { address = \"10.0.0.9\", weight = 0 }",
            ),
            &["fallback 10.0.0.9: weight: 0: 1 to 65535"],
        ),
        (
            monitor("kind = \"icmp\""),
            &["monitor.kind (service 10.0.0.100:80/tcp, line 3): \"icmp\": expected http"],
        ),
        (
            monitor("kind = \"ping\", interval = \"0s\""),
            &[
                "monitor.interval (service 10.0.0.100:80/tcp, line 3): \"0s\": must be from 10ms",
                "monitor.timeout (service 10.0.0.100:80/tcp, line 3): missing: must be above 0",
            ],
        ),
        (monitor("kind = \"ping\", interval = 5"), &["5: expected a time with its unit"]),
        (
            monitor("kind = \"ping\", timeout = \"2s\""),
            &[
                "monitor.timeout (service 10.0.0.100:80/tcp, line 3): \"2s\": must be above 0 and at most the interval, 1s",
            ],
        ),
        (monitor("kind = \"ping\", rise = 0"), &["0: expected a whole number from 1"]),
        (monitor("kind = \"tcp\", path = \"/\""), &["\"/\": goes with http, https, not tcp"]),
        (monitor("kind = \"http\", path = \"x\""), &["begins with a slash"]),
        (monitor("kind = \"http\", path = \"/ HTTP/1.1\\r\\n\""), &["begins with a slash"]),
        (monitor("kind = \"http\", method = \"GET /\""), &["letters alone"]),
        (monitor("kind = \"http\", host = \"a\\r\\nb\""), &["a name, or an address"]),
        (monitor("kind = \"http\", status = 99"), &["99: expected a status from 100 to 599"]),
        (monitor("kind = \"http\", status = \"300-200\""), &["expected a status from 100 to 599"]),
        (monitor("kind = \"udp\", request = \"hex:0\""), &["expected a text, or bytes"]),
        (monitor("kind = \"neighbour\", through = \"vip\""), &["backend: a neighbour is found"]),
        (
            "[[service]]\nvip = \"10.0.0.100\"\nmonitor = { kind = \"tcp\" }".into(),
            &["`port` is required"],
        ),
    ]);
}

#[test]
fn routing_by_connection_id_is_checked() {
    const UDP: &str = "[[service]]\nvip = \"10.0.0.100:443/udp\"\n";
    let config = |rotation: u8, server_id: u8, nonce: u8| {
        format!(
            "[[service.quic-lb]]\nconfig-rotation = {rotation}\nserver-id-length = {server_id}\n\
             nonce-length = {nonce}\n"
        )
    };
    let backend = |last: u8, id: &str| {
        format!("[[service.backend]]\naddress = \"10.0.0.{last}\"\nquic-server-id = {id}\n")
    };
    let with = |parts: &[String]| format!("{UDP}{}", parts.concat());
    let keyed = |key: &str| with(&[config(0, 2, 14), format!("key = {key}")]);
    check(&[
        (with(&[config(6, 2, 14), backend(11, "\"0a1b\""), backend(12, "[\"0A1C\"]")]), &[]),
        (
            with(&[config(7, 2, 14)]),
            &[
                "service[0].quic-lb[0].config-rotation (service 10.0.0.100:443/udp, line 4): 7: 0 to 6",
            ],
        ),
        (
            with(&[config(0, 12, 8)]),
            &["nonce-length (service 10.0.0.100:443/udp, line 6): 8: server IDs of 12 bytes with"],
        ),
        (
            with(&[config(3, 2, 14), config(3, 1, 14)]),
            &[
                "quic-lb (service 10.0.0.100:443/udp, line 3): an array of 2: config rotation 3: there",
            ],
        ),
        (with(&["[[service.quic-lb]]".into()]), &["is required"; 3]),
        (
            keyed("\"8f95f0\""),
            &["key (service 10.0.0.100:443/udp, line 7): (not shown): expected 32"],
        ),
        (keyed("7"), &["(not shown): expected 32 hexadecimal digits"]),
        (keyed("\"8f95f0"), &["line 7, column 14: (not shown): is not TOML"]),
        (
            with(&[config(0, 1, 4), backend(11, "\"0a1b\"")]),
            &[
                "backend 10.0.0.11: quic-server-id: server ID 0a1b: no configuration has server IDs of 2",
            ],
        ),
        (
            with(&[config(0, 1, 4), backend(11, "\"07\""), backend(12, "\"07\"")]),
            &["backend 10.0.0.12: quic-server-id: server ID 07: backend 10.0.0.11 has it already"],
        ),
        (
            with(&[config(0, 1, 4), backend(11, "\"7\"")]),
            &["\"7\": expected 2 to 30 hexadecimal digits"],
        ),
        (
            with(&[config(0, 1, 4), backend(11, "[\"07\", 7]")]),
            &["an array of 2: expected 2 to 30 hexadecimal digits"],
        ),
        (
            with(&[backend(11, "\"07\"")]),
            &[
                "quic-lb (service 10.0.0.100:443/udp, line 1): missing: is required, as a backend has",
            ],
        ),
        (
            format!("{SERVICE}{}", config(0, 1, 4)),
            &["quic-lb (service 10.0.0.100:80/tcp, line 3): an array of 1: goes with udp, not tcp"],
        ),
    ]);
}

#[test]
fn the_data_plane_is_checked() {
    let with = |rest: &str| format!("{DATAPLANE}{rest}");
    check(&[
        ("[dataplane]".into(), &["dataplane.interface (line 1): missing: is required"]),
        (
            "dataplane = 1".into(),
            &["dataplane (line 1): 1: expected a table with any of interface"],
        ),
        ("[dataplane]\ninterface = \"a/b\"".into(), &["expected the name of an interface"]),
        (with("interfaces = [\"eth1\"]"), &["is instead of `interface`"]),
        (
            "[dataplane]\ninterfaces = [\"eth0\", 5]".into(),
            &["dataplane.interfaces[1] (line 2): 5"],
        ),
        ("[dataplane]\ninterfaces = [\"eth0\", \"eth0\"]".into(), &["an interface twice"]),
        (
            "[dataplane]\ninterfaces = [\"eth0\", \"eth1\"]\nmode = \"zero-copy\"".into(),
            &["is copied"],
        ),
        (with("mode = \"native\""), &["\"native\": expected auto, zero-copy, copy or generic"]),
        (with("queues = 0"), &["from 1 to 4294967295"]),
        (with("frames-per-queue = 100"), &["a power of two from 64"]),
        (with("polling = \"poll\""), &["\"poll\": expected sleep, busy or spin"]),
        (with("busy-poll-budget = 8"), &["8: goes with polling = \"busy\""]),
        (with("polling = \"busy\"\nbusy-poll-budget = 0"), &["from 1 to 65535"]),
        (with("flows-per-queue = 268435457"), &["268435457: a whole number from 1 to 268435456"]),
        (with("transmit-budget = 16"), &["16: 32 to `frames-per-queue`"]),
        (with("frames-per-queue = 64\ntransmit-budget = 65"), &["65: 32 to `frames-per-queue`"]),
        (with("huge-pages = 2"), &["2: expected true or false"]),
        (with("cores = \"all\""), &["\"all\": expected \"each\", or an array of numbers"]),
        (with("cores = [0, -1]"), &["dataplane.cores[1] (line 3): -1"]),
        (with("cores = [1]\nqueues = 2"), &["one core for each queue"]),
        (with("cores = [1, 1]"), &["none of them twice"]),
        (with("frame_size = 2048"), &["did you mean `frame-size`"]),
        (with("tunnel-source = [\"10.0.0.1\", \"10.0.0.2\"]"), &["at most one of each family"]),
        (with("tunnel-source = \"10.0.0.1\""), &["expected an array of items"]),
        (with("tunnel-source = [\"0.0.0.0/33\"]"), &["expected an address or a prefix"]),
    ]);
}

#[test]
fn what_is_wrong_between_services_is_found_too() {
    check(&[
        (
            format!("{SERVICE}{SERVICE}"),
            &["service 10.0.0.100:80/tcp: 10.0.0.100:80/tcp: configured twice"],
        ),
        // The most specific one gets the packet.
        (
            format!(
                "{SERVICE}[[service]]\nvip = \"10.0.0.100\"\n[[service]]\nvip = \"10.0.0.0/24\""
            ),
            &[],
        ),
        (
            format!("{SERVICE}[[service.backend]]\naddress = \"10.0.0.100\""),
            &["is covered by the VIP"],
        ),
        (
            format!(
                "{SERVICE}hash = 1\nechoo = 2\n[[service.backend]]\naddress = \"10.0.0.100\"\nweight = -1\n{SERVICE}"
            ),
            &[
                "unknown key: did you mean `echo`",
                "hash",
                "weight",
                "is covered by the VIP",
                "configured twice",
            ],
        ),
    ]);
}

#[test]
fn what_is_no_toml_is_said_with_line_and_column() {
    let cut = format!("{DATAPLANE}[[service]]\nvip = \"10.0.0.1");
    for (text, place) in [
        ("[dataplane", "line 1, column 11: `[dataplane`: is not TOML: "),
        ("a = 1\nb == 2", "line 2, column 4: `b == 2`: is not TOML: "),
        ("a = 1\na = 2", "line 2, column 1: `a = 2`: is not TOML: duplicate key"),
        (&cut, "line 4, column "),
    ] {
        let problems = problems(text);
        assert!(problems.iter().any(|problem| problem.starts_with(place)), "{problems:#?}");
    }
    let secret = problems("hash-key = \"0123456789abcdef");
    assert!(secret.iter().all(|problem| !problem.contains("0123")), "{secret:?}");
    let two = problems("a = \nb = 1\nc = [1,, 2]\n");
    assert!(two.len() >= 2, "{two:#?}");
    check(&[("service = 5".into(), &["service (line 1): 5: expected an array of items"])]);
    check(&[("[service]".into(), &["service (line 1): a table of nothing: expected an array"])]);
}

#[test]
fn neither_length_nor_number_of_problems_makes_a_message_endless() {
    let long = format!("[[service]]\nvip = \"{}\"", "x".repeat(1 << 20));
    let [problem] = problems(&long).try_into().unwrap();
    assert!(problem.len() < 600, "{}", problem.len());

    let many: String = (0..5_000).map(|n| format!("key{n} = 1\n")).collect();
    let found = problems(&many);
    assert_eq!(found.len(), 1_001);
    assert_eq!(found[1_000], "the file: 4000 more problems: the first 1000 are listed");

    let many: String = (0..200_000).map(|n| format!("{n} == 1\n")).collect();
    assert_eq!(problems(&many).len(), 1_001);
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(!problems(&deep).is_empty());
    let large = "#".repeat(ConfigFile::MAX_LENGTH + 1);
    assert!(problems(&large)[0].contains("at most 16777216 bytes"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let found = problems("[[service]]\nvip = \"\\u001b[2J\\n\"\n\"\\u001b\" = 1");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().all(|problem| !problem.contains(char::is_control)), "{found:#?}");
}

/// What only the monitor itself can refuse, and what this program was built without.
#[test]
fn what_a_monitor_cannot_be_is_said() {
    let refused = |monitor: &str| {
        let text = format!("[[service]]\nvip = \"10.0.0.100\"\nmonitor = {{ {monitor} }}\n");
        let parsed = ConfigFile::parse(&text).and_then(|file| file.to_config());
        parsed.map(drop).unwrap_err().to_string()
    };
    let error = refused("kind = \"tcp\"");
    assert!(error.contains("monitor") && error.contains("port"), "{error}");
    let http = "kind = \"http\", port = 80";
    if cfg!(feature = "http") {
        let error = refused(&format!("{http}, method = \"DELETE\""));
        assert!(error.contains("method") && error.contains("DELETE"), "{error}");
        let error = refused("kind = \"https\", port = 443, authorities = \"none\"");
        assert!(error.contains("authorities") && error.contains("PEM"), "{error}");
    } else {
        assert!(refused(http).contains("feature `http`"), "{}", refused(http));
    }
}

/// Every kind there is becomes a monitor, where it is built in.
#[test]
fn every_kind_of_monitor_is_one() {
    for monitor in [
        "kind = \"ping\"",
        "kind = \"tcp\", port = 80",
        "kind = \"udp\", port = 53, request = \"?\", response = \"!\"",
        "kind = \"http\", port = 80, path = \"/\", host = \"www.example.com\", status = \"200-299\", body = \"ok\"",
        "kind = \"https\", port = 443, verify = false",
        "kind = \"neighbour\"",
    ] {
        let missing = monitor.contains("http") && !cfg!(feature = "http")
            || monitor.contains("neighbour") && !cfg!(feature = "af-xdp");
        let text = format!("[[service]]\nvip = \"10.0.0.100\"\nmonitor = {{ {monitor} }}\n");
        let config = ConfigFile::parse(&text).and_then(|file| file.to_config());
        assert_eq!(config.is_err(), missing, "{monitor}: {config:?}");
    }
}
