//! Values on the command line: sizes, times, ranges.

use bytesize::ByteSize;
use pie_words::{Cursor, LspPosition, PositionEncoding, TextRange};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Bytes, at least one: `4096`, `64KiB`, `512Mi`, `40Gi`, `2G` (a power of two, too), `2GB` (a power of ten).
pub fn bytes(text: &str) -> Result<u64, String> {
    let complete = match text.chars().last() {
        Some('0'..='9') => format!("{text}B"),
        // A lone letter is a power of ten to the library.
        Some('k' | 'K' | 'm' | 'M' | 'g' | 'G' | 't' | 'T') => format!("{text}i"),
        _ => text.to_owned(),
    };
    match complete.parse() {
        Ok(ByteSize(0)) => Err("nothing fits into no bytes: write for example 512MiB".to_owned()),
        Ok(ByteSize(u64::MAX)) => Err(format!("{text} is out of range")),
        Ok(ByteSize(size)) => Ok(size),
        Err(_) => Err(format!("`{text}` is no size: write for example 4096, 64KiB, 512MiB or 40Gi")),
    }
}

/// Times: `250ms`, `4s`, `1.5m`, `1h30m`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no time ({error}): write for example 250ms, 4s, 2m or 1h"))
}

/// A time in which something is to be done.
pub fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("nothing can be done in no time: write for example 250ms, 4s or 2m".to_owned()),
        time => Ok(time),
    }
}

/// How many: at least one.
pub fn some(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("0 leaves nothing: give at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("`{text}` is no number: {error}")),
    }
}

/// An address to listen at: `127.0.0.1:7400`, `[::1]:7400`, `localhost:7400`. Of the addresses of a name the first of IPv4 is
/// taken, where there is one: it is what those who call the same name try first, or next.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let well_formed = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok());
    if !well_formed {
        return Err(format!(
            "`{text}` is no address: write HOST:PORT, for example 127.0.0.1:7400 or [::1]:7400"
        ));
    }
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| format!("`{text}` cannot be resolved: {error}"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| format!("`{text}` has no address"))
}

/// A time after which something ends, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// Times, and `never`; no time at all means the same.
pub fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "never" => Ok(Limit(None)),
        text => duration(text)
            .map(|time| Limit((!time.is_zero()).then_some(time)))
            .map_err(|error| format!("{error}, or `never`")),
    }
}

/// A cursor in a text: a byte offset, or `LINE:COLUMN` as in the Language Server Protocol.
pub fn cursor(text: &str) -> Result<Cursor, String> {
    let cursor = position(text).map(Cursor::Lsp).or_else(|| text.parse().ok().map(Cursor::Byte));
    cursor.ok_or_else(|| format!("`{text}` is no place: write a byte offset, or LINE:COLUMN"))
}

/// A range of text: `START..END` in bytes, or `LINE:COLUMN..LINE:COLUMN` as in the Language Server Protocol.
pub fn text_range(text: &str) -> Result<TextRange, String> {
    let wrong = || format!("`{text}` is no range: write START..END in bytes, or LINE:COLUMN..LINE:COLUMN");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    if let (Some(start), Some(end)) = (position(start), position(end)) {
        return Ok(TextRange::Lsp { start, end });
    }
    match (start.parse(), end.parse()) {
        (Ok(start), Ok(end)) => Ok(TextRange::Bytes { start, end }),
        _ => Err(wrong()),
    }
}

fn position(text: &str) -> Option<LspPosition> {
    let (line, column) = text.split_once(':')?;
    Some(LspPosition {
        line: line.parse().ok()?,
        column: column.parse().ok()?,
        encoding: PositionEncoding::Utf16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_on_the_command_line() {
        let sizes = [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("2GiB", 2 << 30),
            ("40Gi", 40 << 30),
            ("2 G", 2 << 30),
            ("512m", 512 << 20),
            ("1.5", 1),
            ("1TiB", 1 << 40),
            ("2GB", 2_000_000_000),
        ];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        let times = [
            ("250ms", 250),
            ("4s", 4000),
            ("0.5m", 30_000),
            ("1h", 3_600_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("1week", 604_800_000),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, millis) in times {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let lsp = |line, column| LspPosition { line, column, encoding: PositionEncoding::Utf16 };
        assert_eq!(text_range("3..7"), Ok(TextRange::Bytes { start: 3, end: 7 }));
        assert_eq!(text_range("0:4..1:0"), Ok(TextRange::Lsp { start: lsp(0, 4), end: lsp(1, 0) }));
        assert_eq!(cursor("17"), Ok(Cursor::Byte(17)));
        assert_eq!(cursor("3:8"), Ok(Cursor::Lsp(lsp(3, 8))));
        for wrong in ["", "a", "1:", ":2", "-1"] {
            assert!(cursor(wrong).is_err(), "{wrong:?}");
        }
        for (name, address) in
            [("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:2", "[::1]:2"), ("localhost:7520", "127.0.0.1:7520")]
        {
            assert_eq!(
                super::address(name).map(|address| address.to_string()),
                Ok(address.to_owned()),
                "{name}"
            );
        }
        for wrong in ["", "localhost", ":1", "7400", "::1:7", "a:b", "localhost:70000"] {
            assert!(super::address(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["5", "1h30", "1m-", "3parsecs"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(bytes("0").is_err() && some_time("0s").is_err() && some("0").is_err());
        for wrong in ["", "x", "-1", "12 parsecs", "9e99GiB"] {
            assert!(bytes(wrong).is_err() && duration(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "3", "3..", "1:2..3", "..", "a..b"] {
            assert!(text_range(wrong).is_err(), "{wrong:?}");
        }
    }
}
