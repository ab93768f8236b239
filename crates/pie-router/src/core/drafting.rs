//! How many tokens are worth looking up ahead in a pass of a completion: as many as are likely to be drawn for what their rows cost.

use pie_proto::plan::Speculated;

/// Of a completion that has looked up nothing yet. It must have three tokens in common with what it looks up.
const AT_FIRST: f64 = 0.7;
/// The weight of the latest plan.
const WEIGHT: f64 = 0.3;
/// How fast a completion for which nothing is worth looking up comes to try it again: after some thirty plans.
const FORGETTING: f64 = 0.02;

/// How likely a token is drawn that was looked up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likelihood(f64);

impl Default for Likelihood {
    fn default() -> Self {
        Self(AT_FIRST)
    }
}

impl Likelihood {
    /// What became of a plan's drafts.
    pub fn learn(&mut self, speculated: Speculated) {
        let (accepted, missed) = (f64::from(speculated.accepted), f64::from(speculated.missed));
        if accepted + missed > 0.0 {
            self.0 += WEIGHT * (accepted / (accepted + missed) - self.0);
        }
    }

    /// So many that the last of them is as likely to be drawn as its row adds to a pass, `cost` of it.
    pub fn drafts(&mut self, cost: f64, most: u32) -> u32 {
        let worth = (cost.ln() / self.0.min(0.99).ln()).max(0.0);
        let drafts = if worth.is_finite() { most.min(worth as u32) } else { 0 };
        if drafts == 0 {
            self.0 += FORGETTING * (AT_FIRST - self.0);
        }
        drafts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_words::SessionId;

    #[test]
    fn what_is_seldom_drawn_is_not_looked_up_and_tried_again() {
        let plan = |accepted, missed| Speculated { session: SessionId(1), drafted: 9, accepted, missed };
        let mut likelihood = Likelihood::default();
        let first = likelihood.drafts(0.1, 16);
        assert!((4..=8).contains(&first), "{first}");
        // A row that costs as much as a pass is never worth it, nor one of a cost that is not known.
        assert_eq!([1.0, f64::NAN, f64::INFINITY].map(|cost| likelihood.drafts(cost, 16)), [0; 3]);
        (0..20).for_each(|_| likelihood.learn(plan(9, 0)));
        assert_eq!(likelihood.drafts(0.1, 16), 16);
        (0..20).for_each(|_| likelihood.learn(plan(0, 3)));
        assert_eq!(likelihood.drafts(0.1, 16), 0);
        let waits = (0..1000).take_while(|_| likelihood.drafts(0.1, 16) == 0).count();
        assert!((3..100).contains(&waits), "{waits} plans until it is tried again");
    }
}
