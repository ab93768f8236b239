//! The flags of `pie lsp`.

use crate::secure::args::ClientArgs;
use clap::Args;
use std::ffi::OsString;

/// `pie lsp`
#[derive(Clone, Debug, Args)]
#[command(after_help = "For example: pie lsp --embedded --model qwen2.5-coder-0.5b -- --kv-memory 1GiB\n\
        How editors start it: docs/editors.md")]
pub struct LspArgs {
    /// Address of the pool; several routers are separated by commas. Without a scheme it is http://, or https:// where --ca is
    /// given; without a port, 7400.
    #[arg(long, env = "PIE_POOL", default_value = "http://127.0.0.1:7400", value_name = "URL")]
    pub pool: String,
    /// How the pool is reached, and who calls.
    #[command(flatten)]
    pub access: ClientArgs,
    /// In whose name to call, where the pool asks for no tokens: each tenant has sessions of its own.
    #[arg(long, env = "PIE_TENANT", value_name = "NAME")]
    pub tenant: Option<String>,
    /// Start a pool on this machine, which ends with the language server, whatever --pool says.
    #[arg(long)]
    pub embedded: bool,
    /// The model of that pool, as `pie pool` takes it: a short name is enough.
    #[arg(long, value_name = "MODEL", requires = "embedded")]
    pub model: Option<OsString>,
    /// What else `pie pool` takes, for that pool.
    #[arg(last = true, value_name = "FLAGS OF PIE POOL", requires = "embedded")]
    pub pool_flags: Vec<OsString>,
}
