//! dsrlb
