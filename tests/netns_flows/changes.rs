//! Random changes of a pool.

use crate::pool::{Method, Pool, Wanted};
use dsrlb::balancer::AdminState;
use dsrlb::flow::{HashInput, HashKey};

/// Backends up to this one are never removed nor disabled: their flows live through everything.
const SAFE: u8 = 5;
const FEWEST_TAKING: usize = 2;
/// Without optimization a table of the default size takes long to build, so these are small. Rendezvous hashing has but
/// one size: it is seldom chosen, with equal weights, and left by the next change.
const TABLE_SIZES: [usize; 4] = [251, 509, 1021, 2039];
const INPUTS: [HashInput; 5] = [
    HashInput::FiveTuple,
    HashInput::ThreeTuple,
    HashInput::TwoTuple,
    HashInput::SourceIp,
    HashInput::DestinationIp,
];

impl Pool<'_> {
    /// Makes a change, and says what kind it was.
    pub fn change_at_random(&mut self) -> &'static str {
        loop {
            let number = self.random.below(self.services.len());
            if let Some(kind) = self.try_change(number) {
                return kind;
            }
        }
    }

    fn try_change(&mut self, number: usize) -> Option<&'static str> {
        let wanted = self.services[number].0.clone();
        let present: Vec<u8> = wanted.weights.keys().copied().collect();
        let absent: Vec<u8> =
            (1..=self.lab.backends.len() as u8).filter(|one| !present.contains(one)).collect();
        let one = self.random.one_of(&present)?;
        let others_take = wanted.taking().iter().filter(|taking| **taking != one).count();
        let can_do_without = others_take >= FEWEST_TAKING;
        let word_of = wanted.admin.get(&one);
        if wanted.method == Method::Rendezvous {
            let size = self.random.one_of(&TABLE_SIZES)?;
            self.apply(number, |next| next.method = Method::Maglev(size));
            return Some("from rendezvous");
        }
        let kind = match self.random.below(100) {
            0..10 => {
                let weight = 1 + self.random.below(4) as u16;
                let absent = self.random.one_of(&absent)?;
                self.add(number, absent, weight);
                "add"
            }
            10..14 if one > SAFE && can_do_without => {
                self.remove(number, one);
                "remove"
            }
            14..16 if one > SAFE && can_do_without => {
                self.set_admin(number, one, Some(AdminState::Disabled));
                "disable"
            }
            16..33 if can_do_without && word_of.is_none() => {
                self.set_admin(number, one, Some(AdminState::Draining));
                "set draining"
            }
            33..45 if can_do_without && word_of.is_none() => {
                self.drain(number, one);
                "drain"
            }
            45..63 if word_of.is_some() => {
                self.set_admin(number, one, None);
                "enable"
            }
            63..75 => {
                let weight = self.weight(can_do_without);
                self.apply(number, |next| next.weights.extend([(one, weight)]));
                "weight"
            }
            75..81 => {
                let input = self.random.one_of(&INPUTS)?;
                self.apply(number, |next| next.input = input);
                "hash input"
            }
            81..87 => {
                let key = HashKey::new(self.random.bytes());
                self.apply(number, |next| next.key = key);
                "hash key"
            }
            87..93 => {
                let size = self.random.one_of(&TABLE_SIZES)?;
                let method = Method::Maglev(size);
                if method == wanted.method {
                    return None;
                }
                self.apply(number, |next| next.method = method);
                "table size"
            }
            93..98 => {
                let key = HashKey::new(self.random.bytes());
                let (size, input) =
                    (self.random.one_of(&TABLE_SIZES)?, self.random.one_of(&INPUTS)?);
                let method = Method::Maglev(size);
                let weights: Vec<u16> = present.iter().map(|_| self.weight(false)).collect();
                self.apply(number, |next| {
                    *next = Wanted { method, input, key, ..next.clone() };
                    next.weights = present.iter().copied().zip(weights).collect();
                    next.weights.extend(absent.first().map(|one| (*one, 1)));
                });
                "all at once"
            }
            98 if self.random.below(2) == 0 => {
                self.apply(number, |next| {
                    next.method = Method::Rendezvous;
                    next.weights.values_mut().for_each(|weight| *weight = (*weight).min(1));
                });
                "to rendezvous"
            }
            _ => return None,
        };
        Some(kind)
    }

    fn weight(&mut self, may_be_zero: bool) -> u16 {
        let least = usize::from(!may_be_zero);
        (least + self.random.below(5)) as u16
    }
}
