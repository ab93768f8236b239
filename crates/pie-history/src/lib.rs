//! What files became, commit by commit: streams of edits that people made.
//!
//! **Owns** reading a repository's history by the `git` program ([`FileVersions`]), and what lines differ between two texts ([`changes`]).
//!
//! **Invariant.** A version's text is the commit's, byte for byte; changes from one text to another, made, give the other.
//!
//! **Must not know** sessions, models, the command line.

mod git;
mod lines;

pub use git::{FileVersions, GitError, Repository, Version};
pub use lines::{Change, changes};
