//! Trace contexts on the wire (W3C): in gRPC metadata, and in plans. Which form they have there is the process's propagator's
//! matter: one that has set none sends and reads nothing.

use crate::worker_v1 as wire;
use opentelemetry::Context;
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use std::sync::OnceLock;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The trace that whoever started this process is in.
static STARTER: OnceLock<Context> = OnceLock::new();

/// Adds the caller's trace to a call's metadata: that of the present span, or else that of the process. Also one that is not
/// sampled: its decision holds for all who take part.
pub fn inject(metadata: &mut MetadataMap) {
    let context = current();
    if context.span().span_context().is_valid() {
        get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Metadata(metadata)));
    }
}

fn current() -> Context {
    let valid = |context: &Context| context.span().span_context().is_valid();
    let of_span = Span::current().context();
    if valid(&of_span) {
        return of_span;
    }
    Some(Context::current()).filter(valid).or_else(|| STARTER.get().cloned()).unwrap_or_default()
}

/// The trace that a call takes part in; an empty context if its metadata name none.
pub fn extract(headers: &HeaderMap) -> Context {
    get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::default(), &Headers(headers))
    })
}

/// Calls that are in no other trace take part in this one from now on, given as a traceparent: how a program that is started
/// for one thing belongs to the trace of whoever started it. What comes second is not taken.
pub fn set_starter(traceparent: &str, tracestate: &str) {
    let context = from_plan(&wire::TraceContext {
        traceparent: traceparent.to_owned(),
        tracestate: tracestate.to_owned(),
    });
    let _ = STARTER.set(context);
}

/// A context as plans carry it: only one that is recorded travels.
pub fn to_plan(context: &Context) -> Option<wire::TraceContext> {
    if !is_recorded(context) {
        return None;
    }
    let mut sent = wire::TraceContext::default();
    get_text_map_propagator(|propagator| propagator.inject_context(context, &mut sent));
    (!sent.traceparent.is_empty()).then_some(sent)
}

/// What a plan carried.
pub fn from_plan(sent: &wire::TraceContext) -> Context {
    get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::default(), sent))
}

/// Whether somebody will see what happens in it.
pub fn is_recorded(context: &Context) -> bool {
    let span = context.span();
    let span: &SpanContext = span.span_context();
    span.is_valid() && span.is_sampled()
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

impl Injector for wire::TraceContext {
    fn set(&mut self, key: &str, value: String) {
        match key {
            PARENT => self.traceparent = value,
            STATE => self.tracestate = value,
            _ => {}
        }
    }
}

impl Extractor for wire::TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            PARENT => self.traceparent.as_str(),
            STATE => self.tracestate.as_str(),
            _ => return None,
        };
        (!value.is_empty()).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT, STATE]
    }
}
