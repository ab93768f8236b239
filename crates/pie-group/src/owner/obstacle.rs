//! Why a group is not formed, as those who run the pool are told: at once would tell of every start, and never of a rank with
//! another model.

use std::time::{Duration, Instant};

/// What is in the way for so long does not go by itself.
const LASTS: Duration = Duration::from_secs(2);
/// Reasons that change, as those with a number in them do, are told so often at most.
const AGAIN: Duration = Duration::from_secs(10);

/// What is in the way of a group, from its first attempt until it is formed.
#[derive(Debug, Default)]
pub(super) struct Obstacle {
    since: Option<Instant>,
    told: Option<(Instant, String)>,
}

impl Obstacle {
    /// Whether this reason is to be told now: it lasts, and is news.
    pub fn is_news(&mut self, why: &str, now: Instant) -> bool {
        if now.duration_since(*self.since.get_or_insert(now)) < LASTS {
            return false;
        }
        let news = match &self.told {
            None => true,
            Some((at, told)) => told != why && now.duration_since(*at) >= AGAIN,
        };
        if news {
            self.told = Some((now, why.to_owned()));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_what_changes_now_and_then() {
        let begun = Instant::now();
        let mut obstacle = Obstacle::default();
        let steps = [
            (0, "no rank", false),
            (1, "no rank", false),
            (2, "another model", true),
            (3, "another model", false),
            (9, "epoch 1", false),
            (12, "epoch 2", true),
            (13, "epoch 3", false),
            (60, "epoch 2", false),
            (61, "epoch 4", true),
        ];
        for (second, why, told) in steps {
            assert_eq!(obstacle.is_news(why, begun + Duration::from_secs(second)), told, "{second} s: {why}");
        }
    }
}
