//! The beginning of a file: settings, and where each tensor lies.

use crate::error::GgufError;
use crate::storage::Storage;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

const MAGIC: [u8; 4] = *b"GGUF";
/// Tensors begin at multiples of this where a file names no other.
const ALIGNMENT: u64 = 32;
/// Dimensions of a tensor.
const MOST_DIMENSIONS: u32 = 4;
/// Items are read into memory that is reserved for so many at most: a count that is not true takes no memory beforehand.
const RESERVED: u64 = 1 << 16;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// A number of 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Values of one type.
    List(Vec<GgufValue>),
}

/// Where a tensor lies, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Rows first: the last dimension is that of numbers which lie side by side.
    pub shape: Vec<usize>,
    /// The number that the file names its storage by.
    pub kind: u32,
    /// Its storage, if it is one that is read.
    pub storage: Option<Storage>,
    /// Its first byte in the file.
    pub start: u64,
}

impl TensorInfo {
    /// Bytes of the tensor, if its storage is known, its rows are whole blocks, and the number is one.
    pub fn bytes(&self) -> Option<u64> {
        let storage = self.storage?;
        let (columns, rows) = self.shape.split_last()?;
        let blocks = columns.is_multiple_of(storage.numbers()).then(|| columns / storage.numbers())?;
        let row = blocks.checked_mul(storage.bytes())?;
        let bytes = rows.iter().try_fold(row, |bytes, size| bytes.checked_mul(*size))?;
        u64::try_from(bytes).ok()
    }
}

/// What stands at the beginning of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gguf {
    settings: BTreeMap<String, GgufValue>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Whether a path names a file of this format.
    pub fn is_named(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    }

    /// Reads the beginning of a file; of its tensors not a byte.
    ///
    /// # Errors
    /// [`GgufError`] for what is no GGUF file, or says what cannot be.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        Self::parse(BufReader::new(file), length)
    }

    /// Reads the beginning of what has so many bytes in all.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn parse(from: impl Read, length: u64) -> Result<Self, GgufError> {
        let mut source = PositionedReader { from, at: 0, length };
        let magic = source.bytes()?;
        if magic != MAGIC {
            return Err(GgufError::Magic(magic));
        }
        match u32::from_le_bytes(source.bytes()?) {
            2 | 3 => {}
            version => return Err(GgufError::Version(version)),
        }
        let (tensors, settings) = (source.count(24)?, source.count(12)?);
        let mut file = Self::default();
        for _ in 0..settings {
            let (key, kind) = (source.text()?, source.u32()?);
            let value = source.value(kind)?;
            file.settings.insert(key, value);
        }
        for _ in 0..tensors {
            file.tensors.push(source.tensor()?);
        }
        file.place(source.at, length)?;
        Ok(file)
    }

    /// Offsets count from where the list of tensors ends, rounded up.
    fn place(&mut self, end: u64, length: u64) -> Result<(), GgufError> {
        let alignment = self.unsigned("general.alignment").unwrap_or(ALIGNMENT);
        let damaged = |what: String| GgufError::Damaged { what, at: end };
        if !alignment.is_power_of_two() || alignment > length {
            return Err(damaged(format!("tensors begin at multiples of {alignment}")));
        }
        let first = end.next_multiple_of(alignment);
        for tensor in &mut self.tensors {
            let start = first.checked_add(tensor.start);
            let behind = start.and_then(|start| start.checked_add(tensor.bytes().unwrap_or(0)));
            match (start, behind) {
                (Some(start), Some(behind)) if behind <= length => tensor.start = start,
                _ => return Err(damaged(format!("{} lies beyond the file's {length} bytes", tensor.name))),
            }
        }
        Ok(())
    }

    /// A whole number that is not negative.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.settings.get(key)? {
            GgufValue::Unsigned(number) => Some(*number),
            GgufValue::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.settings.get(key)? {
            GgufValue::Float(number) => Some(*number),
            GgufValue::Unsigned(number) => Some(*number as f64),
            GgufValue::Signed(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.settings.get(key)? {
            GgufValue::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.settings.get(key)? {
            GgufValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list.
    pub fn list(&self, key: &str) -> Option<&[GgufValue]> {
        match self.settings.get(key)? {
            GgufValue::List(list) => Some(list),
            _ => None,
        }
    }
}

/// Bytes in order, with the place of the next one.
struct PositionedReader<R> {
    from: R,
    at: u64,
    length: u64,
}

impl<R: Read> PositionedReader<R> {
    fn damaged(&self, what: String) -> GgufError {
        GgufError::Damaged { what, at: self.at }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        match self.from.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("the file ends".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn bytes<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], GgufError> {
        let mut bytes = [0; SIZE];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A number of things that take at least so many bytes each, which the file must have room for.
    fn count(&mut self, least: u64) -> Result<u64, GgufError> {
        let count = self.u64()?;
        if count > self.length.saturating_sub(self.at) / least {
            return Err(self.damaged(format!("a count of {count}")));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.count(1)?;
        let length =
            usize::try_from(length).map_err(|_| self.damaged(format!("a text of {length} bytes")))?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8".to_owned()))
    }

    /// A value by the number of its type.
    fn value(&mut self, kind: u32) -> Result<GgufValue, GgufError> {
        if kind != LIST {
            return self.item(kind);
        }
        let kind = self.u32()?;
        let count = self.count(1)?;
        let mut list = Vec::with_capacity(count.min(RESERVED) as usize);
        for _ in 0..count {
            list.push(self.item(kind)?);
        }
        Ok(GgufValue::List(list))
    }

    /// A value that is no list: nobody writes lists of lists.
    fn item(&mut self, kind: u32) -> Result<GgufValue, GgufError> {
        Ok(match kind {
            0 => GgufValue::Unsigned(u8::from_le_bytes(self.bytes()?).into()),
            1 => GgufValue::Signed(i8::from_le_bytes(self.bytes()?).into()),
            2 => GgufValue::Unsigned(u16::from_le_bytes(self.bytes()?).into()),
            3 => GgufValue::Signed(i16::from_le_bytes(self.bytes()?).into()),
            4 => GgufValue::Unsigned(self.u32()?.into()),
            5 => GgufValue::Signed(i32::from_le_bytes(self.bytes()?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => GgufValue::Bool(self.bytes::<1>()? != [0]),
            8 => GgufValue::Text(self.text()?),
            10 => GgufValue::Unsigned(self.u64()?),
            11 => GgufValue::Signed(i64::from_le_bytes(self.bytes()?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.bytes()?)),
            kind => return Err(self.damaged(format!("a setting of type {kind}"))),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, GgufError> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > MOST_DIMENSIONS {
            return Err(self.damaged(format!("{name} of {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| self.damaged(format!("{name} of size {size}")))?);
        }
        // The file has the dimension first whose numbers lie side by side.
        shape.reverse();
        let (kind, start) = (self.u32()?, self.u64()?);
        let tensor = TensorInfo { name, shape, kind, storage: Storage::of(kind), start };
        if tensor.storage.is_some() && tensor.bytes().is_none() {
            return Err(self.damaged(format!("{} of shape {:?}", tensor.name, tensor.shape)));
        }
        Ok(tensor)
    }
}

const LIST: u32 = 9;
