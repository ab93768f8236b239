//! The command line: what each command takes, and from where (flag, environment, TOML file, default, in this order).

mod rank;

pub use crate::ctl::args::{CtlArgs, StrategyArg};
pub use crate::eval::args::EvalArgs;
use crate::hub::args::HubArgs;
pub use crate::lsp::args::LspArgs;
use crate::observe::{LogArgs, PlatformArgs};
use crate::placement::PlacementArgs;
use crate::secure::args::{InternalArgs, PublicArgs, TokenArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pie_text::{FimSetting, PromptForm, TokenizerSettings};
pub use rank::{Collectives, DtypeArg, KvDtypeArg, RankArgs};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An inference pool that edits its KV cache when you edit the code.
#[derive(Debug, Parser)]
#[command(
    name = "pie",
    version,
    about,
    long_about = "An inference pool that edits its KV cache when you edit the code.\n\n\
        Open a document, stream its edits, ask for completions: the pool encodes only what was inserted and rotates the \
        cached keys behind it, so that an answer costs what the edit costs, not what the document costs.",
    after_help = "Start with `pie demo`. Then `pie pool` serves, and `pie ctl open FILE` talks to it."
)]
pub struct Cli {
    /// TOML file of settings: keys are the long flags, in a table for each command ([pool], [worker], …).
    #[arg(long, global = true, env = "PIE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what it is about: eight workers, a real file, a stream of edits, `pie` beside `full`.
    Demo(DemoArgs),
    /// Serve on this machine: a router and N workers. Ctrl-C stops all.
    Pool(PoolArgs),
    /// Serve the public API for ranks that run elsewhere.
    Router(RouterArgs),
    /// Run one rank of a group.
    Worker(WorkerArgs),
    /// Measure edit-to-first-token, prefill and decode of one rank, and write BENCHMARKS rows.
    Bench(Box<crate::bench::args::BenchArgs>),
    /// Evaluate PIE as the paper does: quality and time against full recomputation, as tables and figures.
    Eval(EvalArgs),
    /// Send a pool edit streams (made up, or a git repository's history) in open loop, and measure.
    Load(Box<crate::load::args::LoadArgs>),
    /// Talk to a pool from the shell.
    Ctl(CtlArgs),
    /// Serve an editor, over LSP at standard input and output: its documents live in a pool and are completed there.
    Lsp(LspArgs),
    /// Make a bearer token, and its entry for the tokens file.
    Token(TokenArgs),
    /// Fetch, list and remove models of a hub.
    Model(crate::hub::command::ModelCommandArgs),
    /// Say what an error's reason means and what to do.
    Explain(ExplainArgs),
    /// Print what a shell needs to complete this command line.
    Completions(CompletionsArgs),
}

/// Which model.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A short name (`qwen2.5-coder-0.5b`; `pie model list --names` shows all); a place on a hub, hf:OWNER/NAME or
    /// hf:OWNER/NAME/FILE.gguf, with @REVISION for another one than main; a Hugging Face model folder (config.json, tokenizer.json,
    /// safetensors); a GGUF file; or `seeded:NAME` for random weights of a named shape (`seeded:tiny`). Without it the small code
    /// model that ships.
    #[arg(long, env = "PIE_MODEL", value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The hub, if it is there.
    #[command(flatten)]
    pub hub: HubArgs,
}

/// The group of ranks.
#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    /// Ranks of the tensor-parallel group.
    #[arg(long, env = "PIE_WORLD_SIZE", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub world_size: u32,
    /// Name of the group.
    #[arg(long, env = "PIE_GROUP", default_value = "g0", value_name = "NAME")]
    pub group: String,
    /// Where ranks and routers find each other.
    #[command(flatten)]
    pub placement: PlacementArgs,
}

/// Groups of ranks, all alike.
#[derive(Clone, Debug, Args)]
pub struct GroupsArgs {
    /// Ranks of each group. Without it a router expects eight; a pool starts eight for the model that ships, and for any other
    /// one on the CPU, or as many as share it evenly on the GPUs that are there.
    #[arg(long, env = "PIE_WORLD_SIZE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub world_size: Option<u32>,
    /// Names of the groups, separated by commas: each holds a copy of the model, and sessions are shared out among them.
    #[arg(
        id = "groups",
        long = "group",
        env = "PIE_GROUP",
        default_value = "g0",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub groups: Vec<String>,
    /// Where ranks and routers find each other.
    #[command(flatten)]
    pub placement: PlacementArgs,
}

/// Ranks of a group where nobody says how many.
pub const WORLD_SIZE: u32 = 8;

impl GroupsArgs {
    /// Ranks of each group.
    pub fn ranks(&self) -> u32 {
        self.world_size.unwrap_or(WORLD_SIZE)
    }
}

/// Where the HTTP API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpArg {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl HttpArg {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { crate::units::address(text).map(Self::At) }
    }
}

/// Whether there is a page to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PageArg {
    /// At / of the HTTP API.
    On,
    /// Nowhere.
    Off,
}

impl From<PageArg> for pie_http::PageVisibility {
    fn from(argument: PageArg) -> Self {
        match argument {
            PageArg::On => Self::Shown,
            PageArg::Off => Self::Hidden,
        }
    }
}

/// How a router serves.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address of the public gRPC API; port 0 takes a free one.
    #[arg(long, env = "PIE_LISTEN", default_value = "127.0.0.1:7400", value_name = "HOST:PORT", value_parser = crate::units::address)]
    pub listen: SocketAddr,
    /// Address of the HTTP API, which speaks as OpenAI's and llama.cpp's servers do (docs/http.md), or off. If not given, 127.0.0.1:7480
    /// of `pie pool`, where that is free; off of `pie router`.
    #[arg(long, env = "PIE_HTTP", value_name = "HOST:PORT", value_parser = HttpArg::parse)]
    pub http: Option<HttpArg>,
    /// Whether the HTTP API has a page at /, which shows in a browser what the pool does at each keystroke. If not given, on in
    /// `pie pool`, off in `pie router`.
    #[arg(long, env = "PIE_PAGE", value_name = "WHETHER")]
    pub page: Option<PageArg>,
    /// Address of the internal gRPC API, through which routers pass calls on to each other: for routers alone.
    #[arg(long, env = "PIE_PEER_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT", value_parser = crate::units::address)]
    pub peer_listen: SocketAddr,
    /// Host under which other routers reach --peer-listen; needed where that listens on all addresses.
    #[arg(long, env = "PIE_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// Who may connect.
    #[command(flatten)]
    pub public: PublicArgs,
    /// Longest time that any collective may take before the group is given up.
    #[arg(long, env = "PIE_COLLECTIVE_DEADLINE", default_value = "4s", value_name = "TIME", value_parser = crate::units::some_time)]
    pub collective_deadline: Duration,
    /// Rows of a step: tokens encoded in one forward pass.
    #[arg(long, env = "PIE_STEP_TOKENS", default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(8..))]
    pub step_tokens: u32,
    /// How long a step may be held up by documents that are being opened while others get tokens: what everybody else waits
    /// for. By it, and the speed that the ranks show, steps have fewer tokens than --step-tokens. Where several tenants have sessions
    /// it holds for all tokens of a step.
    #[arg(long, env = "PIE_PREFILL_TIME", default_value = "30ms", value_name = "TIME", value_parser = crate::units::some_time)]
    pub prefill_time: Duration,
    /// Tokens that are decoded in one step when nobody waits; a step is cut short when somebody does.
    #[arg(long, env = "PIE_DECODE_TOKENS", default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub decode_tokens: u32,
    /// The most tokens that a pass of a completion looks up ahead, in its document and in what it has written, and verifies. What is
    /// written is the same, and comes sooner where it stands somewhere already. How many are looked up follows from how many were right,
    /// and from what they cost. 0 for none.
    #[arg(long, env = "PIE_DRAFT_TOKENS", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(..=64))]
    pub draft_tokens: u32,
    /// Sessions that a group may have; more are refused, unless one has been idle for --session-room and makes room. Those that do
    /// not fit in the cache are encoded again when they are used.
    #[arg(long, env = "PIE_SESSIONS", default_value_t = 10_000, value_name = "N", value_parser = crate::units::some)]
    pub sessions: usize,
    /// When sessions that nobody uses are closed.
    #[command(flatten)]
    pub idle: IdleArgs,
    /// Completions that may run or wait in each group; more are refused with a pause to retry after.
    #[arg(long, env = "PIE_COMPLETIONS", default_value_t = 1024, value_name = "N", value_parser = crate::units::some)]
    pub completions: usize,
    /// Who has an edit when its caller is told that it is made: all ranks of the group, so that it outlives the router, or the
    /// router alone, which is a moment sooner. `replicated` if not given; `owner` in `pie pool`, whose ranks end with it.
    #[arg(long, env = "PIE_ACK", value_name = "WHO")]
    pub ack: Option<AckArg>,
    /// How what edits left stale is encoded again.
    #[command(flatten)]
    pub healing: HealingArgs,
    /// How the model fills in the middle, where the pool does not know it by its tokens: what stands around the two sides of a
    /// cursor, such as '<PRE>{prefix}<SUF>{suffix}<MID>', or the name of a family that does the same (docs/models.md).
    #[arg(long, env = "PIE_FIM", value_name = "TEMPLATE")]
    pub fim: Option<FimSetting>,
    /// How the model is asked for a next edit (mode REWRITE), where its name does not tell: as the models `sweep` or `zeta` are, which were
    /// trained for it, or in `plain` words (docs/models.md).
    #[arg(long, env = "PIE_NEXT_EDIT", value_name = "FORM")]
    pub next_edit: Option<PromptForm>,
    /// Documents that begin alike share cached rows whoever's they are, not only within a tenant. Whoever may open documents can
    /// then find out by trying what others have open: for pools whose tenants trust each other.
    #[arg(long, env = "PIE_SHARE_ACROSS_TENANTS")]
    pub share_across_tenants: bool,
    /// What each tenant may take.
    #[command(flatten)]
    pub tenant: TenantArgs,
    /// Largest document.
    #[arg(long, env = "PIE_DOCUMENT_LIMIT", default_value = "16MiB", value_name = "SIZE", value_parser = crate::units::bytes)]
    pub document_limit: u64,
    /// Write one line of JSON to this file when the pool serves: its address and its processes.
    #[arg(long, env = "PIE_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Metrics, traces, and how the process ends.
    #[command(flatten)]
    pub platform: PlatformArgs,
}

/// What kept tokens say is as old as the text on their left when they were encoded: edits make them stale. Encoding them again, from left to
/// right, makes them exact.
#[derive(Clone, Copy, Debug, Args)]
pub struct HealingArgs {
    /// Which stale tokens are encoded again: those that edits with the strategy `repair` ask for (with-edits), these and all others when
    /// nobody wants anything (idle), or these and as many as ride in each pass for next to nothing (always).
    #[arg(long, env = "PIE_REPAIR", default_value = "always", value_name = "WHEN")]
    pub repair: RepairArg,
    /// Kept tokens behind an edit that are encoded again with it, under the strategy `repair`.
    #[arg(long, env = "PIE_REPAIR_WINDOW", default_value_t = 16, value_name = "N")]
    pub repair_window: u32,
    /// Tokens that a pass takes along for next to nothing; if not given, as many as the ranks' own times say.
    #[arg(long, env = "PIE_FREE_ROWS", value_name = "N")]
    pub free_rows: Option<u32>,
}

/// Who has an edit when its caller is told that it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AckArg {
    /// All ranks of the group, and the router.
    Replicated,
    /// The router; the ranks a moment later.
    Owner,
}

impl From<AckArg> for pie_group::core::Ack {
    fn from(argument: AckArg) -> Self {
        match argument {
            AckArg::Replicated => Self::Replicated,
            AckArg::Owner => Self::Owner,
        }
    }
}

/// When stale tokens are encoded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RepairArg {
    /// Where an edit's strategy asks for it.
    WithEdits,
    /// And when nobody wants anything.
    Idle,
    /// And in each pass, as far as it costs next to nothing.
    Always,
}

/// When sessions are closed whose clients have gone without a word. What counts is when they were last opened, edited, completed, or
/// read by GetSession; one that is being completed is in use.
#[derive(Clone, Copy, Debug, Args)]
pub struct IdleArgs {
    /// Close sessions that nobody has used for this time; `never` keeps them.
    #[arg(long, env = "PIE_SESSION_IDLE", default_value = "7d", value_name = "TIME", value_parser = crate::units::limit)]
    pub session_idle: crate::units::Limit,
    /// Where a group, or a tenant, has as many sessions as it may: a new one takes the place of the least recently used one, if
    /// nobody has used that for this time; `never` refuses the new one.
    #[arg(long, env = "PIE_SESSION_ROOM", default_value = "5m", value_name = "TIME", value_parser = crate::units::limit)]
    pub session_room: crate::units::Limit,
}

/// The most that one tenant (its token's, or gRPC metadata `pie-tenant`) may have.
#[derive(Clone, Copy, Debug, Args)]
pub struct TenantArgs {
    /// Sessions that a tenant may have open; no limit if not given.
    #[arg(long, env = "PIE_TENANT_SESSIONS", value_name = "N", value_parser = crate::units::some)]
    pub tenant_sessions: Option<usize>,
    /// Tokens of a tenant's documents; no limit if not given.
    #[arg(long, env = "PIE_TENANT_TOKENS", value_name = "N", value_parser = crate::units::some)]
    pub tenant_tokens: Option<usize>,
    /// Completions of a tenant that may run or wait; no limit if not given.
    #[arg(long, env = "PIE_TENANT_REQUESTS", value_name = "N", value_parser = crate::units::some)]
    pub tenant_requests: Option<usize>,
}

/// `pie pool`
#[derive(Clone, Debug, Args)]
pub struct PoolArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The groups that it takes part in.
    #[command(flatten)]
    pub group: GroupsArgs,
    /// Memory, threads and device of each rank.
    #[command(flatten)]
    pub rank: RankArgs,
    /// The router's settings.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Stop when standard input closes. For `pie lsp`.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// `pie router`
#[derive(Clone, Debug, Args)]
pub struct RouterArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The groups that it wants to own.
    #[command(flatten)]
    pub group: GroupsArgs,
    /// The router's settings.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Certificates between routers and workers.
    #[command(flatten)]
    pub internal: InternalArgs,
    /// Control addresses of all ranks in rank order, group by group, separated by commas, when there is no etcd to ask.
    #[arg(long, env = "PIE_RANKS", value_name = "URLS", value_delimiter = ',')]
    pub ranks: Vec<String>,
}

/// `pie worker`
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The group that it is a rank of.
    #[command(flatten)]
    pub group: GroupArgs,
    /// Memory, threads and device.
    #[command(flatten)]
    pub rank: RankArgs,
    /// This worker's index in its group.
    #[arg(long = "rank", id = "rank_index", env = "PIE_RANK", value_name = "N")]
    pub index: u32,
    /// Address of the control API.
    #[arg(long, env = "PIE_WORKER_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT", value_parser = crate::units::address)]
    pub listen: SocketAddr,
    /// Certificates between routers and workers.
    #[command(flatten)]
    pub internal: InternalArgs,
    /// Address of the collectives' listener, which the other ranks must reach.
    #[arg(long, env = "PIE_COLLECTIVE_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT", value_parser = crate::units::address)]
    pub collective_listen: SocketAddr,
    /// Metrics, traces, and how the process ends.
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// Print one line of JSON when the control API answers, and stop when standard input closes. For `pie pool`.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// `pie demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Ranks of the tensor-parallel group: eight for the model that ships, and as `pie pool` has it for others.
    #[arg(long, env = "PIE_WORLD_SIZE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub world_size: Option<u32>,
    /// The document; a source file of pie-pool itself if not given.
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// The stream of edits (JSON lines); the one that ships if not given.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Only the first edits of the script, for a quick check.
    #[arg(long)]
    pub short: bool,
    /// Tokens of each completion.
    #[arg(long, visible_alias = "max-tokens", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub tokens: u32,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write a plot of both latencies.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// `pie explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The reason, for example REVISION_MISMATCH; all if not given.
    pub reason: Option<String>,
}

/// `pie completions`
#[derive(Clone, Debug, Args)]
#[command(after_help = "For example: pie completions bash > ~/.local/share/bash-completion/completions/pie")]
pub struct CompletionsArgs {
    /// Whose.
    pub shell: clap_complete::Shell,
}

impl ServeArgs {
    /// What is said of the model's tokenizer beside its files.
    pub fn tokenizer(&self) -> TokenizerSettings<'_> {
        TokenizerSettings { fim: self.fim.as_ref(), form: self.next_edit }
    }
}
