//! A rank's part in the traces of a step: one span, a child of the router's. Most plans carry no trace, and cost nothing here.

use crate::error::WorkerError;
use crate::rank::StepReport;
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span, SpanBuilder, Status, Tracer};
use opentelemetry::{KeyValue, Value};
use pie_comm::Rank;
use pie_proto::{trace, worker_v1 as wire};

/// A step that runs.
pub struct StepSpan(BoxedSpan);

impl StepSpan {
    /// A plan is taken in hand. `None` if it carries no trace.
    pub fn begin(rank: Rank, plan: &mut wire::Plan) -> Option<Self> {
        let parent = trace::from_plan(&plan.trace.take()?);
        let attributes = [number("rank", rank.0), number("epoch", plan.epoch), number("seq", plan.seq)];
        let span = SpanBuilder::from_name("rank step").with_attributes(attributes);
        Some(Self(global::tracer("pie-worker").build_with_context(span, &parent)))
    }

    /// It is done, or failed.
    pub fn end(mut self, result: &Result<StepReport, WorkerError>) {
        match result {
            Ok(report) => self.0.set_attributes([
                number("compute_us", report.compute.saturating_sub(report.collective).as_micros()),
                number("collective_us", report.collective.as_micros()),
                number("encoded", report.encoded),
                number("rotated", report.rotated),
                number("passes", report.forwards as usize),
            ]),
            Err(error) => self.0.set_status(Status::error(error.to_string())),
        }
        self.0.end();
    }
}

fn number(key: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(key, Value::I64(value.try_into().unwrap_or(i64::MAX)))
}
