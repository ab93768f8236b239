//! What `pie ctl` takes.

use crate::secure::args::ClientArgs;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// `pie ctl`
#[derive(Clone, Debug, Args)]
pub struct CtlArgs {
    /// Address of the pool.
    #[arg(long, env = "PIE_POOL", default_value = "http://127.0.0.1:7400", value_name = "URL")]
    pub pool: String,
    #[command(flatten)]
    pub access: ClientArgs,
    /// In whose name to call, where the pool asks for no tokens: each tenant has sessions of its own.
    #[arg(long, env = "PIE_TENANT", value_name = "NAME")]
    pub tenant: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// The commands of `pie ctl`.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Describe the pool: model, groups, ranks, capacity.
    Pool,
    /// Wait until the pool serves, and say so; for scripts and probes.
    Health {
        /// How long to wait; not at all if not given.
        #[arg(long, default_value = "0s", value_name = "TIME", value_parser = crate::units::duration)]
        wait: Duration,
    },
    /// Close a group to new sessions, and move those that it has to other groups.
    Drain {
        /// Its name; a worker's own in a worker's environment.
        #[arg(env = "PIE_GROUP")]
        group: String,
        /// Open it again by itself when it has been formed anew: its workers are about to be restarted.
        #[arg(long)]
        for_restart: bool,
        /// How long completions that run may hold their session back; then they fail with SESSION_MOVING.
        #[arg(long, default_value = "30s", value_name = "TIME", value_parser = crate::units::duration)]
        timeout: Duration,
    },
    /// Open a group to new sessions again.
    Uncordon {
        /// Its name.
        group: String,
    },
    /// List the ranks.
    Ranks,
    /// List the sessions.
    Sessions,
    /// Show a session, with its text.
    Show {
        /// Its name.
        session: String,
    },
    /// Open a file as a session, or bring a session that is open to the file's content.
    Open {
        /// The file; `-` reads standard input.
        file: PathBuf,
        /// The session's name; the file's name if not given.
        #[arg(long)]
        session: Option<String>,
        /// How its cache follows edits.
        #[arg(long, default_value = "pie")]
        strategy: StrategyArg,
    },
    /// Replace a range of a session's text.
    Edit {
        /// Its name.
        session: String,
        /// The range: bytes as START..END, or LSP as LINE:COLUMN..LINE:COLUMN, both counted from 0.
        range: crate::units::EditRange,
        /// What stands there afterwards; nothing deletes.
        #[arg(default_value = "")]
        text: String,
    },
    /// Complete a session's text.
    Complete {
        /// Its name.
        session: String,
        /// The cursor, as a byte offset or LINE:COLUMN (both counted from 0); the text's end if not given.
        #[arg(long, value_name = "PLACE")]
        at: Option<crate::units::Place>,
        /// Fill in what stands between the two sides of the cursor.
        #[arg(long)]
        fim: bool,
        /// The most tokens.
        #[arg(long, default_value_t = 64)]
        tokens: u32,
        /// 0 is greedy.
        #[arg(long, default_value_t = 0.0)]
        temperature: f32,
        /// Equal seeds give equal text; without one, each completion has another.
        #[arg(long)]
        seed: Option<u64>,
        /// End before this text; may be given several times.
        #[arg(long)]
        stop: Vec<String>,
    },
    /// Close a session.
    Close {
        /// Its name.
        session: String,
    },
}

/// A strategy on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrategyArg {
    /// Encode what was inserted, turn what moved.
    Pie,
    /// Encode what was inserted, leave the rest.
    Conflict,
    /// Encode everything behind the first change.
    Full,
}
