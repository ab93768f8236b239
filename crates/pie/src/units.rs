//! Values on the command line: sizes, times, ranges.

use pie_proto::v1;
use std::str::FromStr;
use std::time::Duration;

/// Bytes: `4096`, `64KiB`, `512MiB`, `2GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1_u64 << 30,
        _ => return Err(format!("`{unit}` is no unit of memory: use B, KiB, MiB or GiB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size: write for example 512MiB"))?;
    let size = number * factor as f64;
    if size.is_finite() && size >= 0.0 && size < u64::MAX as f64 {
        Ok(size as u64)
    } else {
        Err(format!("{text} is out of range"))
    }
}

/// Times: `250ms`, `4s`, `2m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{text}` is no time: write for example 250ms, 4s or 2m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time: write for example 4s"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| format!("{text}: {error}"))
}

fn split(text: &str) -> (&str, &str) {
    let end =
        text.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// A range of text: `START..END` in bytes, or `LINE:COLUMN..LINE:COLUMN` as in the Language Server Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditRange {
    /// UTF-8 bytes.
    Bytes(u64, u64),
    /// (line, UTF-16 column).
    Lsp((u32, u32), (u32, u32)),
}

/// A place in a text: a byte offset, or `LINE:COLUMN` as in the Language Server Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// UTF-8 bytes.
    Byte(u64),
    /// (line, UTF-16 column).
    Lsp((u32, u32)),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no place: write a byte offset, or LINE:COLUMN");
        match text.split_once(':') {
            Some((line, column)) => {
                Ok(Self::Lsp((line.parse().map_err(|_| wrong())?, column.parse().map_err(|_| wrong())?)))
            }
            None => text.parse().map(Self::Byte).map_err(|_| wrong()),
        }
    }
}

impl From<Place> for v1::complete_request::At {
    fn from(place: Place) -> Self {
        match place {
            Place::Byte(at) => Self::AtByte(at),
            Place::Lsp((line, utf16_column)) => Self::AtLsp(v1::LspPosition { line, utf16_column }),
        }
    }
}

impl FromStr for EditRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no range: write START..END in bytes, or LINE:COLUMN..LINE:COLUMN");
        let (start, end) = text.split_once("..").ok_or_else(wrong)?;
        let position = |text: &str| -> Option<(u32, u32)> {
            let (line, column) = text.split_once(':')?;
            Some((line.parse().ok()?, column.parse().ok()?))
        };
        if let (Some(start), Some(end)) = (position(start), position(end)) {
            return Ok(Self::Lsp(start, end));
        }
        match (start.parse(), end.parse()) {
            (Ok(start), Ok(end)) => Ok(Self::Bytes(start, end)),
            _ => Err(wrong()),
        }
    }
}

impl From<EditRange> for v1::text_edit::Range {
    fn from(range: EditRange) -> Self {
        let position = |(line, utf16_column): (u32, u32)| Some(v1::LspPosition { line, utf16_column });
        match range {
            EditRange::Bytes(start, end) => Self::Bytes(v1::ByteRange { start, end }),
            EditRange::Lsp(start, end) => {
                Self::Lsp(v1::LspRange { start: position(start), end: position(end) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_on_the_command_line() {
        let sizes = [("4096", 4096), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("2GiB", 2 << 30), ("0", 0)];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for (text, millis) in [("250ms", 250), ("4s", 4000), ("0.5m", 30_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let ranges = [("3..7", EditRange::Bytes(3, 7)), ("0:4..1:0", EditRange::Lsp((0, 4), (1, 0)))];
        for (text, range) in ranges {
            assert_eq!(text.parse(), Ok(range), "{text}");
        }
        assert_eq!("17".parse(), Ok(Place::Byte(17)));
        assert_eq!("3:8".parse(), Ok(Place::Lsp((3, 8))));
        for wrong in ["", "a", "1:", ":2", "-1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "x", "-1", "12 parsecs", "9e99GiB"] {
            assert!(bytes(wrong).is_err() && duration(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "3", "3..", "1:2..3", "..", "a..b"] {
            assert!(wrong.parse::<EditRange>().is_err(), "{wrong:?}");
        }
    }
}
