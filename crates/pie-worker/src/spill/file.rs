//! One block as a file: a header that says whose rows they are, the rows, and a checksum of all of it.
//!
//! `PIEROWS1`, the name (16 bytes), layers, rows and numbers of a row (4 bytes each); for each layer the keys, then the values, in f32; the
//! checksum (16 bytes). Everything is little-endian.

use pie_model::KvRows;
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: &[u8; 8] = b"PIEROWS1";
const HEADER: usize = 8 + 16 + 3 * 4;
const CHECKSUM: usize = 16;

/// Sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// Layers of the model.
    pub layers: usize,
    /// Tokens.
    pub rows: usize,
    /// Numbers of a key or value of one token in one layer.
    pub numbers: usize,
}

impl BlockShape {
    fn header(self, name: u128) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&name.to_le_bytes());
        for (field, size) in header[24..].chunks_exact_mut(4).zip([self.layers, self.rows, self.numbers]) {
            field.copy_from_slice(&(size as u32).to_le_bytes());
        }
        header
    }

    /// Bytes of a file.
    pub fn bytes(self) -> usize {
        HEADER + 2 * self.layers * self.side() + CHECKSUM
    }

    /// Bytes of the keys of a layer, or of its values.
    fn side(self) -> usize {
        4 * self.rows * self.numbers
    }
}

/// Why a file is not a block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotABlock {
    /// It was cut, or is something else.
    #[error("it has {got} bytes, and not {expected}")]
    Length {
        /// What it has.
        got: usize,
        /// What a block has.
        expected: usize,
    },
    /// Its header is not that of this block.
    #[error("it is of another text, or of a cache of other sizes")]
    Header,
    /// A bit of it is another than it was.
    #[error("its checksum is not that of its bytes")]
    Checksum,
}

/// The bytes of a block.
pub fn encode(layers: &[KvRows], name: u128, shape: BlockShape) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shape.bytes());
    bytes.extend_from_slice(&shape.header(name));
    for numbers in layers.iter().flat_map(|rows| [&rows.keys, &rows.values]) {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
    bytes
}

/// The rows in the bytes of the block of this name.
///
/// # Errors
/// [`NotABlock`].
pub fn decode(bytes: &[u8], name: u128, shape: BlockShape) -> Result<Vec<KvRows>, NotABlock> {
    let expected = shape.bytes();
    if bytes.len() != expected {
        return Err(NotABlock::Length { got: bytes.len(), expected });
    }
    let (content, checksum) = bytes.split_at(expected - CHECKSUM);
    if xxh3_128(content).to_le_bytes() != checksum {
        return Err(NotABlock::Checksum);
    }
    let (header, rows) = content.split_at(HEADER);
    if header != shape.header(name) {
        return Err(NotABlock::Header);
    }
    let numbers = |bytes: &[u8]| {
        bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect()
    };
    let layer = |bytes: &[u8]| {
        let (keys, values) = bytes.split_at(shape.side());
        KvRows { keys: numbers(keys), values: numbers(values) }
    };
    Ok(rows.chunks_exact((2 * shape.side()).max(1)).map(layer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_that_is_another_is_found() {
        let shape = BlockShape { layers: 2, rows: 3, numbers: 2 };
        let side = |first: u8| (0..6).map(|number| f32::from(first + number) / 3.0).collect();
        let layers: Vec<KvRows> =
            [0, 20].map(|first| KvRows { keys: side(first), values: side(first + 9) }).into();
        let bytes = encode(&layers, 77, shape);
        assert_eq!(decode(&bytes, 77, shape).as_ref(), Ok(&layers), "as it was");
        for bit in 0..8 * bytes.len() {
            let mut torn = bytes.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&torn, 77, shape), Err(NotABlock::Checksum), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(
                matches!(decode(&bytes[..length], 77, shape), Err(NotABlock::Length { .. })),
                "{length} bytes"
            );
        }
        assert_eq!(decode(&bytes, 78, shape), Err(NotABlock::Header), "another text");
        let other = BlockShape { layers: 3, rows: 2, numbers: 2 };
        assert_eq!(decode(&bytes, 77, other), Err(NotABlock::Header), "as many numbers of another cache");
    }
}
