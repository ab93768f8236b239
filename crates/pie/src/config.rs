//! Settings from a TOML file: they become the defaults of the command line, so that flag and environment win over
//! them. Read once, at start.

use crate::cli::Cli;
use crate::settings::{ConfigError, with_settings};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// Parses the command line, with the settings file's values as defaults.
///
/// # Errors
/// The settings file is wrong. A wrong command line ends the process with clap's message.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
    let mut command = Cli::command();
    if let Some(path) = settings_path(&arguments) {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        command = with_settings(command, &text, &path)?;
    }
    let matches = command.get_matches_from(arguments);
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// The file must be known before the command line can be parsed with its defaults. Behind `bench gpu` a `--config` is a
/// model's.
fn settings_path(arguments: &[OsString]) -> Option<PathBuf> {
    let place = |word: &str, from: usize| {
        arguments[from..].iter().position(|argument| argument == word).map(|place| from + place)
    };
    let end = place("bench", 0).and_then(|bench| place("gpu", bench)).unwrap_or(arguments.len());
    let mut arguments = arguments[..end].iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => return arguments.next().map(PathBuf::from),
            Some(text) if text.starts_with("--config=") => {
                return Some(PathBuf::from(&text["--config=".len()..]));
            }
            _ => {}
        }
    }
    std::env::var_os("PIE_CONFIG").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn parsed(settings: &str, arguments: &[&str]) -> Result<Cli, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pie.toml");
        std::fs::write(&path, settings).expect("the settings are written");
        let mut all = vec![OsString::from("pie"), "--config".into(), path.into()];
        all.extend(arguments.iter().map(OsString::from));
        parse(all)
    }

    #[test]
    fn the_file_sets_defaults_and_flags_win() {
        let settings =
            "log = 'info'\n[pool]\nworld-size = 4\nkv-memory = '1GiB'\netcd = ['http://a', 'http://b']\n";
        let cli = parsed(settings, &["pool", "--world-size", "2"]).expect("the settings are right");
        let Command::Pool(pool) = cli.command else { panic!("another command") };
        assert_eq!(
            (cli.logs.log.as_str(), pool.group.world_size, pool.rank.kv_memory),
            ("info", 2, Some(1 << 30))
        );
        assert_eq!(pool.group.etcd, ["http://a", "http://b"]);
    }

    #[test]
    fn behind_bench_gpu_config_is_the_model() {
        let model = ["bench", "gpu", "--config", "deepseek-coder-33b"];
        for settings in ["", "log = 'info'"] {
            let cli = parsed(settings, &model).expect("the settings are right");
            assert_eq!(cli.logs.log, if settings.is_empty() { "warn" } else { "info" });
            let Command::Bench(bench) = cli.command else { panic!("another command") };
            let Some(crate::bench::args::BenchCommand::Gpu(gpu)) = bench.command else {
                panic!("no command")
            };
            assert_eq!(gpu.config, Some(PathBuf::from("deepseek-coder-33b")));
        }
    }

    #[test]
    fn wrong_settings_say_what_is_wrong() {
        let cases = [
            ("[pool]\nworldsize = 4\n", "pool.worldsize", "did you mean `pool.world-size`?"),
            ("[pol]\nworld-size = 4\n", "pol", "did you mean `pool`?"),
            ("zzzzqq = 1\n", "zzzzqq", "unknown key"),
            ("[pool]\nworld-size = 1979-05-27\n", "pool.world-size", "must be a text"),
            ("= 3", "not TOML", "line 1"),
        ];
        for (settings, key, advice) in cases {
            let cause = parsed(settings, &["pool"]).expect_err(settings).to_string();
            assert!(cause.contains(key) && cause.contains(advice), "{settings:?}: {cause}");
        }
    }
}
