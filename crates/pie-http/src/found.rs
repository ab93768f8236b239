//! What was done for a request, for those who want to see it.

use pie_words::{Splices, TokenId};
use std::time::Duration;

/// How its session was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionMatch {
    /// Its client named it.
    Named,
    /// It held the likest prompt.
    Alike,
    /// It was opened.
    #[default]
    New,
}

impl SessionMatch {
    /// All, as answers and metrics name them.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Named, "named"), (Self::Alike, "alike"), (Self::New, "new")];

    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What was done before the completion began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PromptFacts {
    /// The pool's name of the session.
    pub session: String,
    /// Its revision.
    pub revision: u64,
    /// How it was found.
    pub way: SessionMatch,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Of those, tokens that the edit inserted.
    pub inserted: usize,
    /// Tokens that it deleted.
    pub deleted: usize,
    /// Some of the prompt was left out because the whole is too long.
    pub is_cut: bool,
    /// To find the session, waiting for it included.
    pub search: Duration,
    /// To tokenize the prompt and find out what differs.
    pub reading: Duration,
    /// What became of its tokens, where that was asked for.
    pub runs: Vec<TokenRun>,
}

/// What became of a token at an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenFate {
    /// It is new.
    Encoded,
    /// It stayed, at another place: its key was turned.
    Turned,
    /// It stayed where it was.
    Reused,
}

impl TokenFate {
    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Turned => "turned",
            Self::Reused => "reused",
        }
    }
}

/// Tokens that follow each other, with one fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRun {
    /// What became of them.
    pub fate: TokenFate,
    /// Which.
    pub tokens: Vec<TokenId>,
}

impl TokenRun {
    /// What becomes of the tokens of a session that is edited so; of one that is opened all are new.
    pub fn all(way: SessionMatch, held: &[TokenId], splices: &Splices, tokens: &[TokenId]) -> Vec<Self> {
        if way == SessionMatch::New {
            return vec![Self { fate: TokenFate::Encoded, tokens: tokens.to_vec() }];
        }
        let (mut runs, mut at, mut shift) = (Vec::new(), 0, 0_i64);
        let kept = |shift: i64| if shift == 0 { TokenFate::Reused } else { TokenFate::Turned };
        for splice in splices.iter() {
            runs.push(Self { fate: kept(shift), tokens: held[at..splice.at.usize()].to_vec() });
            runs.push(Self { fate: TokenFate::Encoded, tokens: splice.insert.clone() });
            at = splice.end().usize();
            shift += splice.insert.len() as i64 - i64::from(splice.delete);
        }
        runs.push(Self { fate: kept(shift), tokens: held[at..].to_vec() });
        runs.retain(|run| !run.tokens.is_empty());
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_words::{Splice, TokenIndex};

    #[test]
    fn tokens_are_told_by_what_became_of_them() {
        let ids = |ids: &[u32]| ids.iter().copied().map(TokenId).collect::<Vec<_>>();
        let splice = |at, delete, insert: &[u32]| Splice { at: TokenIndex(at), delete, insert: ids(insert) };
        let held = ids(&[0, 1, 2, 3, 4, 5]);
        let splices =
            Splices::new(vec![splice(1, 0, &[9, 9]), splice(3, 2, &[])], held.len()).expect("sorted");
        let runs = TokenRun::all(SessionMatch::Alike, &held, &splices, &splices.apply(&held));
        let told: Vec<_> = runs.iter().map(|run| (run.fate.as_str(), run.tokens.len())).collect();
        assert_eq!(told, [("reused", 1), ("encoded", 2), ("turned", 2), ("reused", 1)]);
        assert_eq!(runs.iter().flat_map(|run| run.tokens.clone()).collect::<Vec<_>>(), splices.apply(&held));
        let new = TokenRun::all(SessionMatch::New, &[], &Splices::default(), &held);
        assert_eq!(new, [TokenRun { fate: TokenFate::Encoded, tokens: held }]);
    }
}
