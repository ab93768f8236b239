//! Lists of splices, as they come from outside.

use pie_words::{Splice, Splices, TokenId, TokenIndex};
use proptest::prelude::*;

proptest! {
    /// S1 after `Splices::new`, and applying them equals applying one by one from the back.
    #[test]
    fn splices_are_sorted_disjoint_and_complete(
        list in prop::collection::vec((0..40_u32, 0..5_u32, 0..4_usize), 0..6), length in 0..40_usize,
    ) {
        let list: Vec<_> = list.into_iter().map(|(at, delete, insert)| Splice {
            at: TokenIndex(at), delete, insert: vec![TokenId(at); insert],
        }).collect();
        if let Ok(splices) = Splices::new(list.clone(), length) {
            let spans: Vec<_> = splices.iter().map(|splice| (splice.at, splice.end())).collect();
            prop_assert!(spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted, disjoint, not touching");
            prop_assert!(splices.fits(length).is_ok());
            prop_assert_eq!(splices.inserted(), list.iter().map(|splice| splice.insert.len()).sum::<usize>());
            prop_assert_eq!(splices.deleted(), list.iter().map(|splice| splice.delete as usize).sum::<usize>());
        } else {
            let out = list.iter().any(|splice| splice.end().usize() > length);
            let unsorted = list.windows(2).any(|pair| pair[1].at < pair[0].end());
            prop_assert!(out || unsorted, "refused without cause");
        }
    }
}
