//! Types that are written as text, and what follows from that.

/// Gives the values of an enum their names: `NAMES`, `Display`, `FromStr`, and with `serde` the same
/// there.
macro_rules! named {
    ($type:ident, $what:literal, $allowed:literal, [$($name:literal => $value:ident),+ $(,)?]) => {
        impl $type {
            /// Every value with the name it has in configuration files.
            pub const NAMES: [(&'static str, Self); [$($name),+].len()] =
                [$(($name, Self::$value)),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$value => $name),+
                })
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::error::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
                found
                    .map(|(_, value)| value)
                    .ok_or_else(|| crate::error::ParseError::new($what, text, $allowed))
            }
        }

        serde_as_text!($type);
    };
}

/// With `serde`, makes of a type what `Display` writes and `FromStr` reads.
macro_rules! serde_as_text {
    ($type:ident) => {
        #[cfg(feature = "serde")]
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(input)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Durations as people write them: `500ms`, `1m 30s`.
#[cfg(feature = "serde")]
pub(crate) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use crate::balancer::{AdminState, Echo, VipKey};
    use crate::config::Limits;
    use crate::flow::{HashInput, HashKey};
    use crate::forwarding::{Dscp, Encapsulation, Forwarding, GueVariant, Tunnel, TunnelDscp};
    use crate::health::{HealthPolicy, HealthState, Through};
    use serde::{Serialize, de::DeserializeOwned};
    use std::fmt::Debug;
    use std::time::Duration;

    fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, json: &str) {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
    }

    #[test]
    fn what_has_a_text_is_that_text() {
        both_ways("[2001:db8::1]:53/udp".parse::<VipKey>().unwrap(), r#""[2001:db8::1]:53/udp""#);
        both_ways(HashInput::TwoTuple, r#""2-tuple""#);
        both_ways(Echo::Forward, r#""forward""#);
        both_ways(AdminState::Draining, r#""draining""#);
        both_ways(Through::Vip, r#""vip""#);
        both_ways(HealthState::Unknown, r#""unknown""#);
        both_ways(HashKey::new(*b"0123456789abcdef"), r#""30313233343536373839616263646566""#);
        both_ways(Dscp::new(63).unwrap(), "63");
    }

    #[test]
    fn what_has_fields_keeps_them_all() {
        both_ways(Forwarding::L2, r#""l2""#);
        both_ways(Forwarding::L3Dsr(Dscp::new(5).unwrap()), r#"{"l3dsr":5}"#);
        let gue = Encapsulation::Gue { port: 6080, variant: GueVariant::One, checksum: true };
        let tunnel = Tunnel { dscp: TunnelDscp::Pipe(Dscp::ZERO), ..Tunnel::new(gue) };
        both_ways(
            Forwarding::Tunnel(tunnel),
            r#"{"tunnel":{"encapsulation":{"gue":{"port":6080,"variant":"one","checksum":true}},"dscp":{"pipe":0},"hop-limit":64,"path-mtu":null}}"#,
        );
        both_ways(Limits { services: 1, backends: 2 }, r#"{"services":1,"backends":2}"#);
        both_ways(
            HealthPolicy { interval: Duration::from_millis(1500), ..HealthPolicy::default() },
            r#"{"interval":"1s 500ms","timeout":"500ms","rise":2,"fall":3,"initial":"unknown"}"#,
        );
    }

    #[test]
    fn what_is_not_given_is_the_default_and_what_is_wrong_is_refused() {
        let policy: HealthPolicy = serde_json::from_str(r#"{"rise":5}"#).unwrap();
        assert_eq!(policy, HealthPolicy { rise: 5, ..HealthPolicy::default() });
        for json in [r#"{"interval":"1 fortnight"}"#, r#"{"intervall":"1s"}"#, r#"{"rise":-1}"#] {
            assert!(serde_json::from_str::<HealthPolicy>(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<Dscp>("64").is_err());
        let error = serde_json::from_str::<HashKey>(r#""0x"#).unwrap_err().to_string();
        assert!(!error.contains("0x"), "{error}");
        let error = serde_json::from_str::<Echo>(r#""pass""#).unwrap_err().to_string();
        assert!(error.contains("answer, drop or forward"), "{error}");
    }
}
