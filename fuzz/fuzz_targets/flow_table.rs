//! See `check_flow_table` in tests/support/flow_model.rs for what is checked.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::flow_model::check_flow_table(data));
