//! The program: commands, settings read once, the local process pool. What it does is in the crates below; this one
//! only puts them together and talks to people.

// Both may be pipes whose reader has gone, where the macros of the standard library panic.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod out;

mod bench;
mod budget;
mod cache;
mod cli;
mod completions;
mod config;
mod ctl;
mod demo;
mod device;
mod eval;
mod explain;
mod front;
mod hub;
mod load;
mod lsp;
mod models;
mod observe;
mod placement;
mod pool;
mod progress;
mod ready;
mod router;
mod secure;
mod settings;
mod signals;
mod spill;
mod starter;
mod units;
mod worker;

use cli::{Cli, Command};
use observe::{ProcessName, Telling, Tone, TraceArgs};
use settings::ConfigError;
use std::ffi::OsString;
use std::process::ExitCode;

/// What a command fails with: a sentence that says what was wrong, where, and what to do.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A failure that those whom it concerns have been told already.
#[derive(Debug, thiserror::Error)]
#[error("it was told already")]
struct ReportedError;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    observe::begin(&arguments);
    let cli = match config::parse(arguments) {
        Ok(cli) => cli,
        Err(ConfigError::Usage(usage)) => return misused(&usage),
        Err(error) => return fail(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

/// A command line that is none, or a page of help.
fn misused(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() && !observe::for_people() {
        observe::tell(Tone::Error, usage.to_string().trim_end());
    } else {
        // Nobody reads it: there is nobody to tell.
        let _ = usage.print();
    }
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if !error.is::<ReportedError>() {
        observe::tell(Tone::Error, &error.to_string());
    }
    ExitCode::FAILURE
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { logs, command, .. } = cli;
    let (traces, identity) = identity(&command);
    let telling = Telling::start(&logs, traces, &identity)?;
    let result = match command {
        // The rank computes on its own thread; its control plane needs but one more.
        Command::Worker(arguments) => runtime(1)?.block_on(worker::run(arguments)),
        Command::Pool(arguments) => runtime(SERVING)?.block_on(pool::run(arguments, &logs)),
        Command::Router(arguments) => runtime(SERVING)?.block_on(router::run(arguments)),
        Command::Demo(arguments) => runtime(2)?.block_on(demo::run(arguments)),
        Command::Ctl(arguments) => {
            observe::belong_to_starter();
            runtime(1)?.block_on(ctl::run(arguments))
        }
        Command::Load(arguments) => {
            observe::belong_to_starter();
            runtime(2)?.block_on(load::run(*arguments))
        }
        Command::Lsp(arguments) => {
            observe::belong_to_starter();
            runtime(2)?.block_on(lsp::run(arguments, &logs))
        }
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Token(arguments) => secure::token::run(&arguments),
        Command::Model(arguments) => hub::command::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    telling.end();
    result
}

/// Who a process is, and where its traces go.
fn identity(command: &Command) -> (&TraceArgs, ProcessName) {
    let (service, platform, group, rank) = match command {
        Command::Worker(worker) => {
            ("pie-worker", &worker.platform, worker.group.group.clone(), Some(worker.index))
        }
        Command::Router(router) => {
            ("pie-router", &router.serve.platform, router.group.groups.join(","), None)
        }
        Command::Pool(pool) => ("pie-router", &pool.serve.platform, pool.group.groups.join(","), None),
        _ => return (&TraceArgs::OFF, ProcessName::default()),
    };
    (&platform.traces, ProcessName { service, group: Some(group), rank })
}

/// Threads of what serves. Messages of many MiB are decoded on them, each in one go: with some to spare the processors are shared out by
/// the system, and nobody's short call waits behind another one's long message.
const SERVING: usize = 4;

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
