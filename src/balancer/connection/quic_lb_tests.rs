use super::*;
use crate::balancer::{ByConnection, Maglev, Rendezvous};
use proptest::prelude::*;

fn policy() -> QuicLb {
    let config = |server_id| QuicConfig::new(server_id, 5).unwrap();
    let policy = QuicLb::new(Rendezvous).config(0, config(1)).unwrap();
    let policy = policy.config(6, config(2)).unwrap();
    let servers: [(&str, &[u8]); 4] = [("a", &[1]), ("b", &[2]), ("b", &[0, 1]), ("gone", &[3])];
    servers.into_iter().fold(policy, |policy, (id, server)| policy.server(id, server).unwrap())
}

fn routed(header: QuicHeader, id: &[u8]) -> Option<u16> {
    let router = policy().connections(&["a", "b", "c"]).unwrap();
    router.route(&ConnectionId::new(header, id))
}

#[test]
fn an_id_leads_to_its_server_by_its_own_configuration_or_nowhere() {
    const NONCE: [u8; 5] = [9; 5];
    for (id, position) in [
        ([&[0x00, 1], &NONCE[..]].concat(), Some(0)),
        ([&[0x1f, 2], &NONCE[..]].concat(), Some(1)),
        ([&[0xc0, 0, 1], &NONCE[..]].concat(), Some(1)),
        // A server that is no backend, one that is not known, and one of the other configuration.
        ([&[0x00, 3], &NONCE[..]].concat(), None),
        ([&[0x00, 4], &NONCE[..]].concat(), None),
        ([&[0xc0, 1, 0], &NONCE[..]].concat(), None),
        // Bits of no configuration, and those that never are.
        ([&[0x20, 1], &NONCE[..]].concat(), None),
        ([&[0xe0, 1], &NONCE[..]].concat(), None),
        // Too short.
        ([&[0x00, 1], &NONCE[1..]].concat(), None),
        (vec![0], None),
        (vec![], None),
    ] {
        for header in [QuicHeader::Short, QuicHeader::Long] {
            assert_eq!(routed(header, &id), position, "{id:?}");
        }
        assert_eq!(routed(QuicHeader::First, &id), None, "{id:?}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_and_said() {
    let config = || QuicConfig::new(1, 5).unwrap();
    let bits = |bits| policy().config(bits, config()).unwrap_err().to_string();
    assert!(bits(6).starts_with("config rotation 6: there is"), "{}", bits(6));
    assert!(bits(7).starts_with("config rotation 7: expected 0 to 6"), "{}", bits(7));
    assert!(policy().config(5, config()).is_ok());
    let server = |backend: &str, id: &[u8]| policy().server(backend, id).map_err(|e| e.to_string());
    let unknown = "server ID 010203: no configuration has server IDs of 3 bytes";
    assert_eq!(server("a", &[1, 2, 3]).unwrap_err(), unknown);
    assert_eq!(server("a", &[2]).unwrap_err(), "server ID 02: backend b has it already");
    assert!(server("b", &[2]).is_ok());
}

#[test]
fn a_fingerprint_has_all_that_decides() {
    let nonce = |nonce| QuicConfig::new(1, nonce).unwrap();
    let plain = |flows: Arc<dyn Policy>, bits, config, server: &str| {
        let policy = QuicLb::new(flows).config(bits, config).unwrap();
        policy.server(server, &[7]).unwrap().fingerprint()
    };
    let usual = || plain(Arc::new(Rendezvous), 0, nonce(4), "a");
    assert!(usual().is_some());
    assert_eq!(usual(), usual());
    for other in [
        plain(Arc::new(Maglev::default()), 0, nonce(4), "a"),
        plain(Arc::new(Rendezvous), 1, nonce(4), "a"),
        plain(Arc::new(Rendezvous), 0, nonce(5), "a"),
        plain(Arc::new(Rendezvous), 0, nonce(4), "b"),
    ] {
        assert_ne!(other, usual());
    }
    let own = ByConnection::new(Rendezvous, |_: &[&str]| |_: &ConnectionId| None);
    assert_eq!(plain(Arc::new(own), 0, nonce(4), "a"), None);
}

proptest! {
    /// Whatever the ID, it leads to a backend that there is.
    #[test]
    fn any_id_is_taken(bytes: Vec<u8>) {
        for header in [QuicHeader::Short, QuicHeader::Long, QuicHeader::First] {
            prop_assert!(routed(header, &bytes).is_none_or(|position| position < 2));
        }
    }
}
