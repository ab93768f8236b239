//! Which prompts look alike: found without tokenizing any, among a thousand in well under a millisecond.
//!
//! Of each text the hashes of all its stretches of [`SHINGLE`] bytes are looked at, and the [`KEPT`] smallest are kept: its *sketch*.
//! Two texts that share a part of their stretches share that part of their sketches, whichever the texts are (Broder, "On the
//! resemblance and containment of documents", 1997), so that an index from hashes to texts finds the likest one.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Bytes of a stretch: longer than what all programs say, shorter than a line that somebody changes.
const SHINGLE: usize = 24;
/// Hashes of a sketch.
const KEPT: usize = 128;
/// A text shares so much of its sketch with another, or is not like it, in parts of [`SHARES`].
const ALIKE: usize = 1;
const SHARES: usize = 4;

/// What a text is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch(Vec<u64>);

impl Sketch {
    /// Of a text in parts; what stands at the seams counts for nothing.
    pub fn of<'a, P: AsRef<[u8]> + 'a>(parts: impl Iterator<Item = P>) -> Self {
        let mut smallest = Smallest::default();
        for part in parts {
            let part = part.as_ref();
            if part.len() < SHINGLE {
                smallest.take(mixed(xxhash_rust::xxh3::xxh3_64(part)));
                continue;
            }
            // A rolling hash: each stretch from the one before it, a byte further on.
            let leaving = BASE.wrapping_pow(SHINGLE as u32 - 1);
            let mut hash = part[..SHINGLE].iter().fold(0, |hash, byte| next(hash, *byte));
            smallest.take(mixed(hash));
            for at in SHINGLE..part.len() {
                hash = hash.wrapping_sub(digit(part[at - SHINGLE]).wrapping_mul(leaving));
                hash = next(hash, part[at]);
                smallest.take(mixed(hash));
            }
        }
        Self(smallest.hashes.into_iter().collect())
    }
}

/// The smallest of many hashes, each once.
struct Smallest {
    hashes: BTreeSet<u64>,
    /// Hashes from here on are too large. It is looked at for each byte of a text.
    bound: u64,
}

impl Default for Smallest {
    fn default() -> Self {
        Self { hashes: BTreeSet::new(), bound: u64::MAX }
    }
}

impl Smallest {
    fn take(&mut self, hash: u64) {
        if hash >= self.bound || !self.hashes.insert(hash) {
            return;
        }
        if self.hashes.len() > KEPT {
            self.hashes.pop_last();
        }
        if self.hashes.len() == KEPT {
            self.bound = self.hashes.last().copied().unwrap_or(u64::MAX);
        }
    }
}

const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A byte as a digit other than 0, so that stretches of zero bytes are not all alike.
fn digit(byte: u8) -> u64 {
    u64::from(byte) + 1
}

fn next(hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(digit(byte))
}

/// Spreads a hash, so that the smallest are a fair choice (the last steps of MurmurHash3).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// Texts by their sketches. `K` names a text, which is there once at most; `G` those that may be compared with each other.
#[derive(Debug)]
pub struct Likeness<G, K> {
    texts: HashMap<(G, u64), Vec<KeyIndex>>,
    /// A text's place among all, so that what it shares is counted in a list and not in a map: where many sessions hold much of the
    /// same code, a search counts to a hundred for each.
    places: HashMap<K, KeyIndex>,
    keys: Vec<Option<K>>,
    free: Vec<KeyIndex>,
}

/// An index into the keys.
type KeyIndex = u32;

impl<G, K> Default for Likeness<G, K> {
    fn default() -> Self {
        Self { texts: HashMap::new(), places: HashMap::new(), keys: Vec::new(), free: Vec::new() }
    }
}

impl<G: Clone + Eq + Hash, K: Copy + Ord + Hash> Likeness<G, K> {
    /// A text is there.
    pub fn insert(&mut self, group: &G, key: K, sketch: &Sketch) {
        let place = self.free.pop().unwrap_or(self.keys.len() as KeyIndex);
        if place as usize == self.keys.len() {
            self.keys.push(None);
        }
        self.keys[place as usize] = Some(key);
        self.places.insert(key, place);
        for hash in &sketch.0 {
            self.texts.entry((group.clone(), *hash)).or_default().push(place);
        }
    }

    /// It is there no longer.
    pub fn remove(&mut self, group: &G, key: K, sketch: &Sketch) {
        let Some(place) = self.places.remove(&key) else { return };
        for hash in &sketch.0 {
            let of_hash = (group.clone(), *hash);
            if let Some(places) = self.texts.get_mut(&of_hash) {
                places.retain(|other| *other != place);
                if places.is_empty() {
                    self.texts.remove(&of_hash);
                }
            }
        }
        self.keys[place as usize] = None;
        self.free.push(place);
    }

    /// The texts that are like this one, the likest first; among equals the youngest.
    pub fn alike(&self, group: &G, sketch: &Sketch) -> Vec<Alike<K>> {
        let mut shared = vec![0_usize; self.keys.len()];
        for hash in &sketch.0 {
            for place in self.texts.get(&(group.clone(), *hash)).into_iter().flatten() {
                shared[*place as usize] += 1;
            }
        }
        let is_alike = |shared: usize| shared > 0 && shared * SHARES >= sketch.0.len() * ALIKE;
        let mut alike: Vec<Alike<K>> = self
            .keys
            .iter()
            .zip(shared)
            .filter(|(_, shared)| is_alike(*shared))
            .filter_map(|(key, shared)| Some(Alike { shared, key: (*key)? }))
            .collect();
        alike.sort_unstable_by(|a, b| b.cmp(a));
        alike
    }
}

/// A text that is like another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alike<K> {
    /// Hashes that both sketches have.
    pub shared: usize,
    /// Which.
    pub key: K,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(text: &str) -> Sketch {
        Sketch::of(std::iter::once(text.as_bytes()))
    }

    /// A file of so many lines, each its own.
    fn file(name: &str, lines: usize) -> String {
        let line =
            |line| format!("    let {name}_{line} = compute_{name}(input[{line}], {});\n", line * 7919 % 613);
        (0..lines).map(line).collect()
    }

    #[test]
    fn the_likest_is_found_whatever_was_edited() {
        let mut likeness = Likeness::default();
        let files: Vec<String> = (0..50).map(|number| file(&format!("name{number}"), 300)).collect();
        for (key, file) in files.iter().enumerate() {
            likeness.insert(&"me", key, &sketch(file));
        }
        let told = |likeness: &Likeness<&str, usize>, text: &str| {
            likeness.alike(&"me", &sketch(text)).first().map(|alike| alike.key)
        };
        let third: Vec<&str> = files[3].split_inclusive('\n').collect();
        let cases: [(&str, String, Option<usize>); 7] = [
            ("the same", files[3].clone(), Some(3)),
            ("a word typed", files[3].replacen("compute", "compute_it", 1), Some(3)),
            ("its first half", third[..150].concat(), Some(3)),
            ("a window that moved on", [&third[60..], &[&files[4][..400]]].concat().concat(), Some(3)),
            ("a chunk of another file in front", [&files[9][..2000], &files[3]].concat(), Some(3)),
            ("another file", file("other", 300), None),
            ("nothing", String::new(), None),
        ];
        for (name, text, expected) in &cases {
            assert_eq!(told(&likeness, text), *expected, "{name}");
        }
        assert!(likeness.alike(&"somebody else", &sketch(&files[3])).is_empty());
        likeness.remove(&"me", 3, &sketch(&files[3]));
        likeness.remove(&"me", 3, &sketch(&files[3]));
        assert_eq!(told(&likeness, &files[3]), None, "it is gone");
        likeness.insert(&"me", 77, &sketch(&cases[5].1));
        assert_eq!(
            (told(&likeness, &files[3]), told(&likeness, &cases[5].1)),
            (None, Some(77)),
            "another has its place"
        );
    }

    #[test]
    fn short_texts_have_sketches_too() {
        let mut likeness = Likeness::default();
        likeness.insert(&(), 1, &sketch("def add(a, b):"));
        assert_eq!(likeness.alike(&(), &sketch("def add(a, b):")), [Alike { shared: 1, key: 1 }]);
        assert_eq!(likeness.alike(&(), &sketch("def sub(a, b):")), []);
    }
}
