//! Values on the command line: sizes, times, ranges.

use pie_words::{Cursor, LspPosition, PositionEncoding, TextRange};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Bytes, at least one: `4096`, `64KiB`, `512Mi`, `2G` (a power of two, too), `2GB` (a power of ten).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" | "Ki" | "K" | "k" => 1 << 10,
        "MiB" | "Mi" | "M" => 1 << 20,
        "GiB" | "Gi" | "G" => 1_u64 << 30,
        "TiB" | "Ti" | "T" => 1_u64 << 40,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("`{unit}` is no unit of memory: use B, KiB, MiB, GiB or TiB, as in 512MiB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size: write for example 512MiB"))?;
    let size = number * factor as f64;
    if !size.is_finite() || size >= u64::MAX as f64 {
        return Err(format!("{text} is out of range"));
    }
    if size < 1.0 {
        Err("nothing fits into no bytes: write for example 512MiB".to_owned())
    } else {
        Ok(size as u64)
    }
}

/// Times: `250ms`, `4s`, `1.5m`, `1h30m`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let example = "write for example 250ms, 4s, 2m or 1h";
    let (mut left, mut sum) = (text.trim(), Duration::ZERO);
    if left == "0" {
        return Ok(Duration::ZERO);
    }
    while !left.is_empty() {
        let (number, rest) = split(left);
        let end = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(format!("`{text}` has no unit: {example}")),
            _ => return Err(format!("`{text}` is no time: {example}")),
        };
        let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time: {example}"))?;
        let part =
            Duration::try_from_secs_f64(number * factor).map_err(|error| format!("{text}: {error}"))?;
        sum = sum.checked_add(part).ok_or_else(|| format!("{text} is out of range"))?;
        left = rest[end..].trim_start();
    }
    if text.trim().is_empty() { Err(format!("`{text}` is no time: {example}")) } else { Ok(sum) }
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

fn split(text: &str) -> (&str, &str) {
    let end =
        text.find(|character: char| !(character.is_ascii_digit() || character == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
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
