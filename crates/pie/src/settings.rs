//! Settings in TOML: each value becomes the default of the flag that it names. Knows no flag itself: whatever a command
//! has can be set.

use std::path::{Path, PathBuf};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings file {path} is not TOML: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A key that means nothing, or nothing there.
    #[error("the settings file {path} has an unknown key `{key}`{}", advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Which key, with its table.
        key: String,
        /// Where it belongs, or the known key that it resembles most.
        advice: Option<String>,
    },
    /// A value that is not a text, number, boolean or a list of those.
    #[error("the settings file {path}: `{key}` must be a text, a number or a list of texts")]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key whose value is none.
        key: String,
    },
    /// The command line, whatever the settings are; or a page of help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
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
    let whole = command.clone();
    let tables = SettingsTables { whole: &whole, path };
    tables.read(&mut command, &[], settings)?;
    Ok(command)
}

/// Reads a file's tables into the commands that they name.
struct SettingsTables<'a> {
    /// As it is without any settings: where keys belong.
    whole: &'a clap::Command,
    path: &'a Path,
}

impl SettingsTables<'_> {
    /// The keys of one table, which stands in `tables`, become defaults of its command.
    fn read(
        &self,
        command: &mut clap::Command,
        tables: &[String],
        settings: toml::Table,
    ) -> Result<(), ConfigError> {
        for (key, value) in settings {
            match value {
                toml::Value::Table(table) if command.find_subcommand(&key).is_some() => {
                    let inner = [tables, std::slice::from_ref(&key)].concat();
                    if let Some(subcommand) = command.find_subcommand_mut(&key) {
                        self.read(subcommand, &inner, table)?;
                    }
                }
                value => self.set(command, tables, &key, &value)?,
            }
        }
        Ok(())
    }

    fn set(
        &self,
        command: &mut clap::Command,
        tables: &[String],
        key: &str,
        value: &toml::Value,
    ) -> Result<(), ConfigError> {
        let path = || self.path.to_owned();
        let full = || [tables, &[key.to_owned()]].concat().join(".");
        let Some(id) = command
            .get_arguments()
            .find(|argument| names(argument, key))
            .map(|argument| argument.get_id().clone())
        else {
            let advice = self.belongs(key).or_else(|| nearest(command, tables, key));
            return Err(ConfigError::UnknownKey { path: path(), key: full(), advice });
        };
        let text = as_text(value).ok_or_else(|| ConfigError::BadValue { path: path(), key: full() })?;
        *command = std::mem::take(command).mut_arg(id, |argument| argument.default_value(text));
        Ok(())
    }

    /// Where a key that is known elsewhere belongs.
    fn belongs(&self, key: &str) -> Option<String> {
        if self.whole.get_arguments().any(|argument| names(argument, key)) {
            return Some("it belongs at the top of the file, before the first table".to_owned());
        }
        let mut tables = Vec::new();
        homes(self.whole, key, "", &mut tables);
        let homes = match tables.len() {
            0 => return None,
            1 => format!("the table {}", tables.concat()),
            _ => format!("one of the tables {}", tables.join(", ")),
        };
        Some(format!("it belongs in {homes}"))
    }
}

/// Whether a key means this argument. Settings of the settings file itself, and what processes tell each other, are none.
fn names(argument: &clap::Arg, key: &str) -> bool {
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    (argument.get_long() == Some(key) || aliases.contains(&key)) && !matches!(key, "config" | "supervised")
}

/// The tables of all commands below `command` that know a key.
fn homes(command: &clap::Command, key: &str, prefix: &str, found: &mut Vec<String>) {
    for subcommand in command.get_subcommands() {
        let name = format!("{prefix}{}", subcommand.get_name());
        if subcommand.get_arguments().any(|argument| names(argument, key)) {
            found.push(format!("[{name}]"));
        }
        homes(subcommand, key, &format!("{name}."), found);
    }
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
fn nearest(command: &clap::Command, tables: &[String], key: &str) -> Option<String> {
    let flags = command.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned);
    let commands = command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned());
    let known = flags.chain(commands).filter(|known| known != "config" && known != "supervised");
    let best =
        known.map(|known| (strsim::jaro_winkler(&known, key), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then(|| format!("did you mean `{}`?", [tables, &[best.1]].concat().join(".")))
}
