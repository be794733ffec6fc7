//! Who answers ARP and neighbour solicitations for the VIPs and for the backends' addresses.

use super::{refused, unseen};
use crate::dataplane::af_xdp::LinkSocket;
use crate::dataplane::neighbour::NeighbourState;
use crate::director::claims::Ears;
use crate::doctor::Checkup;
use crate::doctor::observed::{Observed, Properties, Vlan};
use crate::packet::{Claim, MacAddress, question};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many addresses are asked about at most: a link should not be flooded for this.
const MOST_QUESTIONS: usize = 1024;
/// Of a prefix of more addresses than this only some are asked about, and so of each if there are many. A host that has
/// the prefix answers for any of them; one that has a single one of them is not found then.
const MOST_OF_PREFIX: usize = 256;
const SOME_OF_PREFIX: usize = 16;
/// One question, or its answer, may be lost.
const ROUNDS: u32 = 2;
/// How long between two looks at what was heard, and after so many questions.
const PAUSE: Duration = Duration::from_millis(5);
const QUESTIONS_AT_ONCE: usize = 16;
const WHAT: &str = "who answers for the VIPs";

/// A link: a port, and there perhaps a VLAN.
type Place = (u8, Option<u16>);
/// The one that packets come in by: clients ask for the VIPs there, untagged.
const INGRESS: Place = (0, None);

pub(super) fn look(checkup: &Checkup, seen: &mut Observed) {
    let services = checkup.config.services.iter().map(|bound| bound.service.key.prefix());
    let mut vips = sample(&services.collect(), &spoken_for(seen));
    let asked = questions(&vips, seen);
    if asked.len() > MOST_QUESTIONS {
        let why = format!("the first {MOST_QUESTIONS} of {} addresses were asked for", asked.len());
        seen.unseen.push(unseen(WHAT, why, ""));
    }
    let mut places: BTreeMap<Place, Vec<IpAddr>> = BTreeMap::new();
    for (place, address) in asked.into_iter().take(MOST_QUESTIONS) {
        places.entry(place).or_default().push(address);
    }
    let mut links = Vec::new();
    for (place, addresses) in places {
        let Some((index, own)) = station(seen, place) else {
            let why = "the interface that they are behind is not found, or has no MAC address";
            seen.unseen.push(unseen(whose(checkup, place), why, ""));
            continue;
        };
        match Asked::open(index, own, addresses) {
            Ok(link) => links.push((place, link)),
            Err(error) => seen.unseen.push(refused(&whose(checkup, place), &error)),
        }
    }
    if links.is_empty() {
        return;
    }
    ask(checkup.patience, &mut links);
    for (place, link) in &links {
        if let Some(error) = &link.failed {
            seen.unseen.push(refused(&whose(checkup, *place), error));
        }
    }
    let own = own_addresses(seen);
    let claims = links.iter().flat_map(|(_, link)| &link.claims);
    seen.vips.claims = claims.filter(|claim| !own.contains(&claim.mac)).copied().collect();
    let is_asked = |(place, link): &&(Place, Asked)| *place == INGRESS && link.failed.is_none();
    let ingress = links.iter().find(is_asked);
    let asked = ingress.map_or(&[][..], |(_, link)| &link.addresses);
    vips.values_mut().for_each(|some| some.retain(|address| asked.contains(address)));
    vips.retain(|_, some| !some.is_empty());
    seen.vips.asked = vips;
}

/// What is asked at a place, in words.
fn whose(checkup: &Checkup, (port, vlan): Place) -> String {
    if (port, vlan) == INGRESS {
        return WHAT.to_owned();
    }
    let interface = checkup.interfaces().nth(port.into()).unwrap_or_default();
    let vlan = vlan.map_or(String::new(), |id| format!(", VLAN {id}"));
    format!("who answers for the backends on {interface}{vlan}")
}

/// Addresses that hosts have of their own, as backends and as routers: within a VIP that is a prefix they are a mistake of
/// the configuration, and theirs all the same.
fn spoken_for(seen: &Observed) -> BTreeSet<IpAddr> {
    let routers = seen.backends.values().filter_map(|state| match state {
        NeighbourState::Resolved(path) => path.gateway,
        _ => None,
    });
    seen.backends.keys().copied().chain(routers).collect()
}

/// The addresses of each prefix that are to be asked about.
fn sample(
    prefixes: &BTreeSet<IpNet>,
    spoken_for: &BTreeSet<IpAddr>,
) -> BTreeMap<IpNet, BTreeSet<IpAddr>> {
    let is_single = |prefix: &IpNet| prefix.prefix_len() == prefix.max_prefix_len();
    // Of many small ones a few each, rather than all of the first ones and none of others.
    let is_small = |prefix: &&IpNet| prefix.hosts().nth(MOST_OF_PREFIX).is_none();
    let small = prefixes.iter().filter(|prefix| !is_single(prefix)).filter(is_small).count();
    let few = if small * MOST_OF_PREFIX > MOST_QUESTIONS { SOME_OF_PREFIX } else { MOST_OF_PREFIX };
    let of = |prefix: &IpNet| {
        // One that is a VIP by itself is asked about as such.
        let is_free = |address: &IpAddr| {
            is_single(prefix)
                || !prefixes.contains(&(*address).into()) && !spoken_for.contains(address)
        };
        (*prefix, some_of(prefix, few).into_iter().filter(is_free).collect())
    };
    prefixes.iter().map(of).collect()
}

/// All if there are but a `few`, else some of them.
fn some_of(prefix: &IpNet, few: usize) -> Vec<IpAddr> {
    let all: Vec<IpAddr> = prefix.hosts().take(few + 1).collect();
    if all.len() <= few {
        return all;
    }
    // Spread evenly, none the first, which may be the address of the subnet.
    let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    let step = 1_u128.checked_shl(bits).unwrap_or(u128::MAX) / SOME_OF_PREFIX as u128;
    let offsets = (0..SOME_OF_PREFIX as u128).map(|number| number * step + 1);
    match prefix.network() {
        IpAddr::V4(first) => {
            offsets.map(|o| Ipv4Addr::from_bits(first.to_bits() + o as u32).into()).collect()
        }
        IpAddr::V6(first) => {
            offsets.map(|o| Ipv6Addr::from_bits(first.to_bits() + o).into()).collect()
        }
    }
}

/// What is to be asked where, what matters most first.
fn questions(vips: &BTreeMap<IpNet, BTreeSet<IpAddr>>, seen: &Observed) -> Vec<(Place, IpAddr)> {
    let (single, some): (Vec<_>, Vec<_>) =
        vips.iter().partition(|(prefix, _)| prefix.prefix_len() == prefix.max_prefix_len());
    let at_ingress = |all: Vec<(&IpNet, &BTreeSet<IpAddr>)>| {
        let addresses = all.into_iter().flat_map(|(_, addresses)| addresses);
        addresses.map(|address| (INGRESS, *address)).collect::<Vec<_>>()
    };
    let backends = seen.backends.iter().filter_map(|(address, state)| match state {
        NeighbourState::Resolved(path) if path.gateway.is_none() => {
            Some(((path.port, path.vlan), *address))
        }
        _ => None,
    });
    let mut known = BTreeSet::new();
    let mut all = at_ingress(single);
    all.extend(backends);
    all.extend(at_ingress(some));
    // Prefixes may lie in each other.
    all.retain(|question| known.insert(*question));
    all
}

/// The interface to ask by, and its MAC address. Of a VLAN it is the VLAN's own, which puts the tag in front.
fn station(seen: &Observed, (port, vlan): Place) -> Option<(u32, MacAddress)> {
    let there = seen.links.get(usize::from(port))?.there.as_ref()?;
    match vlan {
        None => Some((there.index, there.mac?)),
        Some(id) => {
            let vlan = there.vlans.iter().find(|vlan| vlan.id == id)?;
            Some((vlan.index, vlan.mac?))
        }
    }
}

/// This host answers by these.
fn own_addresses(seen: &Observed) -> BTreeSet<MacAddress> {
    let there = seen.links.iter().filter_map(|link| link.there.as_ref());
    let of = |there: &Properties| {
        let vlans: Vec<_> = there.vlans.iter().filter_map(|vlan: &Vlan| vlan.mac).collect();
        there.mac.into_iter().chain(vlans)
    };
    there.flat_map(of).collect()
}

/// A link while it is asked.
struct Asked {
    own: MacAddress,
    addresses: Vec<IpAddr>,
    mouth: LinkSocket,
    ears: Ears,
    claims: BTreeSet<Claim>,
    /// Why it could not be asked to the end.
    failed: Option<io::Error>,
}

impl Asked {
    fn open(index: u32, own: MacAddress, addresses: Vec<IpAddr>) -> io::Result<Self> {
        let (ears, mouth) = (Ears::open(index)?, LinkSocket::open(index, 0, &[])?);
        Ok(Self { own, addresses, mouth, ears, claims: BTreeSet::new(), failed: None })
    }

    fn ask(&mut self) -> io::Result<()> {
        for number in (0..self.addresses.len()).step_by(QUESTIONS_AT_ONCE) {
            for address in self.addresses.iter().skip(number).take(QUESTIONS_AT_ONCE) {
                self.mouth.send(&question(self.own, *address))?;
            }
            sleep(PAUSE);
            self.hear();
        }
        Ok(())
    }

    fn hear(&mut self) {
        let heard = self.ears.hear().into_iter();
        self.claims.extend(heard.filter(|claim| self.addresses.contains(&claim.address)));
    }
}

/// Asks all links at once. What one of them cannot do is no reason to forget what others said.
fn ask(patience: Duration, links: &mut [(Place, Asked)]) {
    for _ in 0..ROUNDS {
        let until = Instant::now() + patience / ROUNDS;
        for (_, link) in links.iter_mut().filter(|(_, link)| link.failed.is_none()) {
            link.failed = link.ask().err();
        }
        while Instant::now() < until {
            sleep(PAUSE);
            links.iter_mut().for_each(|(_, link)| link.hear());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::neighbour::Path;
    use crate::doctor::observed::Link;

    fn of(prefixes: &[&str]) -> BTreeMap<IpNet, BTreeSet<IpAddr>> {
        sample(&prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(), &BTreeSet::new())
    }

    #[test]
    fn of_many_prefixes_some_addresses_each_and_none_that_is_a_hosts_own() {
        let prefixes: BTreeSet<IpNet> =
            (0..50).map(|third| format!("10.0.{third}.0/24").parse().unwrap()).collect();
        let own = IpAddr::from([10, 0, 7, 17]);
        let all = sample(&prefixes, &[own].into());
        for (prefix, some) in &all {
            let expected = if prefix.contains(&own) { 15 } else { 16 };
            assert_eq!(some.len(), expected, "{prefix}");
        }
        assert!(all.values().map(BTreeSet::len).sum::<usize>() <= MOST_QUESTIONS);
    }

    #[test]
    fn small_prefixes_are_asked_about_as_a_whole_and_large_ones_here_and_there() {
        let all =
            of(&["10.0.0.0/24", "10.0.0.7/32", "10.1.0.0/16", "fd00::/64", "::/0", "0.0.0.0/0"]);
        let counts: Vec<_> =
            all.iter().map(|(prefix, some)| (prefix.to_string(), some.len())).collect();
        let count = |of: &str| counts.iter().find(|(prefix, _)| prefix == of).unwrap().1;
        // Without the subnet's, the last, and the one that is a VIP by itself.
        assert_eq!(count("10.0.0.0/24"), 253);
        assert_eq!(count("10.0.0.7/32"), 1);
        for large in ["10.1.0.0/16", "fd00::/64", "::/0", "0.0.0.0/0"] {
            assert_eq!(count(large), 16, "{large}");
        }
        for (prefix, some) in &all {
            assert!(some.iter().all(|address| prefix.contains(address)), "{prefix}");
        }
        let large = &all[&"10.1.0.0/16".parse::<IpNet>().unwrap()];
        assert!(large.contains(&IpAddr::from([10, 1, 0, 1])));
        assert!(large.contains(&IpAddr::from([10, 1, 240, 1])));
    }

    #[test]
    fn backends_are_asked_for_where_they_are() {
        const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let at = |port, vlan, gateway| {
            NeighbourState::Resolved(Path { port, vlan, gateway, ..Path::on_link(MAC) })
        };
        let vlan = Vlan { id: 7, index: 9, mac: Some(MAC) };
        let arm =
            Properties { index: 3, mac: Some(MAC), vlans: vec![vlan], ..Properties::default() };
        let link = |name: &str, there| Link { name: name.to_owned(), there: Some(there) };
        let seen = Observed {
            links: vec![
                link("eth0", Properties { index: 2, ..Properties::default() }),
                link("arm", arm),
            ],
            backends: [
                (address(11), at(0, None, None)),
                (address(12), at(1, None, None)),
                (address(13), at(1, Some(7), None)),
                (address(14), at(0, None, Some(address(1)))),
            ]
            .into(),
            ..Observed::default()
        };
        let vips = of(&["10.0.0.100/32", "10.0.1.0/30"]);
        let expected = [
            (INGRESS, address(100)),
            (INGRESS, address(11)),
            ((1, None), address(12)),
            ((1, Some(7)), address(13)),
            (INGRESS, IpAddr::from([10, 0, 1, 1])),
            (INGRESS, IpAddr::from([10, 0, 1, 2])),
        ];
        assert_eq!(questions(&vips, &seen), expected);
        assert_eq!(station(&seen, (1, None)), Some((3, MAC)));
        assert_eq!(station(&seen, (1, Some(7))), Some((9, MAC)));
        assert_eq!(station(&seen, (1, Some(8))), None);
        assert_eq!(station(&seen, INGRESS), None, "it has no MAC address");
    }
}
