//! See `check_encapsulate` in tests/support/beyond.rs for what is checked.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::beyond::check_encapsulate(data));
