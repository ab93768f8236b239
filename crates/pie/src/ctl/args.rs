//! What `pie ctl` takes.

use crate::secure::args::ClientArgs;
use crate::units::{cursor, text_range};
use clap::{Args, Subcommand, ValueEnum};
use pie_words::{Cursor, TextRange};
use std::path::PathBuf;
use std::time::Duration;

/// `pie ctl`
#[derive(Clone, Debug, Args)]
pub struct CtlArgs {
    /// Address of the pool; several routers are separated by commas. Without a scheme it is http://, or https:// where --ca is
    /// given; without a port, 7400.
    #[arg(
        long,
        global = true,
        env = "PIE_POOL",
        default_value = "http://127.0.0.1:7400",
        value_name = "URL"
    )]
    pub pool: String,
    /// How the pool is reached, and who calls.
    #[command(flatten)]
    pub access: ClientArgs,
    /// In whose name to call, where the pool asks for no tokens: each tenant has sessions of its own.
    #[arg(long, env = "PIE_TENANT", value_name = "NAME")]
    pub tenant: Option<String>,
    /// How long the pool may take to answer a call; of `drain`, how long completions that run may hold their session back (then
    /// they fail with SESSION_MOVING). If not given: 10s, for texts 60s, for tokens 5m, for `drain` 30s.
    #[arg(long, global = true, value_name = "TIME", value_parser = crate::units::some_time)]
    pub timeout: Option<Duration>,
    /// Print JSON: one value a line, whose fields stay; a failure too, on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// The commands of `pie ctl`.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Describe the pool: model, groups, ranks, capacity.
    Pool,
    /// Say whether the pool serves: a group is formed and takes new sessions. For scripts and probes.
    Health {
        /// How long to wait until it does, whatever is in the way; not at all if not given.
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
        /// Its name, or its file; the end of the path is enough where only one session's ends so.
        session: String,
    },
    /// Open a file as a session, or bring a session that is open to the file's content.
    Open {
        /// The file; `-` reads standard input.
        file: PathBuf,
        /// The session's name; the file's whole path if not given.
        #[arg(long)]
        session: Option<String>,
        /// How its cache follows edits; as it was, or pie, if not given.
        #[arg(long)]
        strategy: Option<StrategyArg>,
        /// With the strategy repair: kept tokens behind an edit's places that are encoded again with it; as it was, or as the pool is set, if
        /// not given.
        #[arg(long, value_name = "N")]
        repair_window: Option<u32>,
        /// Read what spells a control token of the model, in the file and in later edits, as that token.
        #[arg(long)]
        control_tokens: bool,
    },
    /// Replace a range of a session's text.
    Edit {
        /// Its name, or its file.
        session: String,
        /// The range: bytes as START..END, or LSP as LINE:COLUMN..LINE:COLUMN, both counted from 0.
        #[arg(value_parser = text_range)]
        range: TextRange,
        /// What stands there afterwards; nothing deletes.
        #[arg(default_value = "")]
        text: String,
        /// How the cache follows this edit; as the session says, if not given.
        #[arg(long)]
        strategy: Option<StrategyArg>,
        /// With the strategy repair: kept tokens behind the place that are encoded again with it; as the session says, if not given.
        #[arg(long, value_name = "N")]
        repair_window: Option<u32>,
    },
    /// Complete a session's text.
    Complete {
        /// Its name, or its file.
        session: String,
        /// The cursor, as a byte offset or LINE:COLUMN (both counted from 0); the text's end if not given.
        #[arg(long, value_name = "PLACE", value_parser = cursor)]
        at: Option<Cursor>,
        /// Fill in what stands between the two sides of the cursor.
        #[arg(long)]
        fim: bool,
        /// Encode again first what edits left stale: the answer of a document that was encoded anew.
        #[arg(long)]
        exact: bool,
        /// The most tokens.
        #[arg(long, visible_alias = "max-tokens", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        tokens: u32,
        /// 0 is greedy.
        #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = temperature)]
        temperature: f32,
        /// Equal seeds give equal text; without one, each completion has another.
        #[arg(long)]
        seed: Option<u64>,
        /// End before this text; may be given several times.
        #[arg(long)]
        stop: Vec<String>,
    },
    /// Write the lines around a cursor anew, as the latest edits ask for, and show what that changes.
    Rewrite {
        /// Its name, or its file.
        session: String,
        /// The cursor, as a byte offset or LINE:COLUMN (both counted from 0); the text's end if not given.
        #[arg(long, value_name = "PLACE", value_parser = cursor)]
        at: Option<Cursor>,
        /// Lines before the cursor's, and behind it, that are written anew with it.
        #[arg(long, default_value_t = 10, value_name = "N")]
        lines: u32,
        /// Make the changes.
        #[arg(long)]
        apply: bool,
        /// The most tokens; if not given, twice as many as these lines have, and some.
        #[arg(long, visible_alias = "max-tokens", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        tokens: Option<u32>,
        /// 0 is greedy.
        #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = temperature)]
        temperature: f32,
        /// Equal seeds give equal text; without one, each answer is another.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Close a session.
    Close {
        /// Its name, or its file.
        session: String,
    },
    /// List what tenants hold, and since when nobody used it: for who runs the pool.
    Held {
        /// Whose; `-` are those who do not say who they are. All tenants' if not given.
        whose: Option<String>,
    },
    /// Close what a tenant holds, whoever uses it: for who runs the pool.
    Evict {
        /// Whose; `-` are those who do not say who they are.
        whose: String,
        /// This session.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        session: Option<String>,
        /// All that it has.
        #[arg(long)]
        all: bool,
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
    /// As pie, and encode a window right behind each edit again.
    Repair,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("`{text}` is no temperature: give 0, or more")),
    }
}
