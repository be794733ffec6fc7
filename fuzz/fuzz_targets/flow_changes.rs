//! See `check_changes` in tests/support/changes_model.rs for what is checked.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::changes_model::check_changes(data));
