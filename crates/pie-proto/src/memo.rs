//! What an owner has its ranks keep of a session, so that the next owner has the document: first all of it, then each edit.

use crate::carried::Carried;
use crate::peer_v1 as wire;
use crate::reason::{Fault, Reason};
use crate::request::{Content, splice};
use crate::v1;
use pie_words::{Revision, Rewrite, Splice, Splices, TextToken, TokenId};
use prost::Message;

/// Tokens in place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retokenized {
    /// The first of the text's tokens that goes.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// What stands there now.
    pub tokens: Vec<TextToken>,
}

/// What an edit made of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum MemoEdit {
    /// Its text, and the tokens of that: both sorted and disjoint.
    Text {
        /// In bytes of the text before.
        rewrites: Vec<Rewrite>,
        /// In tokens of the text before.
        retokenized: Vec<Retokenized>,
    },
    /// Its tokens.
    Tokens(Splices),
}

/// A session, and how its text is tokenized.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionMemo {
    /// The session.
    pub session: Carried,
    /// The tokens of its text, without what stands before every text; none for a document of tokens.
    pub tokens: Vec<TextToken>,
    /// Of the tokenizer that found them.
    pub fingerprint: u64,
}

/// A memo of a whole session.
pub fn whole(kept: SessionMemo) -> Vec<u8> {
    let SessionMemo { session, tokens, fingerprint } = kept;
    let tokens = Some(tokens_to_wire(tokens));
    let whole = wire::memo::Whole { session: Some(session.into()), tokens, fingerprint };
    wire::Memo { kind: Some(wire::memo::Kind::Whole(whole)) }.encode_to_vec()
}

/// A memo of an edit that led to a revision.
pub fn edit(revision: Revision, edited: MemoEdit) -> Vec<u8> {
    let mut edit = wire::memo::Edit { revision: revision.0, ..Default::default() };
    match edited {
        MemoEdit::Text { rewrites, retokenized } => {
            let rewrite = |rewrite: Rewrite| wire::memo::Rewrite {
                start: rewrite.start as u64,
                end: rewrite.end as u64,
                text: rewrite.text,
            };
            let retokenize = |one: Retokenized| wire::memo::Retokenized {
                start: one.start as u64,
                end: one.end as u64,
                tokens: Some(tokens_to_wire(one.tokens)),
            };
            edit.rewrites = rewrites.into_iter().map(rewrite).collect();
            edit.retokenized = retokenized.into_iter().map(retokenize).collect();
        }
        MemoEdit::Tokens(list) => edit.splices.extend(list.iter().map(|splice| v1::TokenSplice {
            at: splice.at.0,
            delete: splice.delete,
            insert: splice.insert.iter().map(|token| token.0).collect(),
        })),
    }
    wire::Memo { kind: Some(wire::memo::Kind::Edit(edit)) }.encode_to_vec()
}

fn tokens_to_wire(tokens: Vec<TextToken>) -> wire::memo::Tokens {
    let (ids, bytes) = tokens.into_iter().map(|piece| (piece.id.0, piece.piece_bytes)).unzip();
    wire::memo::Tokens { ids, bytes }
}

fn tokens(wire: Option<wire::memo::Tokens>) -> impl Iterator<Item = TextToken> {
    let wire::memo::Tokens { ids, bytes } = wire.unwrap_or_default();
    ids.into_iter().zip(bytes).map(|(id, piece_bytes)| TextToken { id: TokenId(id), piece_bytes })
}

/// The session that the pieces of its memo make.
///
/// # Errors
/// Pieces that an owner of another release wrote, or that do not follow each other.
pub fn session(pieces: &[Vec<u8>]) -> Result<SessionMemo, Fault> {
    let mut kept: Option<SessionMemo> = None;
    for piece in pieces {
        let memo = wire::Memo::decode(piece.as_slice()).map_err(|error| broken(&error.to_string()))?;
        match (memo.kind, &mut kept) {
            (Some(wire::memo::Kind::Whole(whole)), _) => {
                let session = whole.session.ok_or_else(|| broken("it holds no session"))?.try_into()?;
                let (tokens, fingerprint) = (tokens(whole.tokens).collect(), whole.fingerprint);
                kept = Some(SessionMemo { session, tokens, fingerprint });
            }
            (Some(wire::memo::Kind::Edit(edit)), Some(kept)) => follow(kept, edit)?,
            (Some(wire::memo::Kind::Edit(_)), None) => return Err(broken("it begins with an edit")),
            (None, _) => return Err(broken("a piece is of no known kind")),
        }
    }
    kept.ok_or_else(|| broken("it is empty"))
}

fn follow(kept: &mut SessionMemo, edit: wire::memo::Edit) -> Result<(), Fault> {
    match &mut kept.session.content {
        Content::Text(text) => {
            // From the last to the first, so that each finds what it names where it names it.
            for rewrite in edit.rewrites.into_iter().rev() {
                let (start, end) = (rewrite.start as usize, rewrite.end as usize);
                if start > end || text.get(start..end).is_none() {
                    return Err(broken("an edit lies outside of the text"));
                }
                text.replace_range(start..end, &rewrite.text);
            }
            for one in edit.retokenized.into_iter().rev() {
                let (start, end) = (one.start as usize, one.end as usize);
                if start > end || end > kept.tokens.len() {
                    return Err(broken("an edit lies outside of the tokens"));
                }
                kept.tokens.splice(start..end, tokens(one.tokens));
            }
        }
        Content::Tokens(tokens) => {
            let list: Vec<Splice> = edit.splices.into_iter().map(splice).collect();
            let splices = Splices::new(list, tokens.len()).map_err(|error| broken(&error.to_string()))?;
            *tokens = splices.apply(tokens);
        }
    }
    kept.session.revision = Revision(edit.revision);
    Ok(())
}

fn broken(what: &str) -> Fault {
    Fault::new(Reason::Internal, format!("what the ranks keep of a session cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::SessionName;
    use pie_words::{Following, Part, Parts, Spellings, Strategy, TokenIndex};

    fn carried(content: Content) -> Carried {
        Carried {
            tenant: "t".to_owned(),
            name: SessionName::new("a".to_owned()).expect("a right name"),
            identity: None,
            revision: Revision(4),
            following: Following { strategy: Strategy::Conflict, window: Some(7) },
            content,
            spellings: Spellings::Text,
            parts: Parts {
                list: vec![Part { name: "a.rs".to_owned(), text: "let x = 1;\n".to_owned() }],
                document: "b.rs".to_owned(),
            },
        }
    }

    #[test]
    fn a_session_is_what_its_edits_made_of_it() {
        let rewrite = |start, end, text: &str| Rewrite { start, end, text: text.to_owned() };
        let pieces = |list: &[(u32, u32)]| -> Vec<TextToken> {
            list.iter().map(|(id, bytes)| TextToken { id: TokenId(*id), piece_bytes: *bytes }).collect()
        };
        let kept = |content, tokens| SessionMemo { session: carried(content), tokens, fingerprint: 7 };
        let first = whole(kept(Content::Text("grün und rot".to_owned()), pieces(&[(1, 5), (2, 4), (3, 4)])));
        let retokenized = |start, end, list: &[(u32, u32)]| Retokenized { start, end, tokens: pieces(list) };
        let text = |rewrites, retokenized| MemoEdit::Text { rewrites, retokenized };
        let both = vec![retokenized(0, 0, &[(8, 5)]), retokenized(1, 2, &[(9, 5)])];
        let memo = [
            first.clone(),
            edit(Revision(5), text(vec![rewrite(0, 0, "sehr "), rewrite(6, 9, "oder")], both)),
            edit(Revision(9), text(vec![rewrite(5, 10, "blau")], vec![retokenized(1, 2, &[(4, 3), (5, 0)])])),
        ];
        let now = session(&memo).expect("they follow each other");
        assert_eq!((now.session.revision, now.fingerprint), (Revision(9), 7));
        assert_eq!(now.session.content, Content::Text("sehr blau oder rot".to_owned()));
        assert_eq!(now.tokens, pieces(&[(8, 5), (4, 3), (5, 0), (9, 5), (3, 4)]));

        let tokens = |ids: &[u32]| ids.iter().copied().map(TokenId).collect::<Vec<_>>();
        let list = vec![Splice { at: TokenIndex(1), delete: 1, insert: tokens(&[7, 8]) }];
        let splices = Splices::new(list, 3).expect("inside");
        let memo = [
            whole(kept(Content::Tokens(tokens(&[1, 2, 3])), vec![])),
            edit(Revision(5), MemoEdit::Tokens(splices)),
        ];
        let now = session(&memo).expect("they follow each other");
        assert_eq!(now.session.content, Content::Tokens(tokens(&[1, 7, 8, 3])));

        let outside = edit(Revision(5), text(vec![rewrite(2, 3, "")], vec![]));
        let beyond = edit(Revision(5), text(vec![], vec![retokenized(3, 4, &[])]));
        for wrong in [
            vec![],
            vec![outside.clone()],
            vec![first.clone(), outside],
            vec![first, beyond],
            vec![vec![255, 255]],
        ] {
            assert_eq!(session(&wrong).expect_err("it is no session").reason, Reason::Internal);
        }
    }
}
