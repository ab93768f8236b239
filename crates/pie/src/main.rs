//! The program: commands, settings read once, the local process pool. What it does is in the crates below; this one
//! only puts them together and talks to people.

mod bench;
mod budget;
mod cli;
mod config;
mod ctl;
mod demo;
mod device;
mod eval;
mod explain;
mod load;
mod models;
mod observe;
mod placement;
mod pool;
mod progress;
mod router;
mod settings;
mod signals;
mod units;
mod worker;

use cli::{Cli, Command, LogFormat};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What a command fails with: a sentence that says what was wrong, where, and what to do.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let cli = match config::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => return fail(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("pie: {error}");
    ExitCode::FAILURE
}

fn run(cli: Cli) -> Result<(), Failure> {
    start_log(&cli)?;
    match cli.command {
        // The rank computes on its own thread; its control plane needs but one more.
        Command::Worker(arguments) => runtime(1)?.block_on(worker::run(arguments)),
        Command::Pool(arguments) => runtime(2)?.block_on(pool::run(arguments, &cli.log)),
        Command::Router(arguments) => runtime(2)?.block_on(router::run(arguments)),
        Command::Demo(arguments) => runtime(2)?.block_on(demo::run(arguments)),
        Command::Ctl(arguments) => runtime(1)?.block_on(ctl::run(arguments)),
        Command::Load(arguments) => runtime(2)?.block_on(load::run(*arguments)),
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn start_log(cli: &Cli) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&cli.log).map_err(|error| format!("--log {}: {error}", cli.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
