//! sessions, group owners and the public API.
