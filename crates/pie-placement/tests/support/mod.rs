//! A real etcd server for tests: free ports, a directory of its own, killed with the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use etcd_client::Client;
use pie_placement::{Etcd, EtcdConfig};
use tempfile::TempDir;

pub struct EtcdServer {
    process: Mutex<Child>,
    client_port: u16,
    command: Launch,
    data: TempDir,
}

/// How a server is started, again and again.
struct Launch {
    name: String,
    client: String,
    peer: String,
    cluster: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl EtcdServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let server = Self::members(1).remove(0);
        server.ready().await;
        server
    }

    /// Starts the servers of one store and waits until they answer.
    pub async fn cluster(members: usize) -> Vec<Self> {
        let servers = Self::members(members);
        for server in &servers {
            server.ready().await;
        }
        servers
    }

    fn members(count: usize) -> Vec<Self> {
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<_> =
            ports.iter().enumerate().map(|(number, (_, peer))| format!("m{number}={}", url(*peer))).collect();
        let cluster = cluster.join(",");
        let server = |(number, (client_port, peer_port)): (usize, (u16, u16))| {
            let data = tempfile::tempdir().unwrap();
            let (name, cluster) = (format!("m{number}"), cluster.clone());
            let command = Launch { name, client: url(client_port), peer: url(peer_port), cluster };
            let process = Mutex::new(command.start(&data));
            Self { process, client_port, command, data }
        };
        ports.into_iter().enumerate().map(server).collect()
    }

    /// The server that all tests of this process share; it ends with the last of them.
    pub async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<EtcdServer>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// A client of etcd itself, past the placement.
    pub async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }

    async fn ready(&self) {
        let started = Instant::now();
        loop {
            let mut client = self.client().await;
            if let Ok(Ok(_)) =
                tokio::time::timeout(Duration::from_millis(500), client.get("ready", None)).await
            {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "etcd did not start within 20 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts the server again on the same ports and data.
    pub async fn restart(&self) {
        *self.process.lock().unwrap() = self.command.start(&self.data);
        self.ready().await;
    }

    /// Starts the server, which was killed, on the same ports with nothing in it.
    pub async fn restart_empty(&self) {
        std::fs::remove_dir_all(self.data.path().join("etcd")).unwrap();
        self.restart().await;
    }

    /// Whether it leads the others.
    pub async fn leads(&self) -> bool {
        let status = self.client().await.status().await.unwrap();
        status.leader() == status.header().unwrap().member_id()
    }

    /// `STOP` freezes the server with its connections open, `CONT` lets it go on.
    pub fn signal(&self, signal: &str) {
        let id = self.process.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap();
        // It may have been killed by the test already.
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Launch {
    fn start(&self, data: &TempDir) -> Child {
        let Self { name, client, peer, cluster } = self;
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path().join("etcd"))
            .args(["--name", name, "--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", cluster, "--logger", "zap", "--log-level", "fatal"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        started.unwrap_or_else(|error| {
            panic!("these tests need the program etcd on the PATH (Debian: etcd-server; see scripts/test.sh): {error}")
        })
    }
}

/// A placement on this server under a prefix that nobody else uses.
pub async fn placement(server: &EtcdServer) -> (Etcd, String) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("/test/{}/", NEXT.fetch_add(1, Ordering::Relaxed));
    let config = EtcdConfig { prefix: prefix.clone(), ..EtcdConfig::new(vec![server.endpoint()]) };
    (Etcd::connect(config).await.unwrap(), prefix)
}
