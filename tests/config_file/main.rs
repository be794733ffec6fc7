//! Configuration files: what they mean, what is said of bad ones, and their JSON Schema.

mod bad;
mod good;
mod schema;
