//! Settings in TOML: each value becomes the default of the flag that it names. Knows no flag itself: whatever a command
//! has can be set.

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

/// A command whose defaults are the settings in a text; `path` is for errors.
///
/// # Errors
/// Which key is wrong, and why.
pub fn with_settings(
    mut command: clap::Command,
    text: &str,
    path: &Path,
) -> Result<clap::Command, ConfigError> {
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
