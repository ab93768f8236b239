//! A language server: an editor's documents live in a pool, and are completed there.
//!
//! **Owns** the protocol's side (`server`: what is done with each message), the documents as the editor has them (`text`), one task for
//! each that keeps its session in step (`document`), and the way to the pool (`link`).
//!
//! **Invariant.** The editor's text is the truth: a completion is asked for when the pool has the text that the editor had when it
//! asked, and whatever is lost on the way, the next answer is of the text as it is then. A notification never fails.
//!
//! **Must not know** the router's insides, models, tokenizers, the command line.

mod answers;
mod changes;
mod completion;
mod document;
mod fitting;
mod link;
mod mirror;
mod server;
mod settings;
mod suggestion;
mod text;

pub use link::PoolAddress;

use server::LanguageServer;
use std::time::Duration;

/// Sessions are closed in this time when the editor goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the language server ends before the editor says so.
#[derive(Debug, thiserror::Error)]
pub enum LspError {
    /// Nobody is there to talk to.
    #[error("standard input and output must be pipes, as editors make them, or a terminal: {0}")]
    Stdio(#[source] std::io::Error),
    /// What came is no LSP, or the editor went in the middle of it.
    #[error("the editor's messages cannot be read: {0}")]
    Protocol(#[source] async_lsp::Error),
    /// The operating system gives no random bytes.
    #[error("no random bytes for the sessions' names: {0}")]
    Random(#[source] getrandom::Error),
}

/// Serves the editor at standard input and output, until it says `exit`, closes them, or `stop` comes. Sessions are closed then.
///
/// # Errors
/// [`LspError`].
pub async fn serve(address: PoolAddress, stop: impl Future<Output = ()>) -> Result<(), LspError> {
    let stdin = async_lsp::stdio::PipeStdin::lock_tokio().map_err(LspError::Stdio)?;
    let stdout = async_lsp::stdio::PipeStdout::lock_tokio().map_err(LspError::Stdio)?;
    let (ends, mut ended) = document::ends();
    let server = LanguageServer::new(address, ends).map_err(LspError::Random)?;
    let (service, _) = async_lsp::MainLoop::new_server(|client| server.service(client));
    let served = tokio::select! {
        served = service.run_buffered(stdin, stdout) => served,
        () = stop => Ok(()),
    };
    // The documents' tasks end when the server is dropped, as it is by now.
    if tokio::time::timeout(FAREWELL, ended.recv()).await.is_err() {
        tracing::warn!("sessions are left open: the pool did not close them within {FAREWELL:?}");
    }
    match served {
        Ok(()) | Err(async_lsp::Error::Eof) => Ok(()),
        Err(error) => Err(LspError::Protocol(error)),
    }
}
