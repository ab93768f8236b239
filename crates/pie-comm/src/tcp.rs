//! Groups of processes over TCP. Rank 0 is the root: the others send it their numbers, it adds them up in rank order
//! and sends the sum back. With more ranks than cores that costs the fewest wake-ups, and no schedule can deadlock: the
//! root reads before it writes, the others write before they read.

use crate::error::CommError;
use crate::host::HostCollective;
use crate::member::{Member, Rank};
use crate::wire::{HEADER, Header, Kind, TICK, read_until, write_until};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Between two attempts to join.
const JOIN_PAUSE: Duration = Duration::from_millis(20);
/// A stranger that connects and says nothing is waited for this long.
const HELLO: Duration = Duration::from_millis(500);

/// Deadlines of a group.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// C2: of each collective, as the root counts it; the others wait half as long again, so that it is the root, who
    /// knows, that names the rank that hangs.
    pub deadline: Duration,
    /// Of the forming.
    pub form_deadline: Duration,
}

/// A listener for the peers of one epoch after the other.
pub struct TcpListening {
    listener: TcpListener,
    address: SocketAddr,
}

impl TcpListening {
    /// Listens; port 0 takes a free one.
    ///
    /// # Errors
    /// [`CommError::Listen`].
    pub fn bind(address: SocketAddr) -> Result<Self, CommError> {
        let refused = |error: io::Error| CommError::Listen { address: address.to_string(), why: error.to_string() };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where peers connect.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Forms the group of an epoch; `peers` are all ranks' addresses in rank order.
    ///
    /// # Errors
    /// [`CommError::NotFormed`] says who was missing.
    pub fn form(&self, member: Member, peers: &[String], epoch: u64, options: Options) -> Result<TcpGroup, CommError> {
        let end = Instant::now() + options.form_deadline;
        let failed = |why: String| CommError::NotFormed { deadline: options.form_deadline, why };
        let streams = if member.rank() == Rank(0) {
            self.gather_peers(member, epoch, end).map_err(failed)?
        } else {
            let root = peers.first().ok_or_else(|| failed("the list of peers is empty".to_owned()))?;
            vec![join(root, member, epoch, end).map_err(failed)?]
        };
        Ok(TcpGroup { member, epoch, streams, options, number: 0, buffer: Vec::new(), failed: None })
    }

    /// The root waits for all others, and lets them go when all are there.
    fn gather_peers(&self, member: Member, epoch: u64, end: Instant) -> Result<Vec<TcpStream>, String> {
        let others = member.world_size().get() as usize - 1;
        let mut streams: Vec<Option<TcpStream>> = (0..others).map(|_| None).collect();
        while let Some(missing) = streams.iter().position(Option::is_none) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Ok(Some((rank, stream))) = welcome(stream, member, epoch) {
                        streams[rank as usize - 1] = Some(stream);
                    }
                }
                Err(_) if Instant::now() >= end => return Err(format!("rank {} did not join", missing + 1)),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let streams: Vec<TcpStream> = streams.into_iter().flatten().collect();
        let go = Header { kind: Kind::Join, number: 0, epoch, length: u64::from(member.world_size().get()) };
        for (stream, rank) in streams.iter().zip(1..) {
            write_until(stream, &go.to_bytes(), end).map_err(|error| format!("rank {rank}: {error}"))?;
        }
        Ok(streams)
    }
}

/// Reads who connects. Strangers and ranks of another epoch are sent away; that harms nobody else.
fn welcome(stream: TcpStream, member: Member, epoch: u64) -> io::Result<Option<(u32, TcpStream)>> {
    prepare(&stream)?;
    let mut bytes = [0; HEADER];
    read_until(&stream, &mut bytes, Instant::now() + HELLO)?;
    let world_size = member.world_size().get();
    let right = Header::from_bytes(&bytes).filter(|header| {
        header.kind == Kind::Join && header.epoch == epoch && header.length == u64::from(world_size)
    });
    let rank = right.and_then(|header| u32::try_from(header.number).ok()).filter(|rank| (1..world_size).contains(rank));
    Ok(rank.map(|rank| (rank, stream)))
}

/// Joins the root; it may still be busy with the epoch before, so this is tried until the deadline.
fn join(root: &str, member: Member, epoch: u64, end: Instant) -> Result<TcpStream, String> {
    let number = u64::from(member.rank().0);
    let hello = Header { kind: Kind::Join, number, epoch, length: u64::from(member.world_size().get()) };
    loop {
        match join_once(root, hello, end) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() + JOIN_PAUSE >= end => return Err(format!("rank 0 at {root}: {error}")),
            Err(_) => std::thread::sleep(JOIN_PAUSE),
        }
    }
}

fn join_once(root: &str, hello: Header, end: Instant) -> io::Result<TcpStream> {
    let address = root.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let left = end.saturating_duration_since(Instant::now()).max(TICK);
    let stream = TcpStream::connect_timeout(&address, left)?;
    prepare(&stream)?;
    write_until(&stream, &hello.to_bytes(), end)?;
    let mut bytes = [0; HEADER];
    read_until(&stream, &mut bytes, end)?;
    match Header::from_bytes(&bytes) {
        Some(go) if go.epoch == hello.epoch && go.kind == Kind::Join => Ok(stream),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what answers there is no rank 0 of this epoch")),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))
}

/// A formed group. Dropping it closes the connections, which its peers see at once.
pub struct TcpGroup {
    member: Member,
    epoch: u64,
    /// The root's: to ranks 1.. in order. The others': to the root.
    streams: Vec<TcpStream>,
    options: Options,
    number: u64,
    /// Kept between calls: no allocation once it has grown.
    buffer: Vec<u8>,
    failed: Option<CommError>,
}

impl TcpGroup {
    fn begin(&mut self, kind: Kind, length: usize) -> Result<(Header, Instant), CommError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.number += 1;
        let header = Header { kind, number: self.number, epoch: self.epoch, length: length as u64 };
        Ok((header, Instant::now() + self.patience()))
    }

    fn patience(&self) -> Duration {
        if self.is_root() { self.options.deadline } else { self.options.deadline * 3 / 2 }
    }

    fn is_root(&self) -> bool {
        self.member.rank() == Rank(0)
    }

    /// After an error the group is dead; closing tells the others.
    fn end<T>(&mut self, result: Result<T, CommError>) -> Result<T, CommError> {
        if let Err(error) = &result {
            self.failed.get_or_insert(error.clone());
            for stream in &self.streams {
                // Closed already is as good.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        result
    }

    /// Sends numbers in one write with their header.
    fn send(&mut self, to: usize, header: Header, numbers: &[f32], end: Instant) -> Result<(), CommError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.to_bytes());
        numbers.iter().for_each(|number| self.buffer.extend_from_slice(&number.to_le_bytes()));
        write_until(&self.streams[to], &self.buffer, end).map_err(|error| self.blame(to, header, &error))
    }

    /// Receives the numbers that belong to `expected`.
    fn receive(
        &mut self,
        from: usize,
        expected: Header,
        end: Instant,
        take: impl FnOnce(&[[u8; 4]]),
    ) -> Result<(), CommError> {
        self.buffer.resize(HEADER + expected.length as usize * 4, 0);
        let stream = &self.streams[from];
        // The header first: a peer that is out of step sends another length.
        let (head, body) = self.buffer.split_at_mut(HEADER);
        let read = read_until(stream, head, end);
        let header = read.map(|()| head.as_chunks::<HEADER>().0.first().and_then(Header::from_bytes));
        match header {
            Ok(Some(header)) if header == expected => {}
            Ok(theirs) => {
                let theirs = theirs.map_or_else(|| "nothing of this protocol".to_owned(), |theirs| theirs.to_string());
                let ours = expected.to_string();
                return Err(CommError::OutOfStep { rank: self.peer(from), theirs, ours });
            }
            Err(error) => return Err(self.blame(from, expected, &error)),
        }
        if let Err(error) = read_until(stream, body, end) {
            return Err(self.blame(from, expected, &error));
        }
        take(body.as_chunks::<4>().0);
        Ok(())
    }

    fn peer(&self, stream: usize) -> Rank {
        if self.is_root() { Rank(u32::try_from(stream + 1).unwrap_or(u32::MAX)) } else { Rank(0) }
    }

    fn blame(&self, stream: usize, header: Header, error: &io::Error) -> CommError {
        let (rank, operation) = (self.peer(stream), header.to_string());
        match error.kind() {
            io::ErrorKind::TimedOut => CommError::Deadline { rank, operation, deadline: self.patience() },
            _ => CommError::PeerLost { rank, operation, why: error.to_string() },
        }
    }

    fn reduce(&mut self, data: &mut [f32], header: Header, end: Instant) -> Result<(), CommError> {
        if self.is_root() {
            for from in 0..self.streams.len() {
                self.receive(from, header, end, |numbers| {
                    data.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += f32::from_le_bytes(*number));
                })?;
            }
            (0..self.streams.len()).try_for_each(|to| self.send(to, header, data, end))
        } else {
            self.send(0, header, data, end)?;
            self.receive(0, header, end, |numbers| copy(numbers, data))
        }
    }

    fn gather(&mut self, part: &[f32], whole: &mut [f32], header: Header, end: Instant) -> Result<(), CommError> {
        let answer = Header { length: whole.len() as u64, ..header };
        if self.is_root() {
            whole[..part.len()].copy_from_slice(part);
            for from in 0..self.streams.len() {
                let place = &mut whole[(from + 1) * part.len()..][..part.len()];
                self.receive(from, header, end, |numbers| copy(numbers, place))?;
            }
            (0..self.streams.len()).try_for_each(|to| self.send(to, answer, whole, end))
        } else {
            self.send(0, header, part, end)?;
            self.receive(0, answer, end, |numbers| copy(numbers, whole))
        }
    }
}

fn copy(numbers: &[[u8; 4]], to: &mut [f32]) {
    to.iter_mut().zip(numbers).for_each(|(to, number)| *to = f32::from_le_bytes(*number));
}

impl HostCollective for TcpGroup {
    fn member(&self) -> Member {
        self.member
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        let (header, end) = self.begin(Kind::Reduce, data.len())?;
        let result = self.reduce(data, header, end);
        self.end(result)
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        let (header, end) = self.begin(Kind::Gather, part.len())?;
        let result = self.gather(part, whole, header, end);
        self.end(result)
    }
}
