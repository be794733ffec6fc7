//! See `check_config` in tests/support/config.rs for what is checked.

#![no_main]

#[path = "../../tests/support/config.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::check_config(data));
