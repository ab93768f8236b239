//! How ranks find each other: every pair has two connections, made by the higher rank to the lower one's listener.

use super::Deadlines;
use super::group::TcpGroup;
use super::links::{Link, Links};
use super::wire::{Channel, HELLO, Hello, HelloReply, REPLY, Stranger};
use crate::{CollectiveCall, CommError, Loss, Member, Operation, Rank, Refusal};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Where a rank begins.
#[derive(Clone, Copy, Debug)]
pub struct TcpMesh;

impl TcpMesh {
    /// Listens for peers; port 0 takes a free one. The listener serves one epoch after the other.
    ///
    /// # Errors
    /// [`CommError::System`].
    pub fn bind(address: impl ToSocketAddrs) -> Result<TcpListening, CommError> {
        let refuse = |error: std::io::Error| CommError::System {
            action: "cannot listen for the ranks of the group".to_owned(),
            problem: error.to_string(),
        };
        let listener = TcpListener::bind(address).map_err(refuse)?;
        listener.set_nonblocking(true).map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        Ok(TcpListening { listener, address })
    }
}

/// A rank that its peers can reach.
#[derive(Debug)]
pub struct TcpListening {
    listener: TcpListener,
    address: SocketAddr,
}

/// Between attempts to reach a peer that is not there yet, or is busy with an older epoch.
const RETRY: Duration = Duration::from_millis(20);
/// For one attempt: a peer that does not answer at all must not keep this rank from answering others.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Forming is rare: looking around from time to time is enough, and simpler than waiting for all that may happen.
const PAUSE: Duration = Duration::from_millis(1);
/// Strangers that say nothing; the oldest makes room.
const WAITING_ROOM: usize = 256;

impl TcpListening {
    /// Where the listener is, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Forms the group of an epoch with all `peers` (addresses in rank order; this rank's own is not used). Epochs must
    /// grow: a rank of an older one, or a stranger, is refused without harm to this group. Returns when all ranks are
    /// connected to all.
    ///
    /// # Errors
    /// [`CommError::Peers`]; [`CommError::Refused`] when a newer epoch is met, or ranks are mixed up;
    /// [`CommError::Deadline`] naming the ranks that did not come; [`CommError::PeerLost`] when one gives up.
    pub fn form<A: ToSocketAddrs>(
        &self,
        member: Member,
        peers: &[A],
        epoch: u64,
        options: Deadlines,
    ) -> Result<TcpGroup, CommError> {
        if peers.len() != member.world_size().get() as usize {
            return Err(CommError::Peers { peers: peers.len(), world_size: member.world_size() });
        }
        let until = Instant::now() + options.form_deadline;
        let mut forming = MeshHandshake::new(member, epoch);
        while !forming.is_complete() {
            forming.connect(peers, until)?;
            forming.accept(&self.listener)?;
            forming.check_established()?;
            if Instant::now() >= until {
                return Err(CommError::Deadline {
                    call: FORM,
                    deadline: options.form_deadline,
                    waiting_for: forming.missing(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        TcpGroup::new(member, options, forming.into_links()?).all_formed(until)
    }
}

const FORM: CollectiveCall = CollectiveCall { operation: Operation::Form, sequence: 0, elements: 0 };

/// Both connections to a peer, as far as they are made.
#[derive(Debug, Default)]
struct PeerLinks {
    data: Option<TcpStream>,
    control: Option<TcpStream>,
}

impl PeerLinks {
    fn place(&mut self, channel: Channel) -> &mut Option<TcpStream> {
        match channel {
            Channel::Data => &mut self.data,
            Channel::Control => &mut self.control,
        }
    }

    fn is_complete(&self) -> bool {
        self.data.is_some() && self.control.is_some()
    }
}

/// A connection to a lower rank, to be made or to be answered.
#[derive(Debug)]
struct Approach {
    to: Rank,
    channel: Channel,
    due: Instant,
    waiting: Option<PartialMessage<REPLY>>,
}

/// A connection on which a message of fixed size is coming in.
#[derive(Debug)]
struct PartialMessage<const N: usize> {
    stream: TcpStream,
    bytes: [u8; N],
    read: usize,
}

enum Received<const N: usize> {
    Nothing,
    All([u8; N]),
    Ended,
}

impl<const N: usize> PartialMessage<N> {
    fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: [0; N], read: 0 })
    }

    fn receive(&mut self) -> Received<N> {
        while self.read < N {
            match (&self.stream).read(&mut self.bytes[self.read..]) {
                Ok(read) if read > 0 => self.read += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Received::Ended,
            }
        }
        Received::All(self.bytes)
    }
}

struct MeshHandshake {
    member: Member,
    epoch: u64,
    pairs: Vec<PeerLinks>,
    approaches: Vec<Approach>,
    visitors: Vec<PartialMessage<HELLO>>,
}

impl MeshHandshake {
    fn new(member: Member, epoch: u64) -> Self {
        let now = Instant::now();
        let lower = (0..member.rank().0).map(Rank);
        let both = |to| {
            [Channel::Data, Channel::Control].map(|channel| Approach { to, channel, due: now, waiting: None })
        };
        let pairs = member.world_size().ranks().map(|_| PeerLinks::default()).collect();
        Self { member, epoch, pairs, approaches: lower.flat_map(both).collect(), visitors: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    fn missing(&self) -> Vec<Rank> {
        let peers = (0..).map(Rank).zip(&self.pairs).filter(|(rank, _)| *rank != self.member.rank());
        peers.filter(|(_, pair)| !pair.is_complete()).map(|(rank, _)| rank).collect()
    }

    fn into_links(self) -> Result<Links, CommError> {
        let own = self.member.rank();
        let pairs = (0..).map(Rank).zip(self.pairs);
        let link = |(rank, pair): (Rank, PeerLinks)| Some(Link::new(rank, pair.data?, pair.control?));
        Ok(Links::new(own, pairs.filter_map(link).collect(), self.epoch))
    }

    fn hello(&self, to: Rank, channel: Channel) -> Hello {
        let world_size = self.member.world_size().get();
        Hello { channel, epoch: self.epoch, from: self.member.rank().0, to: to.0, world_size }
    }

    /// Makes connections to lower ranks, and takes their answers.
    fn connect<A: ToSocketAddrs>(&mut self, peers: &[A], until: Instant) -> Result<(), CommError> {
        for mut approach in std::mem::take(&mut self.approaches) {
            let now = Instant::now();
            let answer = match &mut approach.waiting {
                None if approach.due > now => Received::Nothing,
                None => {
                    let hello = self.hello(approach.to, approach.channel);
                    let patience = until.saturating_duration_since(now).clamp(PAUSE, ATTEMPT);
                    approach.waiting = call_on(&peers[approach.to.index()], hello, patience);
                    if approach.waiting.is_some() { Received::Nothing } else { Received::Ended }
                }
                Some(waiting) => waiting.receive(),
            };
            match answer {
                Received::Nothing => {}
                Received::Ended => approach.again(),
                Received::All(bytes) => match self.answered(&approach, HelloReply::decode(bytes))? {
                    HelloAnswer::Welcome => {
                        let stream = approach.waiting.take().map(|waiting| waiting.stream);
                        *self.pairs[approach.to.index()].place(approach.channel) = stream;
                        continue;
                    }
                    HelloAnswer::Again => approach.again(),
                },
            }
            self.approaches.push(approach);
        }
        Ok(())
    }

    fn answered(&self, approach: &Approach, reply: Option<HelloReply>) -> Result<HelloAnswer, CommError> {
        let refused = |refusal| Err(CommError::Refused { by: approach.to, refusal });
        match reply {
            Some(HelloReply::Welcome) => Ok(HelloAnswer::Welcome),
            // Not a rank at all, yet: its port may have been another program's.
            Some(HelloReply::Later) | None => Ok(HelloAnswer::Again),
            Some(HelloReply::Epoch(current)) => refused(Refusal::Epoch { asked: self.epoch, current }),
            Some(HelloReply::Misplaced) => refused(Refusal::Misplaced),
            Some(HelloReply::Taken) => refused(Refusal::Taken),
            Some(HelloReply::Version) => refused(Refusal::Version),
        }
    }

    /// Lets higher ranks in.
    fn accept(&mut self, listener: &TcpListener) -> Result<(), CommError> {
        loop {
            match listener.accept().and_then(|(stream, _)| PartialMessage::new(stream)) {
                Ok(visitor) => self.visitors.push(visitor),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    // A connection that ended before it was accepted, or no descriptors left: others may still come.
                    tracing::debug!(%error, "a connection could not be accepted");
                    break;
                }
            }
        }
        let crowd = self.visitors.len().saturating_sub(WAITING_ROOM);
        self.visitors.drain(..crowd);
        for mut visitor in std::mem::take(&mut self.visitors) {
            match visitor.receive() {
                Received::Nothing => self.visitors.push(visitor),
                Received::Ended => {}
                Received::All(bytes) => self.greet(visitor.stream, Hello::decode(bytes))?,
            }
        }
        Ok(())
    }

    fn greet(&mut self, stream: TcpStream, hello: Result<Hello, Stranger>) -> Result<(), CommError> {
        let reply = match &hello {
            Ok(hello) => self.reply_to(hello),
            Err(Stranger::Version) => HelloReply::Version,
            Err(Stranger::Unknown) => {
                tracing::warn!(peer = ?stream.peer_addr().ok(), "a stranger connected to the ranks' port");
                return Ok(());
            }
        };
        tracing::debug!(?hello, ?reply, "a rank connected");
        if (&stream).write_all(&reply.encode()).is_err() {
            return Ok(()); // Gone again; it comes back if it still wants to.
        }
        match (hello, reply) {
            (Ok(Hello { from, channel, .. }), HelloReply::Welcome) => {
                *self.pairs[from as usize].place(channel) = Some(stream);
                Ok(())
            }
            (Ok(Hello { from, epoch, .. }), HelloReply::Later) => {
                // Only the owner of the group makes epochs: this one is over.
                let refusal = Refusal::Epoch { asked: self.epoch, current: epoch };
                Err(CommError::Refused { by: Rank(from), refusal })
            }
            _ => Ok(()),
        }
    }

    fn reply_to(&mut self, hello: &Hello) -> HelloReply {
        let expected = self.hello(self.member.rank(), hello.channel);
        if hello.epoch < self.epoch {
            HelloReply::Epoch(self.epoch)
        } else if hello.to != expected.to
            || hello.world_size != expected.world_size
            || hello.from <= expected.from
            || hello.from >= expected.world_size
        {
            HelloReply::Misplaced
        } else if hello.epoch > self.epoch {
            HelloReply::Later
        } else if self.pairs[hello.from as usize].place(hello.channel).is_some() {
            HelloReply::Taken
        } else {
            HelloReply::Welcome
        }
    }

    /// A rank that was here and gave up ends this epoch at once, without waiting for the deadline.
    fn check_established(&self) -> Result<(), CommError> {
        for (rank, pair) in (0..).map(Rank).zip(&self.pairs) {
            let Some(control) = &pair.control else { continue };
            let how = match control.peek(&mut [0]) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Ok(bytes) if bytes > 0 => Loss::Left,
                _ => Loss::Died,
            };
            return Err(CommError::PeerLost { rank, call: FORM, how });
        }
        Ok(())
    }
}

enum HelloAnswer {
    Welcome,
    Again,
}

impl Approach {
    fn again(&mut self) {
        self.waiting = None;
        self.due = Instant::now() + RETRY;
    }
}

/// One attempt to reach a peer. Names are looked up each time: a pod that was replaced has another address.
fn call_on(peer: &impl ToSocketAddrs, hello: Hello, patience: Duration) -> Option<PartialMessage<REPLY>> {
    let attempt = || {
        let address = peer.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
        let stream = TcpStream::connect_timeout(&address, patience)?;
        (&stream).write_all(&hello.encode())?;
        PartialMessage::new(stream)
    };
    attempt().inspect_err(|error| tracing::debug!(to = hello.to, %error, "a rank cannot be reached yet")).ok()
}
