//! How the attention of a step is shared out to blocks: pure arithmetic, without a GPU.

use crate::attention::Attention;

/// What a kernel takes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Query vectors of a block.
    pub vectors: u32,
    /// Fewest keys that are worth a block of their own.
    pub keys: u32,
}

/// Query vectors of one sequence, and the keys that one block for each KV head reads for them (`Tile` of attention.cu).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// The sequence's first row in the batch.
    pub first_row: u32,
    /// Its first query vector: row after row, and of each row the heads that share a KV head.
    pub vectors_begin: u32,
    /// Behind its last query vector.
    pub vectors_end: u32,
    /// Where the sequence's slots begin in the list of all slots.
    pub table: u32,
    /// The first index of the sequence whose key is read.
    pub keys_begin: u32,
    /// Behind the last.
    pub keys_end: u32,
    /// Index of its partial result, or [`WHOLE`].
    pub part: u32,
}

/// A tile that no other shares its query vectors with.
pub(crate) const WHOLE: u32 = u32::MAX;

/// Parts that make one result (`Merge` of attention.cu).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The sequence's first row in the batch.
    pub first_row: u32,
    /// The first query vector of the result.
    pub vectors_begin: u32,
    /// Behind its last.
    pub vectors_end: u32,
    /// The first partial result that it is made of.
    pub parts_begin: u32,
    /// Behind the last.
    pub parts_end: u32,
}

/// The work of one kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tiles {
    /// What blocks compute.
    pub tiles: Vec<Tile>,
    /// Which of their results belong together.
    pub merges: Vec<Merge>,
    /// Partial results that there must be memory for.
    pub parts: u32,
}

/// A cut of a context starts at a multiple of this.
const CUT: u32 = 64;

impl Tiles {
    /// Shares sequences out, each with where its table starts. A context is cut in parts if otherwise fewer than `blocks`
    /// blocks would have work, one for each tile and KV head.
    pub fn new<'a>(
        sequences: impl Iterator<Item = (&'a Attention<'a>, u32)> + Clone,
        (group, kv_heads): (u32, u32),
        shape: Shape,
        blocks: u32,
    ) -> Self {
        let uncut: Vec<Tile> =
            sequences.flat_map(|(sequence, table)| of_sequence(sequence, table, group, shape)).collect();
        let keys: u64 = uncut.iter().map(|tile| u64::from(tile.keys_end)).sum();
        let share = (keys * u64::from(kv_heads)).div_ceil(u64::from(blocks.max(1)));
        let share = u32::try_from(share).unwrap_or(u32::MAX).max(shape.keys);
        let mut all = Self::default();
        uncut.into_iter().for_each(|tile| all.cut(tile, share));
        // The heaviest first, so that blocks end together.
        all.tiles.sort_by_key(|tile| std::cmp::Reverse(tile.keys_end - tile.keys_begin));
        all
    }

    fn cut(&mut self, tile: Tile, share: u32) {
        let parts = tile.keys_end.div_ceil(share);
        if parts <= 1 {
            self.tiles.push(tile);
            return;
        }
        let size = tile.keys_end.div_ceil(parts).next_multiple_of(CUT);
        let first = self.parts;
        for begin in (0..tile.keys_end).step_by(size as usize) {
            let keys_end = tile.keys_end.min(begin + size);
            self.tiles.push(Tile { keys_begin: begin, keys_end, part: self.parts, ..tile });
            self.parts += 1;
        }
        let Tile { first_row, vectors_begin, vectors_end, .. } = tile;
        let (parts_begin, parts_end) = (first, self.parts);
        self.merges.push(Merge { first_row, vectors_begin, vectors_end, parts_begin, parts_end });
    }
}

/// The tiles of one sequence over its whole context.
fn of_sequence<'a>(
    sequence: &'a Attention<'a>,
    table: u32,
    group: u32,
    shape: Shape,
) -> impl Iterator<Item = Tile> + 'a {
    let vectors = sequence.rows.len() as u32 * group;
    (0..vectors).step_by(shape.vectors as usize).map(move |vectors_begin| {
        let vectors_end = vectors.min(vectors_begin + shape.vectors);
        // Visibilities ascend: the last row sees the most.
        let keys_end = sequence.visible[((vectors_end - 1) / group) as usize];
        let first_row = sequence.rows.start as u32;
        Tile { first_row, vectors_begin, vectors_end, table, keys_begin: 0, keys_end, part: WHOLE }
    })
}

impl Tile {
    /// The fields in the order of the kernel's struct.
    pub fn words(&self) -> [u32; 7] {
        let Self { first_row, vectors_begin, vectors_end, table, keys_begin, keys_end, part } = *self;
        [first_row, vectors_begin, vectors_end, table, keys_begin, keys_end, part]
    }
}

impl Merge {
    /// The fields in the order of the kernel's struct.
    pub fn words(&self) -> [u32; 5] {
        let Self { first_row, vectors_begin, vectors_end, parts_begin, parts_end } = *self;
        [first_row, vectors_begin, vectors_end, parts_begin, parts_end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::View;
    use pie_words::Slot;
    use proptest::prelude::*;

    proptest! {
        /// Every query vector of every row reads each of its keys once, and no others; parts that share vectors are merged.
        #[test]
        fn each_vector_reads_its_keys_once(
            rows in prop::collection::vec((1usize..40, 0u32..700), 1..6),
            group in 1u32..9,
            kv_heads in 1u32..9,
            vectors in prop::sample::select(vec![16u32, 64]),
            blocks in 1u32..600,
        ) {
            let mut start = 0;
            let visible: Vec<Vec<u32>> = rows.iter().map(|(rows, before)| (0..*rows as u32).map(|row| before + row + 1).collect()).collect();
            let tables: Vec<Vec<Slot>> = visible.iter().map(|seen| vec![Slot(0); seen[seen.len() - 1] as usize]).collect();
            let sequences: Vec<Attention<'_>> = visible.iter().zip(&tables).map(|(visible, table)| {
                let rows = start..start + visible.len();
                start = rows.end;
                Attention { rows, view: View::from(&table[..]), visible }
            }).collect();
            let shape = Shape { vectors, keys: 128 };
            let starts = sequences.iter().map(|sequence| (sequence, sequence.rows.start as u32));
            let all = Tiles::new(starts, (group, kv_heads), shape, blocks);
            for sequence in &sequences {
                let own = |first_row: u32| first_row as usize == sequence.rows.start;
                for vector in 0..sequence.rows.len() as u32 * group {
                    let mut tiles: Vec<&Tile> = all.tiles.iter().filter(|tile| own(tile.first_row) && (tile.vectors_begin..tile.vectors_end).contains(&vector)).collect();
                    tiles.sort_by_key(|tile| tile.keys_begin);
                    prop_assert!(tiles.iter().all(|tile| tile.table as usize == sequence.rows.start && tile.vectors_end - tile.vectors_begin <= vectors));
                    let mut next = 0;
                    for tile in &tiles {
                        prop_assert_eq!(tile.keys_begin, next);
                        next = tile.keys_end;
                    }
                    prop_assert!(next >= sequence.visible[(vector / group) as usize]);
                    if tiles.len() > 1 {
                        let parts: Vec<u32> = tiles.iter().map(|tile| tile.part).collect();
                        let merges: Vec<&Merge> = all.merges.iter().filter(|merge| own(merge.first_row) && (merge.vectors_begin..merge.vectors_end).contains(&vector)).collect();
                        prop_assert_eq!(merges.len(), 1);
                        prop_assert_eq!(parts, (merges[0].parts_begin..merges[0].parts_end).collect::<Vec<_>>());
                    } else {
                        prop_assert_eq!(tiles[0].part, WHOLE);
                    }
                }
            }
            let mut parts: Vec<u32> = all.tiles.iter().map(|tile| tile.part).filter(|part| *part != WHOLE).collect();
            parts.sort_unstable();
            prop_assert_eq!(parts, (0..all.parts).collect::<Vec<_>>());
        }
    }
}
