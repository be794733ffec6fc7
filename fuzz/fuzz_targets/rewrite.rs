//! See `check_rewrite` in tests/support/harness.rs for what is checked.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::harness::check_rewrite(data));
