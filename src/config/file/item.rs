//! What a value in a file can be: how it is read, and how its JSON Schema says the same.

use super::place::Place;
use super::reader::Reader;
use schemars::{Schema, SchemaGenerator, json_schema};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use toml::de::DeValue;

/// Something that a key of a table can have as its value.
pub(super) trait Item: Sized {
    /// What is allowed, to go on from "expected".
    const ALLOWED: &'static str;
    /// Whether the key has to be there.
    const REQUIRED: bool = true;
    /// Of a table: the key whose value people know it by.
    const NAMED_BY: Option<&'static str> = None;

    /// Reads a value; what is wrong with it is noted, and then there is none.
    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What it is if the key is not there.
    fn absent() -> Option<Self> {
        None
    }

    /// The same as JSON Schema.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

/// The key may be left out. If the value is wrong it counts as left out, so that all else is read.
impl<T: Item> Item for Option<T> {
    const ALLOWED: &'static str = T::ALLOWED;
    const REQUIRED: bool = false;

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        Some(T::read(value, at, reader))
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// May be left out, and is empty then. Elements that are wrong are left out.
impl<T: Item> Item for Vec<T> {
    const ALLOWED: &'static str = "an array";
    const REQUIRED: bool = false;

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = value.as_array() else {
            let table = if value.is_table() { "; of tables, each begins with [[…]]" } else { "" };
            reader.refuse(value, at, &format!("an array of items, each {}{table}", T::ALLOWED));
            return Some(Self::new());
        };
        let elements = array.iter().enumerate().filter_map(|(index, element)| {
            let value = element.get_ref();
            let name = T::NAMED_BY.and_then(|key| value.as_table()?.get(key)?.get_ref().as_str());
            T::read(value, &at.index(index, name, element.span()), reader)
        });
        Some(elements.collect())
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }
}

/// Reads an integer, of any radix, that fits.
pub(super) fn integer<T: TryFrom<i64>>(value: &DeValue<'_>) -> Option<T> {
    let number = value.as_integer()?;
    T::try_from(i64::from_str_radix(number.as_str(), number.radix()).ok()?).ok()
}

macro_rules! integers {
    ($($type:ty: $low:literal to $high:literal;)+) => {$(
        impl Item for $type {
            const ALLOWED: &'static str =
                concat!("a whole number from ", $low, " to ", $high);

            fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                let read = integer(value);
                if read.is_none() {
                    reader.refuse(value, at, Self::ALLOWED);
                }
                read
            }
            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": $low, "maximum": $high })
            }
        }
    )+};
}

integers! {
    u8: 0 to 255;
    u16: 0 to 65535;
    u32: 0 to 4294967295u32;
}

/// As the integers above, without zero.
macro_rules! positive_integers {
    ($($type:ty, $inner:ty: $high:literal;)+) => {$(
        impl Item for $type {
            const ALLOWED: &'static str = concat!("a whole number from 1 to ", $high);

            fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                let read = integer::<$inner>(value).and_then(Self::new);
                if read.is_none() {
                    reader.refuse(value, at, Self::ALLOWED);
                }
                read
            }
            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": 1, "maximum": $high })
            }
        }
    )+};
}

positive_integers! {
    NonZeroU8, u8: 255;
    NonZeroU16, u16: 65535;
    NonZeroU32, u32: 4294967295u32;
}

impl Item for bool {
    const ALLOWED: &'static str = "true or false";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if value.as_bool().is_none() {
            reader.refuse(value, at, Self::ALLOWED);
        }
        value.as_bool()
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl Item for String {
    const ALLOWED: &'static str = "a text that is not empty";

    fn read(value: &DeValue<'_>, at: &Place<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            reader.refuse(value, at, Self::ALLOWED);
        }
        text.map(str::to_owned)
    }
    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
