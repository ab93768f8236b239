//! What an owner has its ranks keep of a session, so that the next owner has the document: first all of it, then each edit.

use crate::carried::Carried;
use crate::peer_v1 as wire;
use crate::reason::{Fault, Reason};
use crate::request::{Content, splice};
use crate::v1;
use pie_words::{Revision, Splice, Splices};
use prost::Message;

/// A part of a text in place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Bytes of the text before.
    pub start: usize,
    /// Behind the last of them.
    pub end: usize,
    /// What stands there now.
    pub text: String,
}

/// What an edit made of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Edited {
    /// Its text: sorted and disjoint, in bytes of the text before.
    Text(Vec<Rewrite>),
    /// Its tokens.
    Tokens(Splices),
}

/// A memo of a whole session.
pub fn whole(carried: Carried) -> Vec<u8> {
    wire::Memo { kind: Some(wire::memo::Kind::Whole(carried.into())) }.encode_to_vec()
}

/// A memo of an edit that led to a revision.
pub fn edit(revision: Revision, edited: Edited) -> Vec<u8> {
    let (mut rewrites, mut splices) = (Vec::new(), Vec::new());
    match edited {
        Edited::Text(list) => rewrites.extend(list.into_iter().map(|rewrite| wire::memo::Rewrite {
            start: rewrite.start as u64,
            end: rewrite.end as u64,
            text: rewrite.text,
        })),
        Edited::Tokens(list) => splices.extend(list.iter().map(|splice| v1::TokenSplice {
            at: splice.at.0,
            delete: splice.delete,
            insert: splice.insert.iter().map(|token| token.0).collect(),
        })),
    }
    let edit = wire::memo::Edit { revision: revision.0, rewrites, splices };
    wire::Memo { kind: Some(wire::memo::Kind::Edit(edit)) }.encode_to_vec()
}

/// The session that the pieces of its memo make.
///
/// # Errors
/// Pieces that an owner of another release wrote, or that do not follow each other.
pub fn session(pieces: &[Vec<u8>]) -> Result<Carried, Fault> {
    let mut session: Option<Carried> = None;
    for piece in pieces {
        let memo = wire::Memo::decode(piece.as_slice()).map_err(|error| broken(&error.to_string()))?;
        match (memo.kind, &mut session) {
            (Some(wire::memo::Kind::Whole(carried)), _) => session = Some(carried.try_into()?),
            (Some(wire::memo::Kind::Edit(edit)), Some(session)) => follow(session, edit)?,
            (Some(wire::memo::Kind::Edit(_)), None) => return Err(broken("it begins with an edit")),
            (None, _) => return Err(broken("a piece is of no known kind")),
        }
    }
    session.ok_or_else(|| broken("it is empty"))
}

fn follow(session: &mut Carried, edit: wire::memo::Edit) -> Result<(), Fault> {
    match &mut session.content {
        Content::Text(text) => {
            // From the last to the first, so that each finds what it names where it names it.
            for rewrite in edit.rewrites.into_iter().rev() {
                let (start, end) = (rewrite.start as usize, rewrite.end as usize);
                if start > end || text.get(start..end).is_none() {
                    return Err(broken("an edit lies outside of the text"));
                }
                text.replace_range(start..end, &rewrite.text);
            }
        }
        Content::Tokens(tokens) => {
            let list: Vec<Splice> = edit.splices.into_iter().map(splice).collect();
            let splices = Splices::new(list, tokens.len()).map_err(|error| broken(&error.to_string()))?;
            *tokens = splices.apply(tokens);
        }
    }
    session.revision = Revision(edit.revision);
    Ok(())
}

fn broken(what: &str) -> Fault {
    Fault::new(Reason::Internal, format!("what the ranks keep of a session cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::SessionName;
    use pie_words::{Spellings, Strategy, TokenId, TokenIndex};

    fn carried(content: Content) -> Carried {
        Carried {
            tenant: "t".to_owned(),
            name: SessionName::new("a".to_owned()).expect("a right name"),
            identity: None,
            revision: Revision(4),
            strategy: Strategy::Conflict,
            content,
            spellings: Spellings::Text,
        }
    }

    #[test]
    fn a_session_is_what_its_edits_made_of_it() {
        let rewrite = |start, end, text: &str| Rewrite { start, end, text: text.to_owned() };
        let first = whole(carried(Content::Text("grün und rot".to_owned())));
        let pieces = [
            first.clone(),
            edit(Revision(5), Edited::Text(vec![rewrite(0, 0, "sehr "), rewrite(6, 9, "oder")])),
            edit(Revision(9), Edited::Text(vec![rewrite(5, 10, "blau")])),
        ];
        let now = session(&pieces).expect("they follow each other");
        assert_eq!((now.revision, now.content), (Revision(9), Content::Text("sehr blau oder rot".to_owned())));

        let tokens = |ids: &[u32]| ids.iter().copied().map(TokenId).collect::<Vec<_>>();
        let splices =
            Splices::new(vec![Splice { at: TokenIndex(1), delete: 1, insert: tokens(&[7, 8]) }], 3).expect("inside");
        let pieces = [whole(carried(Content::Tokens(tokens(&[1, 2, 3])))), edit(Revision(5), Edited::Tokens(splices))];
        let now = session(&pieces).expect("they follow each other");
        assert_eq!(now.content, Content::Tokens(tokens(&[1, 7, 8, 3])));

        let outside = edit(Revision(5), Edited::Text(vec![rewrite(2, 3, "")]));
        for wrong in [vec![], vec![outside.clone()], vec![first, outside], vec![vec![255, 255]]] {
            assert_eq!(session(&wrong).expect_err("it is no session").reason, Reason::Internal);
        }
    }
}
