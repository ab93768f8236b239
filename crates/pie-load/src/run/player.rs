//! One session: plays its streams, each step when it is due or, if that is past, as soon as the step before is done.

use super::flight::{CompletionTiming, Flight, follow};
use super::{CompletionTrigger, RunState};
use crate::measure::{Metric, Recorder};
use crate::page::EditorBuffer;
use crate::script::{
    AcceptanceUnit, Caret, EditKind, EditStream, ScriptCompletion, ScriptStep, TextChange, TimedStep,
};
use crate::target::{Acked, CallError, ServedDocument};
use pie_client::Edit;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// When a run begins and ends.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Streams begin here, warm-up included.
    pub start: Instant,
    /// What is due from here on is not played.
    pub end: Instant,
    /// What is not done by here never will be.
    pub hard: Instant,
}

/// A stream that is played this often adds nothing.
const SHORTEST: Duration = Duration::from_millis(1);
/// How long a document may take to be read back and closed, when the run is over.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long a document may take to be opened.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// Whether a session plays on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    On,
    /// Its time is over, or its stream can be played no more.
    ToTheEnd,
    /// The run is cut short.
    Away,
}

/// The latest completion, while nothing but itself was typed since.
struct SuggestionProgress {
    flight: Arc<Flight>,
    /// In the script's text.
    place: usize,
    /// Bytes of it that were typed through.
    taken: usize,
}

pub(super) struct Player {
    shared: Arc<RunState>,
    index: usize,
    round: usize,
    events: VecDeque<TimedStep>,
    length: Duration,
    wait: Duration,
    page: EditorBuffer,
    /// What the server holds; nothing when it could not be opened.
    document: Option<ServedDocument>,
    /// Whether the server has every edit of the page.
    in_step: bool,
    suggestion: Option<SuggestionProgress>,
    flights: JoinSet<()>,
    edited: bool,
}

impl Player {
    /// A session with its first document, and why that could not be opened.
    pub async fn open(shared: Arc<RunState>, index: usize) -> (Self, Option<CallError>) {
        let sessions = shared.options.sessions;
        let entry = shared.source.entry(index, sessions);
        let stream = shared.source.stream(index, 0, sessions);
        let mut player = Self {
            shared,
            index,
            round: 0,
            events: VecDeque::new(),
            length: Duration::ZERO,
            wait: entry.wait,
            page: EditorBuffer::default(),
            document: None,
            in_step: false,
            suggestion: None,
            flights: JoinSet::new(),
            edited: false,
        };
        player.take(stream, entry.skip);
        let failure = match player.shared.stop.since() {
            Some(_) => None,
            None => player.open_document().await.err(),
        };
        (player, failure)
    }

    /// Takes a stream up at a time of its own. What lies before has happened; what this run will not reach is left out.
    fn take(&mut self, stream: EditStream, skip: Duration) {
        let options = &self.shared.options;
        let span = (options.warmup + options.duration).mul_f64(self.shared.speed);
        self.page = EditorBuffer::new(stream.text);
        self.length = stream.length.saturating_sub(skip);
        self.events.clear();
        for TimedStep { at, step } in stream.events {
            match (at.checked_sub(skip), &step) {
                (Some(at), _) if at <= span => self.events.push_back(TimedStep { at, step }),
                (Some(_), _) => break,
                (None, ScriptStep::Edit { changes, .. }) => drop(self.page.edit(changes)),
                (None, _) => {}
            }
        }
    }

    async fn open_document(&mut self) -> Result<(), CallError> {
        let name = format!("{}-{}-{}", self.shared.name, self.index, self.round);
        let RunState { target, options, .. } = &*self.shared;
        let text = self.page.text().to_owned();
        let opening = target.open(self.index, &name, text, options.strategy);
        let opened = timeout(OPENED_WITHIN, opening).await;
        self.document = Some(opened.map_err(|_| CallError::late("it was not opened", OPENED_WITHIN))??);
        self.in_step = true;
        Ok(())
    }

    /// Plays until the run ends, or is cut short.
    pub async fn play(mut self, clock: Clock, recorder: Arc<Recorder>) {
        let mut going = self.play_streams(clock, &recorder).await;
        if going != Going::Away {
            // The last answers may still come.
            going = self.wait_until(clock.end).await;
        }
        let (over, due) = match going {
            Going::Away => {
                if let Some(suggestion) = self.suggestion.take() {
                    suggestion.flight.cancel();
                }
                (Instant::now() + FAREWELL, Instant::now())
            }
            _ => (clock.hard.max(Instant::now() + FAREWELL), clock.end),
        };
        self.leave(over, due, &recorder).await;
    }

    async fn play_streams(&mut self, clock: Clock, recorder: &Arc<Recorder>) -> Going {
        let mut begun = clock.start + self.wait;
        loop {
            if self.play_stream(begun, clock, recorder).await == Going::Away {
                return Going::Away;
            }
            let length = self.length.div_f64(self.shared.speed);
            begun += length;
            if begun >= clock.end || length < SHORTEST {
                return Going::ToTheEnd;
            }
            if self.wait_until(begun).await == Going::Away {
                return Going::Away;
            }
            // Who closes a document wants no more of it.
            if let Some(suggestion) = self.suggestion.take() {
                suggestion.flight.cancel();
            }
            self.leave(clock.hard.max(Instant::now() + FAREWELL), begun, recorder).await;
            if self.shared.stop.since().is_some() {
                return Going::Away;
            }
            self.round += 1;
            let RunState { source, options, .. } = &*self.shared;
            let stream = source.stream(self.index, self.round, options.sessions);
            self.take(stream, Duration::ZERO);
            let opened = self.open_document().await;
            recorder.record(begun, |tally| tally.latency(Metric::Open, begun.elapsed()));
            if let Err(error) = opened {
                recorder.error(begun, &error);
            }
        }
    }

    /// Calls are never cut off in the middle: what a server has done is then unknown, a document that it has opened among it.
    async fn wait_until(&self, time: Instant) -> Going {
        tokio::select! {
            biased;
            () = self.shared.stop.set() => Going::Away,
            () = sleep_until(time) => Going::On,
        }
    }

    async fn play_stream(&mut self, begun: Instant, clock: Clock, recorder: &Arc<Recorder>) -> Going {
        while let Some(TimedStep { at, step }) = self.events.pop_front() {
            let due = begun + at.div_f64(self.shared.speed);
            if due >= clock.end {
                break;
            }
            if self.wait_until(due).await == Going::Away {
                return Going::Away;
            }
            if Instant::now() >= clock.hard {
                recorder.record(due, |tally| tally.edits.unsent += 1);
                continue;
            }
            if timeout_at(clock.hard, self.perform(step, due, recorder)).await.is_err() {
                // Whether the server has it nobody knows.
                self.in_step = false;
                recorder.record(due, |tally| tally.edits.unsent += 1);
            }
        }
        Going::On
    }

    async fn perform(&mut self, step: ScriptStep, due: Instant, recorder: &Arc<Recorder>) {
        while self.flights.try_join_next().is_some() {}
        match step {
            ScriptStep::Edit { changes, kind } => {
                let edits = self.page.edit(&changes);
                self.suggestion_is_stale();
                self.edit(&edits, due, recorder).await;
                if kind == EditKind::Typed && self.shared.options.asking == CompletionTrigger::EveryKeystroke
                {
                    self.ask(behind(&changes), due, recorder);
                }
            }
            ScriptStep::Complete(ask) => {
                if self.shared.options.asking == CompletionTrigger::AsWritten {
                    self.ask(ask, due, recorder);
                }
            }
            ScriptStep::Accept(part) => match self.accept(part) {
                Some(edits) => {
                    recorder.record(due, |tally| tally.completions.accepted += 1);
                    self.edit(&edits, due, recorder).await;
                }
                None => recorder.record(due, |tally| tally.completions.nothing_to_accept += 1),
            },
            ScriptStep::Discard => {
                let edits = self.page.discard();
                if !edits.is_empty() {
                    self.suggestion_is_stale();
                    self.edit(&edits, due, recorder).await;
                }
            }
            ScriptStep::Note(_) => {}
        }
    }

    /// Where nothing ends a completion but the client, the client does.
    fn suggestion_is_stale(&mut self) {
        if let Some(suggestion) = self.suggestion.take() {
            suggestion.flight.edit();
            let by_server = self.document.as_ref().is_some_and(ServedDocument::edits_end_completions);
            if !by_server || self.shared.options.asking == CompletionTrigger::EveryKeystroke {
                suggestion.flight.cancel();
            }
        }
    }

    async fn edit(&mut self, edits: &[Edit], due: Instant, recorder: &Recorder) {
        let sent = Instant::now();
        self.edited = true;
        recorder.record(due, |tally| {
            tally.edits.sent += 1;
            tally.latency(Metric::SendDelay, sent - due);
        });
        match self.send(edits).await {
            Ok(acked) => {
                self.in_step = true;
                recorder.always(|tally| tally.acknowledged_ever += 1);
                recorder.record(due, |tally| {
                    match &acked {
                        // Nobody acknowledged anything.
                        Acked::Local => return,
                        Acked::Resynced => tally.edits.resynced += 1,
                        Acked::Applied(answer) => {
                            tally.edits.tokens_inserted += u64::from(answer.tokens_inserted);
                            tally.edits.tokens_deleted += u64::from(answer.tokens_deleted);
                            tally.edits.tokens_retokenized += u64::from(answer.tokens_retokenized);
                        }
                    }
                    tally.edits.acknowledged += 1;
                    tally.latency(Metric::EditAck, due.elapsed());
                });
                recorder.second(due, |second| second.edits += 1);
            }
            Err(error) => {
                self.in_step = false;
                recorder.error(due, &error);
            }
        }
    }

    /// Sends edits; or, where an earlier one was refused, the whole text, which has them.
    async fn send(&mut self, edits: &[Edit]) -> Result<Acked, CallError> {
        match &mut self.document {
            None => {
                self.open_document().await?;
                Ok(Acked::Resynced)
            }
            Some(document) if self.in_step => document.edit(edits).await,
            Some(document) => {
                document.replace(self.page.text()).await?;
                Ok(Acked::Resynced)
            }
        }
    }

    fn ask(&mut self, ask: ScriptCompletion, due: Instant, recorder: &Arc<Recorder>) {
        let Some(document) = &self.document else { return };
        let options = &self.shared.options;
        let place = options.place.unwrap_or(ask.place);
        let max_tokens = ask.max_tokens.unwrap_or(options.tokens);
        let ask = ScriptCompletion { place, mode: options.mode.unwrap_or(ask.mode), ..ask };
        let text = self.page.text();
        let offset = match place {
            Caret::Cursor => self.page.offset(ask.offset),
            Caret::End => text.len(),
        };
        let starting = document.start(text, offset, ask, max_tokens);
        let flight = Arc::new(Flight::default());
        let asked = CompletionTiming { due, behind_edit: std::mem::take(&mut self.edited) };
        self.flights.spawn(follow(flight.clone(), asked, starting, recorder.clone()));
        let place = match place {
            Caret::Cursor => ask.offset,
            Caret::End => text.len() - self.page.accepted(),
        };
        // People look at the newest answer only.
        self.suggestion_is_stale();
        self.suggestion = Some(SuggestionProgress { flight, place, taken: 0 });
    }

    /// Takes a part of the latest completion over, if it is there.
    fn accept(&mut self, part: AcceptanceUnit) -> Option<Vec<Edit>> {
        let suggestion = self.suggestion.as_mut()?;
        let shown = suggestion.flight.shown();
        let left = shown.get(suggestion.taken..).filter(|left| !left.is_empty())?;
        let text = part_of(left, part);
        suggestion.flight.edit();
        suggestion.taken += text.len();
        let edits = self.page.accept(suggestion.place, text);
        if part != AcceptanceUnit::Character {
            self.suggestion_is_stale();
        }
        Some(edits)
    }

    /// Ends completions, compares, closes.
    async fn leave(&mut self, until: Instant, due: Instant, recorder: &Recorder) {
        if self.shared.options.asking == CompletionTrigger::EveryKeystroke {
            self.suggestion_is_stale();
        }
        self.suggestion = None;
        let settled = async { while self.flights.join_next().await.is_some() {} };
        if timeout_at(until, settled).await.is_err() {
            self.flights.shutdown().await;
        }
        let Some(document) = self.document.take() else { return };
        // Closed never; were it, all would leave at once, which is no harm.
        let _turn = self.shared.leaving.acquire().await;
        let parted = timeout(FAREWELL, self.part(document, recorder)).await;
        if let Err(error) = parted.unwrap_or_else(|_| Err(CallError::late("it was not closed", FAREWELL))) {
            recorder.error(due, &error);
        }
    }

    async fn part(&self, mut document: ServedDocument, recorder: &Recorder) -> Result<(), CallError> {
        if self.shared.options.compare {
            if !self.in_step {
                document.replace(self.page.text()).await?;
            }
            if let Some(held) = document.held().await? {
                let name = format!("{}-{}-{}", self.shared.name, self.index, self.round);
                recorder.always(|tally| match difference(self.page.text(), &held) {
                    None => tally.compared.equal += 1,
                    Some(what) => tally.compared.different.push(format!("{name}: {what}")),
                });
            }
        }
        document.close().await
    }
}

/// The question of a keystroke: at the cursor behind it.
fn behind(changes: &[TextChange]) -> ScriptCompletion {
    let shift = |change: &TextChange| change.text.len() as isize - (change.end - change.start) as isize;
    let (last, before) = changes
        .split_last()
        .map_or((0, 0), |(last, rest)| (last.start + last.text.len(), rest.iter().map(shift).sum()));
    let offset = last.saturating_add_signed(before);
    ScriptCompletion {
        offset,
        place: Caret::Cursor,
        mode: crate::script::CompletionMode::Continue,
        max_tokens: None,
    }
}

fn part_of(text: &str, part: AcceptanceUnit) -> &str {
    let end = match part {
        AcceptanceUnit::Whole => text.len(),
        AcceptanceUnit::Line => text.find('\n').map_or(text.len(), |at| at + 1),
        AcceptanceUnit::Character => text.chars().next().map_or(0, char::len_utf8),
        AcceptanceUnit::Word => {
            let word = text.trim_start();
            let blank = text.len() - word.len();
            let end = word.find(|character: char| !character.is_alphanumeric() && character != '_');
            // A sign that stands alone counts as a word.
            let first = word.chars().next().map_or(0, char::len_utf8);
            blank + end.unwrap_or(word.len()).max(first)
        }
    };
    &text[..end]
}

/// How two texts differ, if they do.
fn difference(mine: &str, theirs: &str) -> Option<String> {
    if mine == theirs {
        return None;
    }
    let at = mine.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
    Some(format!("{} bytes here, {} there, different from byte {at} on", mine.len(), theirs.len()))
}
