//! Values that are a text or a number with a meaning.

use super::item::{Item, integer};
use super::place::{Place, clip};
use super::reader::{Reader, show};
use crate::balancer::{AdminState, Echo, Maglev, Persistence, VipKey};
use crate::flow::{HashInput, HashKey};
use crate::forwarding::{Dscp, GueVariant};
use crate::health::{HealthState, Through};
use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// Reads a text by a function; what is no text, or none that it reads, is noted.
fn text<T>(
    value: &DeValue<'_>,
    at: &Place<'_>,
    reader: &mut Reader<'_>,
    allowed: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let item = value.as_str().and_then(read);
    if item.is_none() {
        reader.refuse(value, at, allowed);
    }
    item
}

/// Items that are read by a function from their text.
macro_rules! texts {
    ($($type:ty: $allowed:literal, $read:expr, $schema:tt;)+) => {$(
        impl Item for $type {
            const ALLOWED: &'static str = $allowed;

            fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                text(value, at, reader, $allowed, $read)
            }
            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

texts! {
    VipKey: "an address or prefix, alone or with a port (or `any`) and a protocol, as in \
             \"10.0.0.100:80/tcp\", \"10.0.0.100:any/udp\", \"[2001:db8::1]:53/udp\" or \
             \"203.0.113.0/24\"",
        |text| text.parse().ok(),
        { "type": "string", "examples": [
            "10.0.0.100:80/tcp", "10.0.0.100:any/udp", "10.0.0.100", "[2001:db8::1]:53/udp",
            "203.0.113.0/24:443/tcp"
        ] };
    IpAddr: "an IPv4 or IPv6 address, as in \"10.0.0.11\" or \"2001:db8::11\"",
        |text| text.parse().ok(),
        { "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] };
    SocketAddr: "an address with a port, as in \"127.0.0.1:9100\" or \"[::1]:9100\"",
        |text| text.parse().ok(),
        { "type": "string", "examples": ["127.0.0.1:9100", "[::1]:9100"] };
    IpNet: "an address or a prefix, as in \"192.0.2.1\" or \"192.0.2.0/24\"",
        |text| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)),
        { "type": "string", "examples": ["192.0.2.1", "192.0.2.0/24", "2001:db8::/64"] };
    Duration: "a time with its unit, as in \"500ms\", \"1s\" or \"1m 30s\"",
        |text| humantime::parse_duration(text).ok(),
        { "type": "string", "examples": ["500ms", "1s", "1m 30s"] };
}

/// Items that have one of a few names.
macro_rules! names {
    ($($type:ty: $allowed:literal;)+) => {$(
        impl $crate::config::file::item::Item for $type {
            const ALLOWED: &'static str = $allowed;

            fn read(
                value: &toml::de::DeValue<'_>,
                at: &$crate::config::file::place::Place<'_>,
                reader: &mut $crate::config::file::reader::Reader<'_>,
            ) -> Option<Self> {
                let item = value.as_str().and_then(|text| text.parse().ok());
                if item.is_none() {
                    reader.refuse(value, at, $allowed);
                }
                item
            }
            fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let names = Self::NAMES.map(|(name, _)| name);
                schemars::json_schema!({ "type": "string", "enum": names.as_slice() })
            }
        }
    )+};
}
pub(super) use names;

names! {
    HashInput: "source-ip, destination-ip, 2-tuple, 3-tuple or 5-tuple";
    Echo: "answer, drop or forward";
    Persistence: "default, never or always";
    AdminState: "enabled, draining or disabled";
    Through: "vip or backend";
    HealthState: "unknown, up or down";
}

impl Item for HashKey {
    const ALLOWED: &'static str = "32 hexadecimal digits";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let key = value.as_str().and_then(|text| text.parse().ok());
        if key.is_none() {
            // What is nearly a key is a secret too.
            reader.problem(at, "(not shown)", || format!("expected {}", Self::ALLOWED));
        }
        key
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{32}$" })
    }
}

impl Item for Maglev {
    const ALLOWED: &'static str = "a prime of at most 8388608, such as 65537";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match integer(value).map(Self::with_table_size) {
            Some(Ok(policy)) => return Some(policy),
            Some(Err(error)) => reader.problem(at, show(value), || error.to_string()),
            None => reader.refuse(value, at, Self::ALLOWED),
        }
        None
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        let usual = [251, 1021, 4093, 16381, 65537, 655_373];
        json_schema!({
            "type": "integer", "minimum": 2, "maximum": Self::MAX_TABLE_SIZE, "examples": usual,
        })
    }
}

impl Item for Dscp {
    const ALLOWED: &'static str = "a whole number from 0 to 63";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let dscp = integer(value).and_then(Self::new);
        if dscp.is_none() {
            reader.refuse(value, at, Self::ALLOWED);
        }
        dscp
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 63 })
    }
}

impl Item for GueVariant {
    const ALLOWED: &'static str = "0 or 1";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match integer::<u8>(value) {
            Some(0) => Some(Self::Zero),
            Some(1) => Some(Self::One),
            _ => {
                reader.refuse(value, at, Self::ALLOWED);
                None
            }
        }
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [0, 1] })
    }
}

/// HTTP statuses: one, or from one to another.
impl Item for RangeInclusive<u16> {
    const ALLOWED: &'static str = "a status from 100 to 599, or a range of them, as in \"200-299\"";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits)
        };
        let range = match value {
            DeValue::String(text) => {
                text.split_once('-').and_then(|(low, high)| Some(status(low)?..=status(high)?))
            }
            value => integer::<u16>(value).map(|status| status..=status),
        };
        let inside =
            |range: &Self| !range.is_empty() && *range.start() >= 100 && *range.end() < 600;
        let range = range.filter(inside);
        if range.is_none() {
            reader.refuse(value, at, Self::ALLOWED);
        }
        range
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}-[1-5][0-9]{2}$" },
        ] })
    }
}

/// Bytes of a datagram: a text, or hexadecimal digits after `hex:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload(pub Vec<u8>);

impl Item for Payload {
    const ALLOWED: &'static str = "a text, or bytes as hexadecimal digits, as in \"hex:0d0a\"";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        text(value, at, reader, Self::ALLOWED, |text| match text.strip_prefix("hex:") {
            Some(digits) => hex(digits).map(Self),
            None => Some(Self(text.as_bytes().to_vec())),
        })
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["PING\r\n", "hex:0d0a"] })
    }
}

/// Bytes from two digits each.
pub(super) fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
}

/// A backend's name: 1 to 255 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendId(String);

impl BackendId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Item for BackendId {
    const ALLOWED: &'static str = "a name: 1 to 255 bytes, without control characters";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        text(value, at, reader, Self::ALLOWED, |text| {
            let valid = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
            valid.then(|| Self(text.to_owned()))
        })
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 255 })
    }
}

/// A name that a Linux network interface can have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&clip(&self.0))
    }
}

impl Item for InterfaceName {
    const ALLOWED: &'static str =
        "the name of an interface: 1 to 15 bytes, without space, colon and slash";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        text(value, at, reader, Self::ALLOWED, |text| {
            let banned = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
            let valid = (1..=15).contains(&text.len()) && !text.contains(banned);
            (valid && !matches!(text, "." | "..")).then(|| Self(text.to_owned()))
        })
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^\\s/:]{1,15}$" })
    }
}
