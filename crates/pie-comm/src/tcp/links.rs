//! The connections of one rank to all others, and the loop that moves messages over them.
//!
//! Nothing here blocks on one peer: sockets never wait, and one `poll` waits for all. So ranks that all send large
//! messages at once read while they write, and cannot lock each other up.

use super::wire::{CallPhase, HEADER, NOTICE, Notice, header, header_call};
use crate::member::RankSet;
use crate::{CollectiveCall, Rank, WorldSize};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::time::Instant;

/// A connection to one peer.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer at the other end.
    pub rank: Rank,
    /// What is known of it.
    pub standing: PeerStanding,
    data: TcpStream,
    control: TcpStream,
    notice: [u8; NOTICE],
    noticed: usize,
    outgoing: OutgoingMessage,
    incoming: OutgoingMessage,
}

/// What the control connection says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerStanding {
    Present,
    Ended(Notice),
    Died,
}

/// A message on its way: the header, then a range of the buffer of the exchange.
#[derive(Debug, Default)]
struct OutgoingMessage {
    header: [u8; HEADER],
    range: Range<usize>,
    done: usize,
    total: usize,
}

impl OutgoingMessage {
    fn begin(&mut self, header: [u8; HEADER], range: Option<Range<usize>>) {
        let total = range.as_ref().map_or(0, |range| HEADER + range.len());
        *self = Self { header, range: range.unwrap_or_default(), done: 0, total };
    }

    fn pending(&self) -> bool {
        self.done < self.total
    }

    /// What is left of header and payload.
    fn rest(&self) -> (Range<usize>, Range<usize>) {
        let of_payload = self.done.saturating_sub(HEADER);
        (self.done.min(HEADER)..HEADER, self.range.start + of_payload..self.range.end)
    }
}

/// Why a message stopped.
#[derive(Debug)]
pub(super) enum ExchangeFailure {
    /// This rank's connection ended.
    Closed(Rank),
    /// The peer is in another call.
    OutOfStep(Rank, CollectiveCall),
    /// Time is up, or a control connection has news.
    Interrupted(Interruption),
    /// The system refuses to wait.
    System(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    Time,
    News,
}

impl Link {
    /// A link over the two connections of a pair of ranks.
    pub fn new(rank: Rank, data: TcpStream, control: TcpStream) -> Self {
        let (outgoing, incoming) = (OutgoingMessage::default(), OutgoingMessage::default());
        let standing = PeerStanding::Present;
        Self { rank, standing, data, control, notice: [0; NOTICE], noticed: 0, outgoing, incoming }
    }

    fn write(&mut self, buffer: &[u8]) -> Result<(), ExchangeFailure> {
        while self.outgoing.pending() {
            let (head, body) = self.outgoing.rest();
            let slices = [IoSlice::new(&self.outgoing.header[head]), IoSlice::new(&buffer[body])];
            match (&self.data).write_vectored(&slices) {
                Ok(written) if written > 0 => self.outgoing.done += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Err(ExchangeFailure::Closed(self.rank)),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ExchangeFailure> {
        let expected = self.incoming.header;
        while self.incoming.pending() {
            let (head, body) = self.incoming.rest();
            let starting = !head.is_empty();
            let mut received = expected;
            let mut slices =
                [IoSliceMut::new(&mut received[head.clone()]), IoSliceMut::new(&mut buffer[body])];
            match (&self.data).read_vectored(&mut slices) {
                Ok(read) if read > 0 => self.incoming.done += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                _ => return Err(ExchangeFailure::Closed(self.rank)),
            }
            // Bytes that are still to come count as expected: a header in pieces is judged piece by piece.
            if starting && received != expected {
                return Err(ExchangeFailure::OutOfStep(self.rank, header_call(received)));
            }
        }
        Ok(())
    }

    /// Reads what the control connection has.
    pub fn read_control(&mut self) {
        while self.standing == PeerStanding::Present {
            match (&self.control).read(&mut self.notice[self.noticed..]) {
                Ok(read) if read > 0 => self.noticed += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => self.standing = PeerStanding::Died,
            }
            if self.noticed == NOTICE {
                self.standing = Notice::decode(self.notice).map_or(PeerStanding::Died, PeerStanding::Ended);
            }
        }
    }

    /// Tells the peer why the group ends. A control connection carries nothing else, so it has room; if the peer is
    /// gone, there is nobody to tell.
    pub fn tell(&self, notice: Notice) {
        if let Err(error) = (&self.control).write_all(&notice.encode()) {
            tracing::debug!(rank = self.rank.0, %error, "a peer could not be told that the group is over");
        }
    }

    /// Ends both connections. What was sent still arrives.
    pub fn shut(&self) {
        for (stream, how) in [(&self.data, Shutdown::Both), (&self.control, Shutdown::Write)] {
            if let Err(error) = stream.shutdown(how) {
                tracing::debug!(rank = self.rank.0, %error, "a connection had already ended");
            }
        }
    }
}

/// What an exchange does: ranges of `send` go to ranks, ranges of `receive` come from ranks. Buffers are bytes of f32.
pub(super) struct Exchange<'a> {
    /// The collective that it is a part of.
    pub call: CollectiveCall,
    /// Which part.
    pub phase: CallPhase,
    /// What others may get a range of.
    pub send: &'a [f32],
    /// The range that a rank gets, in f32; none for a rank that gets nothing.
    pub send_to: &'a dyn Fn(Rank) -> Option<Range<usize>>,
    /// Where the others' parts go.
    pub receive: &'a mut [f32],
    /// The range that a rank's part goes to, in f32; none for a rank that sends nothing.
    pub receive_from: &'a dyn Fn(Rank) -> Option<Range<usize>>,
}

/// All connections of a rank, in rank order.
#[derive(Debug)]
pub(super) struct Links {
    /// This rank.
    pub own: Rank,
    /// Its links to all other ranks, ascending.
    pub list: Vec<Link>,
    epoch: u64,
    told: bool,
}

/// Tries before sleeping; each lets others run, so it costs them nothing. With 8 processes on two cores a small
/// all-reduce takes up to a third less than with none.
const YIELDS: usize = 20;

impl Links {
    /// Links to all others of a group, in rank order.
    pub fn new(own: Rank, list: Vec<Link>, epoch: u64) -> Self {
        Self { own, list, epoch, told: false }
    }

    /// Tells all why the group ends, once.
    pub fn tell_all(&mut self, notice: Notice) {
        if !std::mem::replace(&mut self.told, true) {
            self.list.iter().for_each(|link| link.tell(notice));
        }
    }

    /// Reads what the control connections have.
    pub fn read_controls(&mut self) {
        self.list.iter_mut().for_each(Link::read_control);
    }

    /// Sets an exchange up. No allocation.
    pub fn begin(&mut self, exchange: &Exchange<'_>) {
        let header = header(self.epoch, exchange.call, exchange.phase);
        let bytes = |range: Range<usize>| range.start * size_of::<f32>()..range.end * size_of::<f32>();
        for link in &mut self.list {
            link.outgoing.begin(header, (exchange.send_to)(link.rank).map(bytes));
            link.incoming.begin(header, (exchange.receive_from)(link.rank).map(bytes));
        }
    }

    /// Moves what can be moved, and waits, until all is done or something happens.
    pub fn drive(&mut self, exchange: &mut Exchange<'_>, until: Instant) -> Result<(), ExchangeFailure> {
        let send: &[u8] = bytemuck::cast_slice(exchange.send);
        let receive: &mut [u8] = bytemuck::cast_slice_mut(exchange.receive);
        let mut ready = u64::MAX;
        let mut tries = 0;
        loop {
            for (index, link) in self.list.iter_mut().enumerate() {
                if ready & (1 << index) != 0 {
                    link.write(send)?;
                    link.read(receive)?;
                }
            }
            if self.waiting_for().is_empty() {
                return Ok(());
            }
            if tries < YIELDS {
                tries += 1;
                std::thread::yield_now();
                continue;
            }
            let news;
            (ready, news) = self.wait(until).map_err(ExchangeFailure::System)?;
            if ready == 0 {
                return Err(ExchangeFailure::Interrupted(if news {
                    Interruption::News
                } else {
                    Interruption::Time
                }));
            }
        }
    }

    /// The ranks with messages under way.
    pub fn waiting_for(&self) -> RankSet {
        let pending = self.list.iter().filter(|link| link.outgoing.pending() || link.incoming.pending());
        pending.map(|link| link.rank).collect()
    }

    /// Waits for data connections that an exchange needs, and for news on control connections: a bit for each link
    /// whose data connection is ready, and whether there is news. Neither: time is up.
    fn wait(&self, until: Instant) -> io::Result<(u64, bool)> {
        const NOBODY: (Option<usize>, PollFlags) = (None, PollFlags::empty());
        let mut wanted = [NOBODY; WorldSize::MAX as usize];
        let mut count = 0;
        for (index, link) in self.list.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if link.incoming.pending() {
                flags |= PollFlags::IN;
            }
            if link.outgoing.pending() {
                flags |= PollFlags::OUT;
            }
            if !flags.is_empty() {
                wanted[count] = (Some(index), flags);
                count += 1;
            }
        }
        let data =
            wanted[..count].iter().filter_map(|(index, flags)| Some((&self.list[(*index)?].data, *flags)));
        let control = self.list.iter().filter(|link| link.standing == PeerStanding::Present);
        let mut fds = data.chain(control.map(|link| (&link.control, PollFlags::IN)));
        // A fixed array, so that waiting does not allocate; those beyond the end stand in for nobody.
        let mut total = 0;
        let spare = &self.list[0].control;
        let mut polled: [PollFd<'_>; 2 * WorldSize::MAX as usize] =
            std::array::from_fn(|_| match fds.next() {
                Some((stream, flags)) => {
                    total += 1;
                    PollFd::new(stream, flags)
                }
                None => PollFd::new(spare, PollFlags::empty()),
            });
        let polled = &mut polled[..total];
        wait_until(polled, until)?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = polled[..count].iter().zip(&wanted).filter(|(fd, _)| is_ready(fd));
        let ready = ready.filter_map(|(_, (index, _))| *index).fold(0, |bits, index| bits | 1 << index);
        Ok((ready, polled[count..].iter().any(is_ready)))
    }

    /// Waits for news on control connections. False: time is up, or there is nobody to hear from.
    pub fn hear(&self, until: Instant) -> io::Result<bool> {
        let present = || self.list.iter().filter(|link| link.standing == PeerStanding::Present);
        let mut fds: Vec<_> = present().map(|link| PollFd::new(&link.control, PollFlags::IN)).collect();
        if fds.is_empty() {
            return Ok(false);
        }
        wait_until(&mut fds, until)?;
        let news = fds.iter().any(|fd| !fd.revents().is_empty());
        Ok(news)
    }
}

fn wait_until(fds: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().min(1 << 30) as _, tv_nsec: left.subsec_nanos().into() };
        match poll(fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}
