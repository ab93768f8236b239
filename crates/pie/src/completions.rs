//! `pie completions`: what a shell needs to complete the command line.

use crate::Failure;
use crate::cli::{Cli, CompletionsArgs};
use clap::CommandFactory;

/// Prints the shell's completion script.
pub fn run(arguments: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "pie", &mut script);
    out!("{}", String::from_utf8(script)?);
    Ok(())
}
