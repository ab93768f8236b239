//! Load by edit streams: scripts, people that write them (made up, or out of git), open-loop runs, latency reports.
//!
//! **Owns** the script format ([`script`]), the streams' origins ([`people`]), the run ([`run`]) against a pool or an
//! OpenAI-style server ([`target`]), what is measured ([`measure`]) and the pages made of it ([`report`]).
//!
//! **Invariant.** Every latency counts from the time at which the stream wanted the thing done, not from the time at which
//! the server let the client do it: a slow server makes numbers large, never few. And the client's text is the truth: an
//! accepted completion changes documents, but never the script's places in them.
//!
//! **Must not know** the router's insides, models, the command line.

mod error;
pub mod measure;
pub mod page;
pub mod people;
pub mod report;
pub mod run;
pub mod script;
pub mod target;

pub use error::LoadError;
