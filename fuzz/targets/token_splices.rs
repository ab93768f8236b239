//! Token splices as clients send them, against a vector.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pie_fuzz::explained;
use pie_fuzz::pairs::PAIRS;
use pie_text::Document;
use pie_words::{Cursor, Splice, Splices, TokenId, TokenIndex};

#[derive(Arbitrary, Debug)]
struct Input {
    tokens: Vec<u32>,
    requests: Vec<Vec<(u32, u32, Vec<u32>)>>,
    /// Places stay near the document.
    near: bool,
    cursor: u64,
}

/// All splices count in the tokens before them, and none begins before the end of the one before it.
fn spliced(tokens: &[TokenId], list: &[Splice]) -> Option<Vec<TokenId>> {
    let (mut new, mut at) = (Vec::new(), 0_u64);
    for splice in list {
        let (start, end) = (u64::from(splice.at.0), u64::from(splice.at.0) + u64::from(splice.delete));
        if start < at || end > tokens.len() as u64 {
            return None;
        }
        new.extend_from_slice(&tokens[at as usize..start as usize]);
        new.extend_from_slice(&splice.insert);
        at = end;
    }
    new.extend_from_slice(&tokens[at as usize..]);
    Some(new)
}

// Tokenizers take a while to load, which is no input's fault.
fuzz_target!(init: {
    std::sync::LazyLock::force(&PAIRS);
}, |input: Input| {
    let ids = |list: &[u32]| list.iter().map(|id| TokenId(*id)).collect::<Vec<_>>();
    let mut tokens = ids(&input.tokens);
    let mut document = Document::open_tokens(PAIRS[0].ours.clone(), tokens.clone()).expect("few tokens");
    for request in &input.requests {
        let near = |number: u32| if input.near { number % (tokens.len() as u32 + 2) } else { number };
        let splice = |(at, delete, insert): &(u32, u32, Vec<u32>)| Splice {
            at: TokenIndex(near(*at)),
            delete: if input.near { delete % 4 } else { *delete },
            insert: ids(insert),
        };
        let mut list: Vec<Splice> = request.iter().map(splice).collect();
        if input.near {
            list.sort_by_key(|splice| splice.at);
        }
        let wanted = spliced(&tokens, &list);
        let splices = Splices::new(list.clone(), tokens.len());
        assert_eq!(splices.is_ok(), wanted.is_some(), "{list:?} on {}: {splices:?}", tokens.len());
        // A rank checks a plan's splices before it knows the length: those that do nothing are gone by then.
        if let Ok(wide) = Splices::new(list.clone(), u32::MAX as usize) {
            list.retain(|splice| splice.delete > 0 || !splice.insert.is_empty());
            let prepared = document.prepare_tokens(document.revision(), wide);
            assert_eq!(prepared.is_ok(), spliced(&tokens, &list).is_some(), "{prepared:?}");
        }
        let (Some(splices), Some(wanted)) = (explained(splices), wanted) else { continue };
        let touching = splices.iter().zip(splices.iter().skip(1)).any(|(one, next)| one.end() >= next.at);
        assert!(!touching, "S1: {splices:?}");
        assert_eq!(splices.apply(&tokens), wanted);
        assert_eq!(tokens.len() - splices.deleted() + splices.inserted(), wanted.len());
        let change = document.prepare_tokens(document.revision(), splices).expect("they fit");
        document.commit(change).expect("what was just prepared can be committed");
        tokens = wanted;
        assert!(document.tokens().eq(tokens.iter().copied()));
    }
    let cursor = if input.near { input.cursor as usize % (tokens.len() + 2) } else { input.cursor as usize };
    let index = TokenIndex(u32::try_from(cursor).unwrap_or(u32::MAX));
    assert_eq!(document.cut(Cursor::Token(index)).is_ok(), cursor <= tokens.len());
    explained(document.cut(Cursor::Byte(cursor)));
});
