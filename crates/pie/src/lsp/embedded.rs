//! A pool of the language server's own: a child process that is started, started again when it dies, and ends with this process.

use crate::Failure;
use crate::observe::LogArgs;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A model is fetched and loaded in this time.
const STARTS: Duration = Duration::from_secs(3600);
/// How often it is looked whether the pool serves.
const LOOK: Duration = Duration::from_millis(50);
/// A pool that ended is started again after this time, and after twice as long each time that it does not serve.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is set for pools that serve others is not for this one.
const OF_OTHER_POOLS: [&str; 9] = [
    "PIE_CONFIG",
    "PIE_CONNECTION_AGE",
    "PIE_ETCD",
    "PIE_METRICS_LISTEN",
    "PIE_PEER_LISTEN",
    "PIE_TLS_CERT",
    "PIE_TLS_CLIENT_CA",
    "PIE_TLS_KEY",
    "PIE_TOKENS",
];

/// The pool. It ends when this is dropped, and when this process ends, however that ends: it reads the other end of a pipe.
pub struct EmbeddedPool {
    url: watch::Receiver<Option<String>>,
    minder: JoinHandle<()>,
}

impl Drop for EmbeddedPool {
    fn drop(&mut self) {
        self.minder.abort();
    }
}

impl EmbeddedPool {
    /// Starts it; it serves later.
    ///
    /// # Errors
    /// There is no folder for its ready file, or this program does not know where it is.
    pub fn start(flags: Vec<OsString>, log: &LogArgs) -> Result<Self, Failure> {
        let plan = PoolLauncher {
            program: std::env::current_exe()?,
            folder: TemporaryFolder::new()?,
            flags: log.flags().into_iter().map(OsString::from).chain(["pool".into()]).chain(flags).collect(),
        };
        let (told, url) = watch::channel(None);
        Ok(Self { url, minder: tokio::spawn(mind(plan, told)) })
    }

    /// Where it serves, as long as it does.
    pub fn url(&self) -> watch::Receiver<Option<String>> {
        self.url.clone()
    }
}

/// Starts it again and again.
async fn mind(plan: PoolLauncher, told: watch::Sender<Option<String>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match plan.spawn() {
            Ok(mut child) => {
                // Taken out, since waiting for a child closes the input that it still holds.
                let lifeline = child.stdin.take();
                if let Some(url) = plan.ready(&mut child).await {
                    told.send_replace(Some(url));
                    pause = FIRST_PAUSE;
                    let ended = child.wait().await;
                    told.send_replace(None);
                    say!("the pool of the language server ended ({}); it is started again", how(ended));
                } else {
                    // It has ended, or is stuck and has had its time.
                    let _ = child.kill().await;
                    say!("the pool of the language server does not serve; it is started again in {pause:?}");
                }
                drop(lifeline);
            }
            Err(error) => say!("the pool of the language server cannot be started: {error}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn how(ended: std::io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// How it is started.
struct PoolLauncher {
    program: PathBuf,
    folder: TemporaryFolder,
    flags: Vec<OsString>,
}

/// What its ready file says.
#[derive(Deserialize)]
struct ReadyFileContent {
    address: String,
}

impl PoolLauncher {
    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    fn spawn(&self) -> std::io::Result<Child> {
        // One that was killed has left it there.
        let _ = std::fs::remove_file(self.ready_file());
        let mut command = Command::new(&self.program);
        for name in OF_OTHER_POOLS {
            command.env_remove(name);
        }
        // Nobody but this process calls it, unless a flag says so; its usual port is another pool's.
        command.env("PIE_HTTP", "off");
        command
            .args(&self.flags)
            .args(["--supervised", "--listen", "127.0.0.1:0", "--ready-file"])
            .arg(self.ready_file())
            // Its end is the pool's: this process holds it as long as it lives.
            .stdin(Stdio::piped())
            // The editor reads this process's.
            .stdout(Stdio::null())
            // Ctrl-C is for this process.
            .process_group(0)
            .spawn()
    }

    /// Waits until it serves. `None` if it ends before, or its time is over.
    async fn ready(&self, child: &mut Child) -> Option<String> {
        let end = Instant::now() + STARTS;
        while Instant::now() < end {
            if let Ok(line) = std::fs::read_to_string(self.ready_file())
                && let Ok(ReadyFileContent { address }) = serde_json::from_str(&line)
            {
                return Some(format!("http://{address}"));
            }
            if !matches!(child.try_wait(), Ok(None)) {
                return None;
            }
            sleep(LOOK).await;
        }
        None
    }
}

/// A folder of this process's own among the temporary ones.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let path = std::env::temp_dir().join(format!("pie-lsp-{}", hex::encode(random)));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // The system clears the others away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
