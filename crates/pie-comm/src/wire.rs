//! What travels between ranks: a header that tells where its sender is (C1), then numbers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) const HEADER: usize = 32;
const MAGIC: [u8; 4] = *b"piec";

/// Which collective a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Join = 1,
    Reduce = 2,
    Gather = 3,
}

/// Where the sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    /// In a join: the rank. Else counts collectives of the epoch.
    pub number: u64,
    pub epoch: u64,
    /// In a join: the world size. Else numbers that follow.
    pub length: u64,
}

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        for (at, number) in [(8, self.number), (16, self.epoch), (24, self.length)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let kind = match bytes[4] {
            1 => Kind::Join,
            2 => Kind::Reduce,
            3 => Kind::Gather,
            _ => return None,
        };
        if bytes[..4] != MAGIC {
            return None;
        }
        Some(Self { kind, number: number(8)?, epoch: number(16)?, length: number(24)? })
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} of {} numbers in epoch {}", self.kind, self.number, self.length, self.epoch)
    }
}

/// Sockets wake this often, to look at the deadline.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Reads to the last byte or to the deadline ([`io::ErrorKind::TimedOut`]). The stream has a read timeout of [`TICK`].
pub(crate) fn read_until(mut stream: &TcpStream, mut buffer: &mut [u8], end: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        match stream.read(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) => go_on(error, end)?,
        }
    }
    Ok(())
}

/// Writes to the last byte or to the deadline.
pub(crate) fn write_until(mut stream: &TcpStream, mut buffer: &[u8], end: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        match stream.write(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(written) => buffer = &buffer[written..],
            Err(error) => go_on(error, end)?,
        }
    }
    Ok(())
}

fn go_on(error: io::Error, end: Instant) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if Instant::now() < end => Ok(()),
        io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(error),
    }
}
