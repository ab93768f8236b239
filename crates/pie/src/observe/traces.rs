//! Traces over OTLP: the exporter, who takes part, and what is lost.
//!
//! Nothing waits for the receiver: spans go through a bounded queue to a thread of its own, and what does not fit, or is not
//! taken, is dropped, counted, and said once.

use crate::Failure;
use clap::Args;
use opentelemetry::trace::{SpanContext, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
    SpanExporter as Export, SpanProcessor,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A batch that the receiver does not take in this time is lost.
const EXPORT_LIMIT: Duration = Duration::from_secs(2);
/// Spans are sent so often, or when a batch is full.
const EVERY: Duration = Duration::from_secs(1);
/// The last spans go in this time, or are lost with the process.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where traces go, and which.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Send traces to this receiver of OTLP over gRPC, for example http://127.0.0.1:4317; off if not given.
    #[arg(long, env = "PIE_OTLP", value_name = "URL", value_parser = receiver)]
    pub otlp: Option<String>,
    /// Share of the calls that are traced, of those whose caller has not decided: a call that comes with a trace goes by it.
    #[arg(long, env = "PIE_TRACE_SAMPLE", default_value_t = TraceArgs::SAMPLE, value_name = "RATIO", value_parser = ratio)]
    pub trace_sample: f64,
}

impl TraceArgs {
    const SAMPLE: f64 = 0.01;
    /// No receiver: spans are not even made.
    pub const OFF: Self = Self { otlp: None, trace_sample: Self::SAMPLE };
}

fn receiver(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => {
            Err("a receiver is given as http://HOST:PORT; for one behind TLS run a collector beside the pool"
                .to_owned())
        }
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("a share between 0 and 1".to_owned()),
    }
}

/// Who a process is, in traces and logs.
#[derive(Clone, Debug, Default)]
pub struct ProcessName {
    /// The program's part, for example `pie-worker`.
    pub service: &'static str,
    /// Its group, or groups.
    pub group: Option<String>,
    /// Its rank in it.
    pub rank: Option<u32>,
}

impl ProcessName {
    /// Standard variables (`OTEL_RESOURCE_ATTRIBUTES`) may say more.
    fn resource(&self) -> Resource {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned());
        let instance = format!("{host}-{}", std::process::id());
        let group = self.group.iter().map(|group| KeyValue::new("group", group.clone()));
        let rank = self.rank.iter().map(|rank| KeyValue::new("rank", i64::from(*rank)));
        Resource::builder()
            .with_service_name(self.service)
            .with_attribute(KeyValue::new("service.instance.id", instance))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(group.chain(rank))
            .build()
    }
}

/// The traces of a process, as long as it runs.
pub struct Traces {
    provider: SdkTracerProvider,
    /// Carries the connection, and nothing else.
    _runtime: Runtime,
    fate: Arc<SpanFate>,
}

impl Traces {
    /// Starts sending, if that is wanted.
    ///
    /// # Errors
    /// A receiver that cannot be one. Whether it is there is no matter.
    pub fn start(arguments: &TraceArgs, identity: &ProcessName) -> Result<Option<Self>, Failure> {
        let Some(url) = &arguments.otlp else { return Ok(None) };
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("traces").enable_all().build()?;
        let inside = runtime.enter();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url)
            .with_timeout(EXPORT_LIMIT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| format!("--otlp {url}: {error}"))?;
        let fate = Arc::new(SpanFate { url: url.clone(), ..SpanFate::default() });
        let exporter = SentSpans { inner: exporter, fate: fate.clone() };
        let config = BatchConfigBuilder::default().with_scheduled_delay(EVERY).build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(arguments.trace_sample))))
            .with_resource(identity.resource())
            .with_span_processor(EndedSpans { inner: batches, fate: fate.clone() })
            .build();
        drop(inside);
        take_part();
        global::set_tracer_provider(provider.clone());
        Ok(Some(Self { provider, _runtime: runtime, fate }))
    }

    /// For the spans of calls.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("pie")
    }

    /// Sends what is left.
    pub fn end(self) {
        // What fails here is counted as lost.
        let _ = self.provider.shutdown_with_timeout(FAREWELL);
        let (ended, sent) = (self.fate.ended.load(Ordering::Relaxed), self.fate.sent.load(Ordering::Relaxed));
        if sent < ended {
            tracing::warn!(lost = ended - sent, ended, receiver = self.fate.url, "spans were lost");
        }
    }
}

/// Calls carry W3C trace contexts.
fn take_part() {
    global::set_text_map_propagator(TraceContextPropagator::new());
}

/// A command that makes calls belongs to the trace of whoever started it, which the environment names (`TRACEPARENT`).
pub fn belong_to_starter() {
    if let Ok(parent) = std::env::var("TRACEPARENT") {
        take_part();
        pie_proto::trace::set_starter(&parent, &std::env::var("TRACESTATE").unwrap_or_default());
    }
}

/// What becomes of spans.
#[derive(Debug, Default)]
struct SpanFate {
    url: String,
    ended: AtomicU64,
    sent: AtomicU64,
    /// The receiver does not take any: said once, until it does again.
    away: AtomicBool,
}

/// Counts the spans that end.
#[derive(Debug)]
struct EndedSpans {
    inner: BatchSpanProcessor,
    fate: Arc<SpanFate>,
}

impl SpanProcessor for EndedSpans {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if SpanContext::is_sampled(&span.span_context) {
            self.fate.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts those that the receiver took.
#[derive(Debug)]
struct SentSpans {
    inner: SpanExporter,
    fate: Arc<SpanFate>,
}

impl Export for SentSpans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (fate, count) = (&self.fate, batch.len() as u64);
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => {
                fate.sent.fetch_add(count, Ordering::Relaxed);
                if fate.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(receiver = fate.url, "traces are taken again");
                }
            }
            Err(error) => {
                if !fate.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(receiver = fate.url, %error, "traces are not taken: spans are lost until they are");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
