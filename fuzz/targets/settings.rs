//! Settings in TOML, as defaults of flags of every kind that the program has. What is taken is parsed, or refused by clap.
#![no_main]

use clap::{Arg, ArgAction, Command, value_parser};
use libfuzzer_sys::fuzz_target;
use pie_fuzz::explained;
use std::path::Path;

#[path = "../../crates/pie/src/settings.rs"]
#[allow(dead_code, reason = "the program reads the file, this target has its text")]
mod settings;
#[path = "../../crates/pie/src/units.rs"]
#[allow(dead_code, reason = "the program has more flags")]
mod units;

fn command() -> Command {
    let pool = Command::new("pool")
        .arg(Arg::new("world-size").long("world-size").value_parser(value_parser!(u32).range(1..)))
        .arg(Arg::new("kv-memory").long("kv-memory").value_parser(units::bytes))
        .arg(Arg::new("drain-grace").long("drain-grace").default_value("20s").value_parser(units::duration))
        .arg(Arg::new("etcd").long("etcd").action(ArgAction::Append).value_delimiter(','))
        .arg(Arg::new("range").long("range").value_parser(units::text_range))
        .arg(Arg::new("at").long("at").value_parser(units::cursor))
        .arg(Arg::new("fim").long("fim").value_parser(value_parser!(pie_text::FimSetting)))
        .arg(Arg::new("supervised").long("supervised").action(ArgAction::SetTrue))
        .arg(Arg::new("dtype").long("dtype").value_parser(["f32", "bf16"]));
    Command::new("pie")
        .arg(Arg::new("log").long("log").global(true).default_value("warn"))
        .arg(Arg::new("config").long("config").global(true))
        .subcommand(pool)
}

fuzz_target!(|text: &str| {
    let with = settings::with_settings(command(), text, Path::new("pie.toml"));
    let Some(command) = explained(with) else { return };
    explained(command.try_get_matches_from(["pie", "pool"]));
});
