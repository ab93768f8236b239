//! The spans below a call: the phases of a completion, and the steps, which completions share.
//!
//! They are made of times that are known anyway, and only in traces that somebody records: in all others nothing happens here.
//! A step is one span: a child of the first completion in it that is recorded, and linked with the others; up to
//! their first token they are linked with it too. Each rank's span is a child of it: the plan carries its context.

use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use pie_plan::Plan;
use pie_proto::{trace, v1, worker_v1 as wire};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

fn tracer() -> BoxedTracer {
    global::tracer("pie-router")
}

/// A moment as clocks on the wall show it.
fn time_of(moment: Instant) -> SystemTime {
    SystemTime::now() - moment.elapsed()
}

/// As traces have numbers; without a sign they become texts there.
pub fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn pair(key: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(key, number(value))
}

/// A completion in the span of its call.
pub struct CompletionSpan {
    call: Span,
    recorded: Option<Context>,
    /// The phase that runs.
    phase: &'static str,
    since: Instant,
}

impl CompletionSpan {
    /// Of the present call; it waits.
    pub fn of_call(arrived: Instant) -> Self {
        let call = Span::current();
        let recorded = Some(call.context()).filter(trace::is_recorded);
        Self { call, recorded, phase: "queue", since: arrived }
    }

    /// The trace that the call is in, if it is recorded.
    pub fn recorded(&self) -> Option<&Context> {
        self.recorded.as_ref()
    }

    /// Its first step was planned from `began` on, and is on its way.
    pub fn planned(&mut self, began: Instant) {
        self.turn("plan", began);
        self.turn("first token", Instant::now());
    }

    /// Its first token is there.
    pub fn first_token(&mut self, timings: &v1::Timings, now: Instant) {
        self.turn("decode", now);
        if self.call.is_disabled() {
            return;
        }
        let all = [
            ("queue_us", timings.queue_us),
            ("first_token_us", timings.first_token_us),
            ("edit_to_first_token_us", timings.edit_to_first_token_us),
            ("compute_us", timings.compute_us),
            ("tokens_encoded", timings.tokens_encoded.into()),
            ("tokens_encoded_ahead", timings.tokens_encoded_ahead.into()),
            ("tokens_rotated", timings.tokens_rotated.into()),
            ("tokens_reused", timings.tokens_reused.into()),
            ("tokens_adopted", timings.tokens_adopted.into()),
            ("tokens_repaired", timings.tokens_repaired.into()),
            ("tokens_stale", timings.tokens_stale.into()),
        ];
        for (key, value) in all {
            self.call.record(key, number(value));
        }
    }

    /// It is about to be told that it is over.
    pub fn over(&self, finish: &'static str, revision: u64, produced: u32) {
        if !self.call.is_disabled() {
            let call = &self.call;
            call.record("finish", finish).record("revision", number(revision));
            call.record("tokens_generated", i64::from(produced));
        }
    }

    /// The phase that runs ends, and another begins.
    fn turn(&mut self, phase: &'static str, now: Instant) {
        let (ended, since) =
            (std::mem::replace(&mut self.phase, phase), std::mem::replace(&mut self.since, now));
        let Some(call) = &self.recorded else { return };
        let tracer = tracer();
        let span = SpanBuilder::from_name(ended).with_start_time(time_of(since));
        let span = tracer.build_with_context(span, call);
        opentelemetry::trace::Span::end_with_timestamp(&mut { span }, time_of(now));
    }
}

impl Drop for CompletionSpan {
    fn drop(&mut self) {
        self.turn("", Instant::now());
    }
}

/// What a step has to do with traces that are recorded.
pub struct Recorded {
    /// Rows of its first pass.
    pub rows: u32,
    /// Completions in it.
    pub completions: usize,
    /// Calls that are recorded, and whether their first token is made here.
    pub calls: Vec<(Context, AwaitedToken)>,
}

/// What a completion waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedToken {
    /// Its first token.
    First,
    /// A later one.
    Later,
}

/// The steps that ranks work on.
#[derive(Default)]
pub struct StepSpans(BTreeMap<u64, Context>);

impl StepSpans {
    /// A step goes to the ranks; with what the plan carries of it.
    pub fn begin(&mut self, group: &str, plan: &Plan, recorded: &Recorded) -> Option<wire::TraceContext> {
        let ((parent, _), others) = recorded.calls.split_first()?;
        let link = |(call, _): &(Context, AwaitedToken)| Link::with_context(of(call));
        let attributes = [
            KeyValue::new("group", group.to_owned()),
            pair("epoch", plan.epoch.0),
            pair("seq", plan.seq.0),
            pair("rows", recorded.rows),
            pair("sessions", recorded.completions),
            pair("passes", plan.passes),
            pair("changes", plan.changes.len()),
        ];
        let span = SpanBuilder::from_name("step").with_attributes(attributes);
        let span = span.with_links(others.iter().map(link).collect());
        let step = parent.with_span(tracer().build_with_context(span, parent));
        for (call, _) in others.iter().filter(|(_, waits)| *waits == AwaitedToken::First) {
            call.span().add_link(of(&step), vec![KeyValue::new("span", "step")]);
        }
        let sent = trace::to_plan(&step);
        self.0.insert(plan.seq.0, step);
        sent
    }

    /// All ranks have done a step.
    pub fn end(&mut self, seq: u64) {
        if let Some(step) = self.0.remove(&seq) {
            step.span().end();
        }
    }

    /// The group is lost, and with it the steps on their way.
    pub fn lost(&mut self, why: &str) {
        for step in std::mem::take(&mut self.0).into_values() {
            step.span().set_status(Status::error(why.to_owned()));
            step.span().end();
        }
    }
}

fn of(context: &Context) -> SpanContext {
    context.span().span_context().clone()
}
