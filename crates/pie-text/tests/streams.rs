//! Tokens to text, and stop strings in it, however the stream is cut.

mod common;

use common::{PAIRS, Pair};
use pie_text::StopStrings;
use pie_words::TokenId;
use proptest::prelude::*;

/// Where the first stop string to be complete in `text`, and of those the longest, starts.
fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
    let longest = |end: usize| {
        let ending = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
        ending.map(String::len).max().map(|length| end - length)
    };
    ends.into_iter().find_map(longest)
}

/// What Hugging Face decodes between added tokens, and those of these that are text as they are written: it takes `õ` for a byte.
fn decoded(pair: &Pair, ids: &[u32]) -> String {
    let added = pair.theirs.get_added_tokens_decoder();
    let control = pair.ours.control_tokens();
    let (mut text, mut run) = (String::new(), Vec::new());
    let flush = |run: &mut Vec<u32>| pair.theirs.decode(&std::mem::take(run), false).expect("decodes");
    for id in ids {
        match added.get(id) {
            _ if control.contains(&TokenId(*id)) => {}
            Some(token) => {
                text.push_str(&flush(&mut run));
                text.push_str(&token.content);
            }
            None => run.push(*id),
        }
    }
    text + &flush(&mut run)
}

proptest! {
    #![proptest_config(common::cases(256))]

    #[test]
    fn joined_deltas_are_the_whole_decoded(
        which in 0..PAIRS.len(), shares in prop::collection::vec(0.0..1.001_f64, 0..60), bytes_only in any::<bool>()
    ) {
        let pair = &PAIRS[which];
        // The first few hundred ids are single bytes: what breaks characters most.
        let among = if bytes_only { 300.0 } else { f64::from(pair.ours.vocab_size()) };
        let ids: Vec<u32> = shares.iter().map(|share| (share * among) as u32).collect();
        let mut decoder = pair.ours.decoder();
        let mut text: String = ids.iter().map(|id| decoder.push(TokenId(*id))).collect();
        text.push_str(&decoder.finish());
        prop_assert_eq!(&text, &decoded(pair, &ids));
    }

    #[test]
    fn text_is_sent_as_soon_as_no_character_is_open(which in 0..PAIRS.len(), text in "[a-z é你😀\n]{0,30}") {
        let pair = &PAIRS[which];
        let mut decoder = pair.ours.decoder();
        let mut sent = String::new();
        for token in pair.ours.encode(&text).expect("encodes") {
            sent.push_str(&decoder.push(token));
            prop_assert!(text.starts_with(&sent), "{:?} of {:?}", sent, text);
        }
        prop_assert_eq!((sent, decoder.finish()), (text, String::new()));
    }

    #[test]
    fn stop_strings_are_found_however_the_text_is_cut(
        deltas in prop::collection::vec("[ab<é]{0,4}", 0..12),
        stops in prop::collection::vec("[ab<é]{0,4}", 0..4),
    ) {
        let whole = deltas.concat();
        let found = first_stop(&whole, &stops);
        let mut matcher = StopStrings::new(stops.clone());
        let (mut sent, mut stopped, mut taken) = (String::new(), false, String::new());
        for delta in &deltas {
            let (text, stop) = matcher.push(delta);
            sent.push_str(&text);
            stopped = stop;
            taken.push_str(delta);
            if !stopped {
                let held = &taken[sent.len()..];
                let may_start = held.is_empty() || stops.iter().any(|stop| stop.starts_with(held) && stop != held);
                prop_assert!(may_start, "{:?} is held back for nothing", held);
            }
        }
        prop_assert_eq!(stopped, found.is_some());
        sent.push_str(&matcher.finish());
        prop_assert_eq!(sent.as_str(), &whole[..found.unwrap_or(whole.len())]);
    }
}
