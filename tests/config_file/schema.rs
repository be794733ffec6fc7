//! The JSON Schema that is checked in is that of the code.

use dsrlb::config::file::ConfigFile;
use serde_json::Value;
use std::path::Path;

#[test]
fn the_checked_in_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
    let schema = serde_json::to_string_pretty(&ConfigFile::json_schema()).unwrap() + "\n";
    if std::env::var_os("DSRLB_SCHEMA").is_some_and(|what| what == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &schema).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == schema,
        "{} is not that of the code: run `DSRLB_SCHEMA=write cargo test --features file --test \
         config_file` and look at what changed",
        path.display()
    );
}

/// The tables that a schema describes, as sets of keys.
#[test]
fn the_example_has_every_key_of_the_schema() {
    let schema = serde_json::to_value(ConfigFile::json_schema()).unwrap();
    let example = include_str!("all-keys.toml");
    let mut keys = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap().values();
    for table in definitions.chain([&schema]) {
        assert_eq!(table["additionalProperties"], Value::Bool(false), "{table}");
        for (key, of) in table["properties"].as_object().unwrap() {
            assert!(of["description"].as_str().is_some_and(|text| !text.is_empty()), "{key}");
            keys.push(key.clone());
        }
    }
    assert!(keys.len() > 45, "{keys:?}");
    for key in keys {
        let is_named = example.split(|c: char| !c.is_alphanumeric() && c != '-').any(|w| w == key);
        assert!(is_named, "`{key}` is not in the example");
    }
}
