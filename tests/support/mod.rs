//! What several integration tests need: frames that read like what they are, and a small pool.

#![allow(dead_code, reason = "each test uses a part")]

pub mod beyond;
pub mod changes_model;
pub mod example;
pub mod flow_model;
pub mod frames;
pub mod harness;
pub mod pool;
