//! Tables: declared once, with a documentation for each key, and from that read and described.

use super::item::Item;
use super::place::Place;
use super::reader::{Reader, show};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

/// Declares a table as a struct. Of the declaration are made: the struct, what reads it and finds keys
/// that are not in it, and its JSON Schema, in which the documentation is the description.
macro_rules! table {
    (
        $(#[doc = $about:literal])+
        $name:ident $(named by $named_by:literal)? {
            $( $(#[doc = $doc:literal])+ $key:literal $field:ident: $type:ty, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, PartialEq, Debug)]
        #[non_exhaustive]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $crate::config::file::item::Item for $name {
            const ALLOWED: &'static str = concat!("a table with ", $("`", $key, "` ",)+);
            $(const NAMED_BY: Option<&'static str> = Some($named_by);)?

            fn read(
                value: &toml::de::DeValue<'_>,
                at: &$crate::config::file::place::Place<'_>,
                reader: &mut $crate::config::file::reader::Reader<'_>,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$($key),+];
                let before = reader.count();
                let mut keys = $crate::config::file::table::Keys::of(value, at, KEYS, reader)?;
                $( let $field = keys.take::<$type>($key); )+
                let table = Self { $( $field: $field?, )+ };
                if keys.reader.count() == before {
                    table.examine(&mut keys);
                }
                Some(table)
            }
            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut table = $crate::config::file::table::TableSchema::new(&[$($about),+]);
                $( table.key::<$type>($key, &[$($doc),+], generator); )+
                table.finish()
            }
        }
    };
}
pub(super) use table;

/// What is to be said of a table as a whole, when each of its values is well.
pub(super) trait Examine {
    /// Notes what does not go together.
    fn examine(&self, _keys: &mut Keys<'_, '_, '_>) {}
}

/// A table that is being read.
pub(super) struct Keys<'a, 'r, 't> {
    table: &'a DeTable<'a>,
    at: &'a Place<'a>,
    pub(super) reader: &'r mut Reader<'t>,
}

impl<'a, 'r, 't> Keys<'a, 'r, 't> {
    /// Notes what is no table, and keys that are none of these.
    pub(super) fn of(
        value: &'a DeValue<'a>,
        at: &'a Place<'a>,
        known: &[&str],
        reader: &'r mut Reader<'t>,
    ) -> Option<Self> {
        let Some(table) = value.as_table() else {
            reader.refuse(value, at, &format!("a table with any of {}", known.join(", ")));
            return None;
        };
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            reader.problem(&at.key(name, span), "unknown key", || match closest(name, known) {
                Some(near) => format!("did you mean `{near}`? Allowed: {}", known.join(", ")),
                None => format!("allowed are {}", known.join(", ")),
            });
        }
        Some(Self { table, at, reader })
    }

    /// Reads the value of a key, or notes that a required one is missing.
    pub(super) fn take<T: Item>(&mut self, key: &str) -> Option<T> {
        match self.table.get(key) {
            Some(value) => T::read(value.get_ref(), &self.at.key(key, value.span()), self.reader),
            None => {
                if T::REQUIRED {
                    let place = self.at.key(key, self.at.span.clone());
                    let expected = || format!("is required: {}", T::ALLOWED);
                    self.reader.problem(&place, "missing", expected);
                }
                T::absent()
            }
        }
    }

    /// Whether the table has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes that the value of a key, or that it is missing, does not go with the rest.
    pub(super) fn problem(&mut self, key: &str, expected: impl Into<String>) {
        let (value, span) = match self.table.get(key) {
            Some(value) => (show(value.get_ref()), value.span()),
            None => ("missing".to_owned(), self.at.span.clone()),
        };
        self.reader.problem(&self.at.key(key, span), value, || expected.into());
    }
}

/// The key that was meant, if one is near enough.
fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    const FARTHEST: usize = 2;
    // What is much longer than any key is none of them, and would take long to compare.
    if name.len() > 40 {
        return None;
    }
    let distance = |key: &str| strsim::damerau_levenshtein(&name.replace('_', "-"), key);
    let near = known.iter().map(|key| (distance(key), *key));
    near.filter(|(distance, key)| *distance <= FARTHEST.min(key.len() / 2)).min().map(|n| n.1)
}

/// The JSON Schema of a table, key by key.
pub(super) struct TableSchema {
    about: String,
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

impl TableSchema {
    pub(super) fn new(about: &[&str]) -> Self {
        Self { about: prose(about), properties: Map::new(), required: Vec::new() }
    }

    pub(super) fn key<T: Item>(
        &mut self,
        key: &'static str,
        about: &[&str],
        generator: &mut SchemaGenerator,
    ) {
        let mut schema = T::schema(generator);
        schema.insert("description".to_owned(), prose(about).into());
        self.properties.insert(key.to_owned(), schema.to_value());
        if T::REQUIRED {
            self.required.push(key);
        }
    }

    pub(super) fn finish(self) -> Schema {
        let mut schema = json_schema!({
            "type": "object",
            "description": self.about,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema.insert("required".to_owned(), self.required.into());
        }
        schema
    }
}

/// Documentation comments as one text.
fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
