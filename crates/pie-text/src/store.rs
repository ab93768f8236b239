//! The tokens of a document in chunks, with the bytes of their pieces, so that an edit moves no more than a chunk.

use pie_words::TextToken;
use std::sync::Arc;

/// A piece start: its token and its byte, or the ends of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceStart {
    /// The index of the piece's first token.
    pub token: usize,
    /// The offset of its first byte.
    pub byte: usize,
}

#[derive(Clone, Debug, Default)]
struct TokenChunk {
    entries: Vec<TextToken>,
    /// The sum of `piece_bytes`.
    bytes: usize,
}

/// Tokens in order. Chunks are found by walking over their sums: 64k tokens are 128 steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenStore {
    /// Replaced, never changed: copies of a document share them.
    chunks: Vec<Arc<TokenChunk>>,
    len: usize,
}

const CHUNK: usize = 512;

impl TokenChunk {
    fn new(entries: Vec<TextToken>) -> Self {
        let bytes = entries.iter().map(|entry| entry.piece_bytes as usize).sum();
        Self { entries, bytes }
    }
}

impl TokenStore {
    pub(crate) fn new(entries: Vec<TextToken>) -> Self {
        let len = entries.len();
        let chunks = entries.chunks(CHUNK).map(|part| Arc::new(TokenChunk::new(part.to_vec()))).collect();
        Self { chunks, len }
    }

    /// Whether it covers so many bytes, or none, as where pieces are not known, and its sums are right.
    pub(crate) fn is_whole(&self, bytes: usize) -> bool {
        let tokens: usize = self.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        let covered = self.bytes();
        tokens == self.len && (covered == bytes || covered == 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of text of all pieces.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TextToken> + '_ {
        self.chunks.iter().flat_map(|chunk| &chunk.entries)
    }

    /// The tokens from index `start` on.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &TextToken> + '_ {
        let (chunk, inside) = self.find(start);
        self.chunks[chunk..].iter().flat_map(|chunk| &chunk.entries).skip(inside)
    }

    /// The last piece start before `limit` bytes, or the start of the text.
    pub(crate) fn piece_before(&self, limit: usize) -> PieceStart {
        let mut at = PieceStart { token: 0, byte: 0 };
        let mut found: Option<(&TokenChunk, PieceStart)> = None;
        for chunk in &self.chunks {
            if at.byte >= limit {
                break;
            }
            // A chunk without bytes is all inside of a long piece. In others the first piece starts at `at.byte`.
            if chunk.bytes > 0 {
                found = Some((chunk, at));
            }
            at = PieceStart { token: at.token + chunk.entries.len(), byte: at.byte + chunk.bytes };
        }
        let Some((chunk, mut at)) = found else { return PieceStart { token: 0, byte: 0 } };
        let mut last = at;
        for entry in &chunk.entries {
            if entry.piece_bytes > 0 {
                if at.byte >= limit {
                    break;
                }
                last = at;
            }
            at = PieceStart { token: at.token + 1, byte: at.byte + entry.piece_bytes as usize };
        }
        last
    }

    /// Replaces the tokens `start..end`.
    pub(crate) fn replace(&mut self, start: usize, end: usize, entries: Vec<TextToken>) {
        self.len = self.len - (end - start) + entries.len();
        let (first, head) = self.find(start);
        let (mut last, tail) = self.find(end);
        let mut merged = self.chunks.get(first).map_or_else(Vec::new, |chunk| chunk.entries[..head].to_vec());
        merged.extend(entries);
        if let Some(chunk) = self.chunks.get(last) {
            merged.extend_from_slice(&chunk.entries[tail..]);
        }
        // A chunk that shrank takes in its neighbour, so that deletions do not leave crumbs.
        if merged.len() < CHUNK / 4
            && let Some(next) = self.chunks.get(last + 1)
        {
            merged.extend_from_slice(&next.entries);
            last += 1;
        }
        let parts = merged.len().div_ceil(CHUNK).max(1);
        let new = merged
            .chunks(merged.len().div_ceil(parts).max(1))
            .map(|part| Arc::new(TokenChunk::new(part.to_vec())));
        let behind = (last + 1).min(self.chunks.len());
        self.chunks.splice(first..behind, new);
    }

    /// The chunk that holds token `index` and its place there; the end of the last chunk for the end of all.
    fn find(&self, index: usize) -> (usize, usize) {
        let mut before = 0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            if index < before + chunk.entries.len() {
                return (number, index - before);
            }
            before += chunk.entries.len();
        }
        match self.chunks.last() {
            Some(chunk) => (self.chunks.len() - 1, chunk.entries.len()),
            None => (0, 0),
        }
    }
}
