//! What a process says of itself whatever the log's filter: its announcements, and why it ends. A line for people, or one of JSON
//! where the log is JSON, so that nothing else stands among its lines. Each line is written at once: processes that share a
//! terminal or a file do not cut into each other's.

use super::logs::LogFormat;
use super::traces::ProcessName;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::Write;
use std::sync::OnceLock;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// How it goes.
    Info,
    /// Why it ends.
    Error,
}

/// How this process speaks; for people until it is known.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();
/// What stands in every line of JSON.
static ALWAYS: OnceLock<Map<String, Value>> = OnceLock::new();

/// From now on lines have the form that the command line or the environment asks for. This comes before both are parsed, since what
/// is wrong with them is said in that form too.
pub fn begin(arguments: &[OsString]) {
    let format = wanted(arguments, std::env::var_os("PIE_LOG_FORMAT"));
    let _ = FORMAT.set(format);
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| tell(Tone::Error, &panic.to_string())));
    }
}

/// Whether people read what this process says of itself.
pub fn for_people() -> bool {
    FORMAT.get() != Some(&LogFormat::Json)
}

fn wanted(arguments: &[OsString], variable: Option<OsString>) -> LogFormat {
    let flag = "--log-format";
    let mut given = variable;
    for (index, argument) in arguments.iter().enumerate() {
        let Some(text) = argument.to_str() else { continue };
        if text == flag {
            given = arguments.get(index + 1).cloned();
        } else if let Some(value) = text.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            given = Some(value.into());
        }
    }
    if given.is_some_and(|given| given == "json") { LogFormat::Json } else { LogFormat::Text }
}

/// Who speaks, from now on.
pub(super) fn belongs_to(identity: &ProcessName) {
    let _ = ALWAYS.set(always(identity));
}

/// The fields of a process, which stand in every line of JSON.
pub(super) fn always(identity: &ProcessName) -> Map<String, Value> {
    let ProcessName { service, group, rank } = identity;
    // Commands that serve nothing are nobody in particular.
    let service = if service.is_empty() { "pie" } else { service };
    let mut always = Map::from_iter([("service".to_owned(), json!(service))]);
    always.extend(group.iter().map(|group| ("group".to_owned(), json!(group))));
    always.extend(rank.iter().map(|rank| ("rank".to_owned(), json!(rank))));
    always
}

/// The time as log lines have it.
pub(super) fn now() -> String {
    let mut time = String::new();
    // A text takes whatever is written to it.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// Says a line on standard error, if anybody still reads that.
pub fn tell(tone: Tone, text: &str) {
    let line = if for_people() { format!("pie: {text}\n") } else { as_json(tone, text) };
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Writes a line that is not this process's own words on standard error, if anybody still reads that.
pub fn line(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

fn as_json(tone: Tone, text: &str) -> String {
    let mut line = ALWAYS.get().cloned().unwrap_or_else(|| always(&ProcessName::default()));
    let level = match tone {
        Tone::Info => "INFO",
        Tone::Error => "ERROR",
    };
    for (name, value) in
        [("timestamp", now().as_str()), ("level", level), ("target", "pie"), ("message", text)]
    {
        line.insert(name.to_owned(), value.into());
    }
    format!("{}\n", Value::Object(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_known_before_the_command_line_is_parsed() {
        let cases: [(&[&str], Option<&str>, LogFormat); 7] = [
            (&["pie", "pool"], None, LogFormat::Text),
            (&["pie", "pool"], Some("json"), LogFormat::Json),
            (&["pie", "--log-format", "json", "pool"], None, LogFormat::Json),
            (&["pie", "pool", "--log-format=json"], None, LogFormat::Json),
            (&["pie", "pool", "--log-format", "text"], Some("json"), LogFormat::Text),
            (&["pie", "pool", "--log-format"], None, LogFormat::Text),
            (&["pie", "--log-formats=json"], None, LogFormat::Text),
        ];
        for (arguments, variable, format) in cases {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            assert_eq!(wanted(&arguments, variable.map(Into::into)), format, "{arguments:?} {variable:?}");
        }
    }
}
