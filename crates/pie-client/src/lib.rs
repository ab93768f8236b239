//! a session handle for Rust callers.
