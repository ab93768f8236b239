//! Stop strings in streamed text.

/// Ends text that comes in deltas before the first stop string, and holds back what may be the start of one. "First" is
/// the one that is complete first, and of those the longest: the answer does not depend on how the text is cut
/// into deltas.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// A matcher; empty stop strings are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next delta; gives the text that is safe to send, and whether a stop string was found. After that
    /// nothing comes any more.
    pub fn push(&mut self, delta: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        self.held.push_str(delta);
        if let Some(start) = self.found() {
            self.stopped = true;
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return (text, true);
        }
        let rest = self.held.split_off(self.safe());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text ends: what was held back is no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the first one starts.
    fn found(&self) -> Option<usize> {
        let place = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        self.stops.iter().filter_map(place).min().map(|(_, start)| start)
    }

    /// Bytes before the longest end of the held text that some stop string starts with.
    fn safe(&self) -> usize {
        let starts_a_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let nearest = self.held.len().saturating_sub(longest);
        let places = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= nearest);
        places.into_iter().find(starts_a_stop).unwrap_or(self.held.len())
    }
}
