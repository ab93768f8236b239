//! Takes connections of a listener: handshakes side by side, each with a deadline, and no more than there are places.

use crate::connection::Connection;
use crate::identity::{Protocols, ServerTls};
use crate::limits::limited;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

/// A client has shaken hands in this time, and in as much again has begun to speak, or is disconnected.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After an error of accepting, for example too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that is refused reads why in this time.
const PARTING: Duration = Duration::from_secs(1);
/// Connections that have shaken hands and wait for the server's task.
const READY: usize = 64;

/// What a server takes connections from.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// How the connections of a port fared.
#[derive(Debug, Default)]
pub struct AcceptStats {
    full: AtomicU64,
    handshakes: AtomicU64,
}

impl AcceptStats {
    /// Connections that were turned away because there were too many.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Handshakes that failed: no TLS, a certificate that is none or not the right one, too slow.
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// Takes the connections of any listener.
#[derive(Clone, Debug)]
pub struct Acceptor {
    tls: Option<ServerTls>,
    places: Arc<Semaphore>,
    stats: Arc<AcceptStats>,
    age: Option<ConnectionAge>,
    protocols: Protocols,
}

/// How old connections get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAge {
    /// Then the client is told to connect anew, and the connection takes no new calls.
    pub limit: Duration,
    /// Calls that run may end in this time; then the connection is cut.
    pub grace: Duration,
}

impl Acceptor {
    /// With TLS, or in plaintext; at most so many connections at once.
    pub fn new(tls: Option<ServerTls>, connections: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { tls, places, stats: Arc::default(), age: None, protocols: Protocols::Grpc }
    }

    /// The same places and the same certificates for a port whose clients may speak HTTP/1.1 too.
    #[must_use]
    pub fn for_http(&self) -> Self {
        Self { protocols: Protocols::Http, ..self.clone() }
    }

    /// Connections get no older than this: clients that connect anew spread over the servers that there are by then.
    #[must_use]
    pub fn aging(self, age: Option<ConnectionAge>) -> Self {
        Self { age, ..self }
    }

    /// A server with the limits that the connections of this port have.
    pub fn server(&self) -> Server {
        match self.age {
            // Its own grace would cut connections without having told the clients.
            Some(age) => limited().max_connection_age(age.limit),
            None => limited(),
        }
    }

    /// Counts of connections that were turned away; they go on counting.
    pub fn stats(&self) -> &Arc<AcceptStats> {
        &self.stats
    }

    /// The scheme of this port's URLs.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Connections of a listener, ready to be served. Ends when what it returns is dropped.
    pub fn accept(&self, listener: TcpListener) -> Incoming {
        let (ready, incoming) = mpsc::channel(READY);
        tokio::spawn(self.clone().run(listener, ready));
        ReceiverStream::new(incoming)
    }

    async fn run(self, listener: TcpListener, ready: mpsc::Sender<io::Result<Connection>>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.stats.full.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%peer, "a connection was turned away: there are too many");
                continue;
            };
            let (acceptor, ready) = (self.clone(), ready.clone());
            tokio::spawn(async move {
                match acceptor.shake_hands(stream, place).await {
                    // A server that has stopped takes no more.
                    Ok(connection) => drop(ready.send(Ok(connection)).await),
                    Err(error) => {
                        acceptor.stats.handshakes.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(%peer, %error, "a connection did not come about");
                    }
                }
            });
        }
    }

    async fn shake_hands(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> io::Result<Connection> {
        // Small answers must not wait for an acknowledgement of the one before: tens of milliseconds.
        stream.set_nodelay(true)?;
        let deadline = Instant::now() + HANDSHAKE;
        let connection = match &self.tls {
            None => Connection::plain(stream),
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.current(self.protocols)).accept(stream).into_fallible();
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
                match timeout_at(deadline, handshake).await.map_err(late)? {
                    Ok(stream) => Connection::tls(stream),
                    Err((error, stream)) => {
                        part(stream).await;
                        return Err(error);
                    }
                }
            }
        };
        let end = self.age.map(|age| sleep_until(Instant::now() + age.limit + age.grace));
        Ok(connection.accepted(place, sleep_until(deadline + HANDSHAKE), end))
    }
}

/// Lets the client read the alert: a connection that is closed with bytes unread is cut, and the alert with it.
async fn part(mut stream: TcpStream) {
    let parting = async {
        let _ = stream.shutdown().await;
        let mut unread = [0; 256];
        while matches!(stream.read(&mut unread).await, Ok(read) if read > 0) {}
    };
    let _ = timeout(PARTING, parting).await;
}
