//! The log: for people, or as JSON lines whose fields all stand at the top, those of the spans around an event among them.

use super::traces::{ProcessName, TraceArgs, Traces};
use super::voice;
use crate::Failure;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::fmt;
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter};

/// What to log, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// What to log, as `level` or `target=level,…`.
    #[arg(long, global = true, env = "PIE_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
    /// How to log.
    #[arg(long, global = true, env = "PIE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Let debug lines hold what people write: the text of edits. Without it no line of any level does.
    #[arg(long, global = true, env = "PIE_LOG_TEXT")]
    pub log_text: bool,
}

impl LogArgs {
    /// What is wrong, for people.
    pub fn warnings() -> Self {
        Self { log: "warn".to_owned(), log_format: LogFormat::Text, log_text: false }
    }

    /// The same as flags, for a process that is started.
    pub fn flags(&self) -> Vec<String> {
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let text = self.log_text.then(|| "--log-text".to_owned());
        ["--log", &self.log, "--log-format", format].map(str::to_owned).into_iter().chain(text).collect()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What a process tells of its work while it runs: logs, and traces.
pub struct Telling(Option<Traces>);

impl Telling {
    /// Starts both.
    ///
    /// # Errors
    /// A filter that is none, or a receiver of traces that can be none.
    pub fn start(logs: &LogArgs, traces: &TraceArgs, identity: &ProcessName) -> Result<Self, Failure> {
        voice::belongs_to(identity);
        let traces = Traces::start(traces, identity)?;
        let layers = [Some(log(logs, identity)?), traces.as_ref().map(spans_of_calls)];
        tracing_subscriber::registry().with(layers.into_iter().flatten().collect::<Vec<_>>()).init();
        Ok(Self(traces))
    }

    /// Sends what is left to send.
    pub fn end(self) {
        if let Some(traces) = self.0 {
            traces.end();
        }
    }
}

type LogPart = Box<dyn Layer<Registry> + Send + Sync>;

fn log(arguments: &LogArgs, identity: &ProcessName) -> Result<LogPart, Failure> {
    let LogArgs { log, log_format, log_text } = arguments;
    let filter = EnvFilter::try_new(log).map_err(|error| format!("--log {log}: {error}"))?;
    let shown = if *log_text { LogText::Shown } else { LogText::Hidden };
    let filter = filter.and(filter::filter_fn(move |about| shown == LogText::Shown || !holds_text(about)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours())
        // Standard error may be a pipe whose reader has gone: there is nobody to tell.
        .log_internal_errors(false);
    Ok(match log_format {
        LogFormat::Text => Box::new(lines.with_filter(filter)),
        LogFormat::Json => {
            let lines = lines.fmt_fields(JsonFields::new()).event_format(Flat::new(identity));
            Box::new(lines.with_filter(filter))
        }
    })
}

/// On a terminal, unless people want none (https://no-color.org); never in files.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// What people write, in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LogText {
    Hidden,
    Shown,
}

/// Lines that may: the router's own, and those of the tokenizer, which tells of each character.
fn holds_text(about: &Metadata<'_>) -> bool {
    about.target() == pie_router::calls::TEXT || about.target().starts_with("tokenizers")
}

/// Events stay in the log: in traces there are spans alone.
fn spans_of_calls(traces: &Traces) -> LogPart {
    let layer = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    let calls = |about: &Metadata<'_>| about.is_span() && about.target().starts_with("pie_");
    Box::new(layer.with_filter(filter::filter_fn(calls).with_max_level_hint(LevelFilter::INFO)))
}

/// One JSON object a line.
struct Flat {
    /// Fields that stand in every line.
    always: Map<String, Value>,
}

impl Flat {
    fn new(identity: &ProcessName) -> Self {
        Self { always: voice::always(identity) }
    }
}

impl<S, N> FormatEvent<S, N> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = LogLine(self.always.clone());
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                let fields: Map<String, Value> = serde_json::from_str(&fields.fields).unwrap_or_default();
                line.0.extend(fields.into_iter().filter(|(name, _)| !name.contains('.')));
            }
        }
        event.record(&mut line);
        let time = voice::now();
        // Libraries that use `log` have their place in fields.
        let normalized = event.normalized_metadata();
        let about = normalized.as_ref().unwrap_or_else(|| event.metadata());
        for (name, value) in
            [("timestamp", time.as_str()), ("level", about.level().as_str()), ("target", about.target())]
        {
            line.0.insert(name.to_owned(), value.into());
        }
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// Without dotted names: those are for traces, and of libraries.
struct LogLine(Map<String, Value>);

impl LogLine {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        if field.name().contains('.') {
            return;
        }
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for LogLine {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
