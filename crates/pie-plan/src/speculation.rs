//! Speculation: tokens that a completion may draw next, looked up in what its session holds already.
//!
//! A pass that encodes drafts behind a session's last token draws a token behind each of them too. As long as what is drawn is what
//! was looked up, such a pass stands for as many plain ones: since a draw depends on its seed and its number alone, the tokens are the
//! same, and so are the tables, to which the drafts never belong (S2). Every rank looks up the same, so none has to ask.

use crate::group::Group;
use crate::table::Table;
use pie_words::{SessionId, Slot, TokenId};

/// The fewest tokens in a row that must be the same for what follows them to be looked up: shorter ones are anywhere.
const LEAST: usize = 3;
/// The most that are compared, and looked up: as many as are the same, for what has been the same for long goes on being so.
const LONGEST: usize = 64;
/// Tokens that are compared before what was found so far must do: a text of one character over and over is like itself everywhere, and
/// others wait for the pass.
const MOST_COMPARED: usize = 1 << 14;

/// What may be looked up for a session of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// A session that samples in the pass.
    pub session: SessionId,
    /// What its client expects it to write, looked up beside its own tokens.
    pub expected: &'a [TokenId],
    /// The most tokens.
    pub most: usize,
}

/// Tokens that a session may draw next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDraft {
    /// Whose.
    pub session: SessionId,
    /// In the order in which they would be drawn.
    pub tokens: Vec<TokenId>,
    /// Free slots, where the tokens' rows are written for the time of the pass. No table holds them.
    pub slots: Vec<Slot>,
}

impl Group {
    /// Looks up drafts for the sessions of a pass that sample, in the order in which their tokens join their branches.
    ///
    /// The slots are those that plain passes would take if all sessions drew all their drafts: where that is so, as for a session that
    /// samples alone, rows are written to where they stay. Otherwise a token's slot lies before that of its draft, and slots of
    /// tokens that join later lie before those of their drafts too: copied in the order of joining, no row is overwritten before
    /// it is read.
    pub fn draft(&self, lookups: &[Lookup<'_>]) -> Vec<SessionDraft> {
        let most = lookups.iter().map(|lookup| lookup.most).max().unwrap_or(0);
        let count = lookups.len();
        if most == 0 || count == 0 {
            return Vec::new();
        }
        let free: Vec<Slot> = self.slots.free().iter().copied().take(most * count).collect();
        let of = |(index, lookup): (usize, &Lookup<'_>)| {
            let slots: Vec<Slot> = free.iter().copied().skip(index).step_by(count).collect();
            let most = lookup.most.min(slots.len());
            let tokens = self.table(lookup.session)?.draft(lookup.expected, most).to_vec();
            let slots = slots[..tokens.len()].to_vec();
            (!tokens.is_empty()).then_some(SessionDraft { session: lookup.session, tokens, slots })
        };
        lookups.iter().enumerate().filter_map(of).collect()
    }
}

impl Table {
    /// What follows the longest run of tokens, here or in what is expected, that is the end of a completion's context; at most
    /// `most` tokens. Of several that are as long, one that is expected is taken first, then the last of the document.
    fn draft<'a>(&'a self, expected: &'a [TokenId], most: usize) -> &'a [TokenId] {
        let (document, branch) = (&self.tokens()[..self.share()], self.branch());
        let at_end = |back: usize| {
            let of_document = || document.get(document.len().checked_sub(back + 1 - branch.len())?);
            if back < branch.len() { branch.get(branch.len() - 1 - back) } else { of_document() }
        };
        let Some(last) = at_end(0) else { return &[] };
        let (mut longest, mut found): (usize, &[TokenId]) = (LEAST - 1, &[]);
        let mut compared = 0;
        for tokens in [expected, self.tokens(), branch] {
            for next in (1..tokens.len()).rev() {
                if longest == LONGEST || compared > MOST_COMPARED {
                    break;
                }
                if tokens[next - 1] != *last {
                    continue;
                }
                // The context itself ends here, and what follows it in the document is what it is written in front of.
                if branch.is_empty() && std::ptr::eq(tokens, self.tokens()) && next == document.len() {
                    continue;
                }
                let alike =
                    (0..next.min(LONGEST)).take_while(|back| at_end(*back) == Some(&tokens[next - 1 - back]));
                let alike = alike.count();
                compared += alike;
                if alike > longest {
                    (longest, found) = (alike, &tokens[next..]);
                }
            }
        }
        &found[..found.len().min(most).min(longest)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Change;
    use pie_words::{Epoch, Splices, Strategy, TokenIndex};

    fn tokens(text: &str) -> Vec<TokenId> {
        text.bytes().map(|byte| TokenId(u32::from(byte))).collect()
    }

    fn group(document: &str, at: usize, branch: &str) -> Group {
        let (mut group, session) = (Group::new(Epoch(1), 256), SessionId(1));
        let splices = Splices::append(0, tokens(document)).expect("an append");
        let splice = Change::Splice { session, splices, strategy: Strategy::Pie };
        let branch = Change::Branch { session, at: TokenIndex(at as u32), tokens: tokens(branch) };
        group.stage(&[Change::Open { session }, splice, branch]).expect("room");
        group
    }

    #[test]
    fn what_follows_the_longest_run_is_looked_up() {
        // (document, where the branch stands, branch, expected, most, drafted)
        let cases = [
            ("one two three", 13, "", "", 8, ""),
            ("abcdef. abc", 11, "", "", 8, "def"),
            ("abcdef. abc", 11, "", "", 2, "de"),
            // Less than three tokens are nothing.
            ("abcdef. bc", 10, "", "", 8, ""),
            // The longest run, wherever it is.
            ("xabc1 yabc2 xabc", 16, "", "", 3, "1 y"),
            ("xabc1 yabc2 xabc", 16, "", "", 9, "1 ya"),
            // Of several that are as long, the last.
            ("abc1 abc2 abc", 13, "", "", 1, "2"),
            // Also behind the branch's place, and across the branch's beginning.
            ("fn ab() = fn abc() {}", 10, "fn a", "", 4, "bc()"),
            ("let name_ = 1; let na", 21, "me", "", 3, "_ ="),
            // In the branch's own past.
            ("", 0, "123, 123", "", 4, ", 1"),
            // What is expected is taken first.
            ("abc1 abc", 8, "", "zabc9", 1, "9"),
            ("zabc1 zabc", 10, "", "xabc9", 1, "1"),
            // What the context is written in front of does not follow it.
            ("abcdef", 3, "", "", 4, ""),
            ("", 0, "", "abc", 4, ""),
        ];
        for (document, at, branch, expected, most, drafted) in cases {
            let group = group(document, at, branch);
            let expected = tokens(expected);
            let lookup = Lookup { session: SessionId(1), expected: &expected, most };
            let found = group.draft(&[lookup]);
            let found = found.first().map_or(&[][..], |draft| &draft.tokens);
            let case = format!("{document:?} at {at}, {branch:?}, {expected:?}");
            assert_eq!(found, tokens(drafted), "{case}");
        }
    }

    /// A text that is like itself everywhere is not compared everywhere: its last place is as good as any.
    #[test]
    fn a_text_that_repeats_itself_is_looked_through_once() {
        let one = |length: usize| {
            let text = "a".repeat(length - 1) + "b";
            let mut group = group("", 0, "");
            let (session, expected) = (SessionId(1), tokens(&text));
            let branch = Change::Branch { session, at: TokenIndex(0), tokens: tokens(&"a".repeat(40)) };
            group.stage(&[branch]).expect("room");
            let draft = group.draft(&[Lookup { session, expected: &expected, most: 3 }]);
            draft.first().map(|draft| draft.tokens.clone())
        };
        // The last place that is as like as any.
        assert_eq!(one(1000), Some(tokens("b")));
        assert_eq!(one(1_000_000), Some(tokens("b")));
    }

    #[test]
    fn drafts_take_no_more_than_the_free_slots() {
        let text = "abcdefghi abcdefg";
        let (session, length) = (SessionId(1), text.len());
        for free in 0..4 {
            let mut group = Group::new(Epoch(1), (length + free) as u32);
            let splices = Splices::append(0, tokens(text)).expect("an append");
            let splice = Change::Splice { session, splices, strategy: Strategy::Pie };
            group.stage(&[Change::Open { session }, splice]).expect("room");
            let drafts = group.draft(&[Lookup { session, expected: &[], most: 3 }]);
            let slots: Vec<Slot> = drafts.iter().flat_map(|draft| draft.slots.clone()).collect();
            let lowest: Vec<Slot> = (length..length + free.min(3)).map(|slot| Slot(slot as u32)).collect();
            assert_eq!(slots, lowest, "{free} slots are free");
        }
    }
}
