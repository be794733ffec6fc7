//! Who claims which VIP, and which VIPs are asked about next. Pure.

use crate::packet::{Claim, MacAddress};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound::{Excluded, Unbounded};

/// How many VIPs are asked about in a round.
const MOST_QUESTIONS: usize = 64;
/// How many claims are remembered: no fault makes as many, but somebody may send as many.
const MOST_CLAIMS: usize = 256;
/// How many questions in a row a claimant may leave open: one of them, or its answer, may be lost.
const MOST_SILENCE: u8 = 2;

/// Claims that last. Each is void when its claimant has been silent too often.
#[derive(Debug, Default)]
pub(in crate::director) struct ClaimBoard {
    vips: BTreeSet<IpAddr>,
    /// The last VIP that was asked about.
    last: Option<IpAddr>,
    /// By claim, how many questions have been asked since it was last heard.
    claims: BTreeMap<Claim, u8>,
}

impl ClaimBoard {
    /// Follows a change of the VIPs.
    pub(in crate::director) fn adopt(&mut self, vips: BTreeSet<IpAddr>) {
        self.claims.retain(|claim, _| vips.contains(&claim.address));
        self.vips = vips;
    }

    /// The VIPs to ask about now, in turn, and whether a claim has become void by that.
    pub(in crate::director) fn next_round(&mut self) -> (Vec<IpAddr>, bool) {
        let last = self.last.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let turn = self.vips.range((Excluded(last), Unbounded)).chain(self.vips.range(..=last));
        let asked: Vec<IpAddr> = turn.take(MOST_QUESTIONS).copied().collect();
        self.last = asked.last().copied();
        let before = self.claims.len();
        self.claims.retain(|claim, silence| {
            *silence += u8::from(asked.contains(&claim.address));
            *silence <= MOST_SILENCE
        });
        (asked, self.claims.len() < before)
    }

    /// Notes claims of VIPs; returns those that are new.
    pub(in crate::director) fn hear(&mut self, heard: impl Iterator<Item = Claim>) -> Vec<Claim> {
        let mut new = Vec::new();
        for claim in heard.filter(|claim| self.vips.contains(&claim.address)) {
            if let Some(silence) = self.claims.get_mut(&claim) {
                *silence = 0;
            } else if self.claims.len() < MOST_CLAIMS {
                self.claims.insert(claim, 0);
                new.push(claim);
            }
        }
        new
    }

    /// The first VIP of this prefix that the station at `mac` claims.
    pub(in crate::director) fn of(&self, prefix: IpNet, mac: MacAddress) -> Option<IpAddr> {
        let is_it = |claim: &&Claim| claim.mac == mac && prefix.contains(&claim.address);
        self.all().find(is_it).map(|claim| claim.address)
    }

    /// All of them.
    pub(in crate::director) fn all(&self) -> impl Iterator<Item = &Claim> {
        self.claims.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn vip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn claim(last: u8) -> Claim {
        Claim { address: vip(last), mac: MAC }
    }

    #[test]
    fn a_claim_lasts_until_two_questions_in_a_row_stay_open() {
        let mut board = ClaimBoard::default();
        board.adopt([vip(1), vip(2)].into());
        let asked = vec![vip(1), vip(2)];
        assert_eq!(board.hear([claim(1), claim(3)].into_iter()), [claim(1)]);
        assert_eq!(board.hear([claim(1)].into_iter()), []);
        assert_eq!(board.of("10.0.0.0/24".parse().unwrap(), MAC), Some(vip(1)));
        assert_eq!(board.of("10.0.0.2/32".parse().unwrap(), MAC), None);
        assert_eq!(board.of("10.0.0.1/32".parse().unwrap(), MacAddress::ZERO), None);
        for answered in [true, false] {
            assert_eq!(board.next_round(), (asked.clone(), false));
            assert_eq!(board.next_round(), (asked.clone(), false));
            if answered {
                assert_eq!(board.hear([claim(1)].into_iter()), []);
            }
        }
        assert_eq!(board.next_round(), (asked, true));
        assert_eq!(board.all().count(), 0);
        assert_eq!(board.hear([claim(1)].into_iter()), [claim(1)]);
        board.adopt([vip(2)].into());
        assert_eq!(board.all().count(), 0);
    }

    #[test]
    fn many_vips_are_asked_about_in_turn_and_silence_counts_when_asked() {
        let mut board = ClaimBoard::default();
        assert_eq!(board.next_round(), (vec![], false));
        let v6: IpAddr = "fd00::1".parse().unwrap();
        board.adopt((0..100).map(vip).chain([v6]).collect());
        board.hear([claim(99)].into_iter());
        let mut asked = Vec::new();
        for _ in 0..101 {
            asked.extend(board.next_round().0);
        }
        assert_eq!(board.all().count(), 0);
        assert_eq!(asked.len(), 101 * MOST_QUESTIONS);
        let times = |vip| asked.iter().filter(|asked| **asked == vip).count();
        assert!((0..100).map(vip).chain([v6]).all(|vip| times(vip) == MOST_QUESTIONS));
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut board = ClaimBoard::default();
        board.adopt([vip(1)].into());
        let flood = (0..=u16::MAX).map(|number| {
            let [a, b] = number.to_be_bytes();
            Claim { address: vip(1), mac: MacAddress([2, 0, 0, 0, a, b]) }
        });
        assert_eq!(board.hear(flood).len(), MOST_CLAIMS);
    }
}
