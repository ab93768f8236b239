//! What the model of a group can see: checked where documents and completions grow, and, since both do, again where rows are
//! planned. What a model cannot see never reaches a rank: it would end the epoch for all.

use super::completion::InsertionPoint;
use super::layout::{Layout, Patch};
use super::session::{Session, count};
use super::turned::Turned;
use crate::call::ModelFacts;
use crate::faults;
use pie_plan::{Change, Reach};
use pie_proto::Fault;
use pie_proto::request::Mode;
use pie_text::{Document, Fim, FimOrder, Tokenizer};
use pie_words::{TokenId, TokenIndex};

/// The model that a group serves, and how its tokenizer lays out text for it.
#[derive(Clone, Debug)]
pub(crate) struct ServedModel {
    /// What the ranks say of it.
    pub facts: ModelFacts,
    /// How it fills in the middle, if it does.
    pub fim: Option<Fim>,
}

/// How a completion's context stands in its session's table.
pub(crate) enum Context {
    /// It is the document.
    Document,
    /// The document with other tokens between its own, or turned around.
    LaidOut(Layout),
    /// A branch beside the document: behind its first tokens, and with some of its own.
    Branch { prefix: usize, own: Vec<TokenId> },
}

impl Context {
    /// Its tokens, in a document that has `tokens`.
    pub fn length(&self, tokens: usize) -> usize {
        match self {
            Self::Document => tokens,
            Self::LaidOut(layout) => layout.length(tokens),
            Self::Branch { prefix, own } => prefix + own.len(),
        }
    }

    /// The table's layout and branch that hold it, and behind it what was generated before: on the branch, where a completion that never
    /// broke off has it.
    pub fn into_table(self, session: &Session, generated: &[TokenId]) -> (Layout, Change) {
        let (id, length) = (session.id, self.length(session.tokens()));
        let behind = match generated {
            [] => Change::EndBranch { session: id },
            _ => Change::Branch { session: id, at: TokenIndex(count(length)), tokens: generated.to_vec() },
        };
        match self {
            Self::Document => (Layout::Plain, behind),
            Self::LaidOut(layout) => (layout, behind),
            Self::Branch { prefix, own } => {
                // The last token before the cursor is encoded again (W1), on the branch: the document's own row stays.
                let share = if own.is_empty() { prefix.saturating_sub(1) } else { prefix };
                let again = session.document.tokens().skip(share).take(prefix - share);
                let tokens = again.chain(own).chain(generated.iter().copied()).collect();
                (Layout::Plain, Change::Branch { session: id, at: TokenIndex(count(share)), tokens })
            }
        }
    }
}

impl ServedModel {
    /// Nothing is known of it before a group is formed.
    pub fn new(mut facts: ModelFacts, tokenizer: &Tokenizer) -> Self {
        // What the configuration calls the end of a text, and control tokens: they never stand in one.
        facts.end_of_text.extend(tokenizer.ends());
        Self { facts, fim: tokenizer.fim().cloned() }
    }

    /// A context must leave room for a token to generate.
    pub fn check_length(&self, tokens: usize) -> Result<(), Fault> {
        let limit = self.facts.context_limit as usize;
        if limit > 0 && tokens >= limit {
            return Err(faults::too_long(tokens, limit));
        }
        Ok(())
    }

    /// Whether it can see a document: another one may serve than when it was opened.
    pub fn check(&self, document: &Document) -> Result<(), Fault> {
        self.check_length(document.token_count())?;
        faults::check_tokens(document.tokens(), self.vocabulary())
    }

    /// Tokens that may be generated behind a context.
    pub fn room(&self, context: usize) -> usize {
        (self.facts.context_limit as usize).saturating_sub(context)
    }

    /// Its size, if it is known.
    pub fn vocabulary(&self) -> Option<u32> {
        (self.facts.vocabulary > 0).then_some(self.facts.vocabulary)
    }

    /// Whether rows are of positions or tokens that it does not know.
    pub fn is_beyond(&self, reach: Reach) -> bool {
        let positions = self.facts.context_limit as usize;
        (positions > 0 && reach.positions > positions)
            || self.vocabulary().is_some_and(|vocabulary| reach.tokens > vocabulary)
    }

    /// See [`Layout::recognized`].
    pub fn recognized(
        &self,
        held: &[TokenId],
        document: &[TokenId],
        leading: usize,
    ) -> (Layout, Vec<TokenId>) {
        Layout::recognized(held, document, self.fim.as_ref(), leading)
    }

    /// How a document stands between the markers of a completion in its middle, without the hole, if there are such.
    pub fn markers(&self, document: &Document) -> Option<Layout> {
        let fim = self.fim.as_ref().filter(|fim| fim.order == FimOrder::PrefixFirst)?;
        let layout = Layout::between_markers(fim, document.leading(), document.token_count());
        (layout != Layout::Plain).then_some(layout)
    }

    /// How the context of a completion is laid out.
    pub fn context(&self, document: &Document, place: &InsertionPoint, mode: Mode) -> Context {
        match (place, mode, &self.fim) {
            (InsertionPoint::Cursor(cut), Mode::FillInTheMiddle, Some(fim)) => {
                let tokens: Vec<TokenId> = document.tokens().collect();
                Context::LaidOut(match fim.order {
                    FimOrder::PrefixFirst => {
                        Layout::Patched(Patch::new(cut, fim, &tokens, document.leading()))
                    }
                    FimOrder::SuffixFirst => {
                        Layout::Turned(Turned::new(cut, fim, &tokens, document.leading()))
                    }
                })
            }
            (InsertionPoint::Behind(prompt), ..) => {
                Context::LaidOut(Layout::Patched(Patch::behind(prompt.clone(), document.token_count())))
            }
            (InsertionPoint::Cursor(cut), ..) => {
                Context::Branch { prefix: cut.shared_prefix, own: cut.prefix_end.clone() }
            }
            (InsertionPoint::End, ..) => Context::Document,
        }
    }
}
