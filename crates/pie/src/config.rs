//! Settings from a TOML file: they become the defaults of the command line, so that flag and environment win over
//! them. Read once, at start.

use crate::cli::Cli;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings file {path} cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings file {path} is not TOML: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A key that means nothing.
    #[error("the settings file {path} has an unknown key `{key}`{}", nearest.as_ref().map(|near| format!(": did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Which key, with its table.
        key: String,
        /// The known key that it resembles most.
        nearest: Option<String>,
    },
    /// A value that is not a text, number, boolean or a list of those.
    #[error("the settings file {path}: `{key}` must be a text, a number or a list of texts")]
    BadValue {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
}

/// Parses the command line, with the settings file's values as defaults.
///
/// # Errors
/// The settings file is wrong. A wrong command line ends the process with clap's message.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
    let mut command = Cli::command();
    if let Some(path) = settings_path(&arguments) {
        command = with_settings(command, &path)?;
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

fn with_settings(mut command: clap::Command, path: &Path) -> Result<clap::Command, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let settings: toml::Table = text
        .parse()
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    for (key, value) in settings {
        command = match value {
            toml::Value::Table(table) if command.find_subcommand(&key).is_some() => {
                let mut result = Ok(());
                let command = command.mut_subcommand(&key, |mut subcommand| {
                    for (flag, value) in &table {
                        match with_default(subcommand.clone(), Some(&key), flag, value, path) {
                            Ok(changed) => subcommand = changed,
                            Err(error) => result = Err(error),
                        }
                    }
                    subcommand
                });
                result?;
                command
            }
            value => with_default(command, None, &key, &value, path)?,
        };
    }
    Ok(command)
}

fn with_default(
    command: clap::Command,
    table: Option<&str>,
    flag: &str,
    value: &toml::Value,
    path: &Path,
) -> Result<clap::Command, ConfigError> {
    let full = table.map_or_else(|| flag.to_owned(), |table| format!("{table}.{flag}"));
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
    let Some(id) = argument.map(|argument| argument.get_id().clone()) else {
        let nearest = nearest(&command, table, flag);
        return Err(ConfigError::UnknownKey { path: path.to_owned(), key: full, nearest });
    };
    let text = as_text(value).ok_or(ConfigError::BadValue { path: path.to_owned(), key: full })?;
    Ok(command.mut_arg(id, |argument| argument.default_value(text)))
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(list) => {
            list.iter().map(as_text).collect::<Option<Vec<_>>>().map(|list| list.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The known key that resembles a wrong one most, if it resembles it at all.
fn nearest(command: &clap::Command, table: Option<&str>, key: &str) -> Option<String> {
    let flags = command.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned);
    let tables = command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned());
    let known = flags.chain(tables).filter(|known| known != "config" && known != "supervised");
    let best =
        known.map(|known| (strsim::jaro_winkler(&known, key), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then(|| table.map_or_else(|| best.1.clone(), |table| format!("{table}.{}", best.1)))
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
