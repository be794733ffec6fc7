//! See `check_quic` in tests/support/harness.rs for what is checked.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::harness::check_quic(data));
