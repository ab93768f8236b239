//! What sessions play: each stream is made when it is needed, and only as much of it as will be.

use crate::people::{Corpus, Habits, lines};
use crate::script::{EditStream, compile};
use std::sync::Arc;
use std::time::Duration;

/// Of a made-up stream, in its own time.
const LENGTH: Duration = Duration::from_secs(180);
/// Streams from which the natural rate is taken.
const SAMPLED: usize = 8;

/// What sessions play.
#[derive(Clone, Debug)]
pub enum EditStreamSource {
    /// People who are made up, another for each session and stream.
    People {
        /// The text that they type from.
        corpus: Arc<Corpus>,
        /// How often they ask, and what they do with answers.
        habits: Habits,
        /// Equal seeds give equal streams.
        seed: u64,
    },
    /// The streams of a script, in turn.
    Script(Arc<Vec<EditStream>>),
}

impl EditStreamSource {
    /// The stream that a session plays in a round, of so many sessions.
    pub(crate) fn stream(&self, session: usize, round: usize, sessions: usize) -> EditStream {
        match self {
            Self::People { corpus, habits, seed } => {
                made_up(corpus, *habits, *seed, &format!("{session}-{round}"))
            }
            Self::Script(streams) => streams[(session + round * sessions) % streams.len()].clone(),
        }
    }

    /// Where in its first stream a session begins: made-up people are in the middle of something, scripts begin at their
    /// beginning, one session after another.
    pub(crate) fn entry(&self, session: usize, sessions: usize) -> FirstStep {
        let share = session as f64 / sessions as f64;
        match self {
            Self::People { .. } => FirstStep { skip: LENGTH.mul_f64(share), wait: Duration::ZERO },
            Self::Script(_) => {
                FirstStep { skip: Duration::ZERO, wait: Duration::from_secs(1).mul_f64(share) }
            }
        }
    }

    /// Edits a second of one session at its own speed.
    pub(crate) fn edits_per_second(&self) -> f64 {
        let of = |streams: &[EditStream]| {
            let seconds: f64 = streams.iter().map(|stream| stream.length.as_secs_f64()).sum();
            let edits: usize = streams.iter().map(EditStream::edits).sum();
            if seconds > 0.0 { edits as f64 / seconds } else { 0.0 }
        };
        match self {
            Self::People { .. } => {
                let streams: Vec<EditStream> =
                    (0..SAMPLED).map(|session| self.stream(session, 0, SAMPLED)).collect();
                of(&streams)
            }
            Self::Script(streams) => of(streams),
        }
    }

    /// In words, for reports.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::People { habits, seed, .. } => {
                format!("generated, seed {seed}, documents of {} bytes", habits.document_bytes)
            }
            Self::Script(streams) => format!("script of {} documents", streams.len()),
        }
    }
}

/// Where a session begins.
pub(crate) struct FirstStep {
    /// In the stream's time: what lies before has happened.
    pub skip: Duration,
    /// In the run's time.
    pub wait: Duration,
}

fn made_up(corpus: &Corpus, habits: Habits, seed: u64, name: &str) -> EditStream {
    let lines = lines(corpus, habits, seed, name, LENGTH);
    let stream = compile(&lines).ok().and_then(|mut streams| streams.pop());
    // A property test makes thousands: what the generator writes can be played.
    stream.expect("generated lines fit their document")
}
