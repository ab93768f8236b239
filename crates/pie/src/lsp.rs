//! `pie lsp`: a language server at standard input and output, in front of a pool that runs, or of one that it starts itself.

pub mod args;
mod embedded;

use crate::Failure;
use crate::observe::LogArgs;
use crate::signals::Signals;
use args::LspArgs;
use embedded::EmbeddedPool;
use pie_client::Access;
use pie_lsp::PoolAddress;
use std::time::Duration;
use tokio::sync::watch;

/// Sessions are closed in this time when a signal ends the server.
const GRACE: Duration = Duration::from_secs(2);

/// Serves an editor until it says so, goes, or a signal comes.
pub async fn run(arguments: LspArgs, log: &LogArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen(GRACE)?;
    let LspArgs { pool, access, tenant, embedded, model, pool_flags } = arguments;
    let stop = async move {
        signals.next().await;
    };
    if !embedded {
        // One that never changes: its sender may go.
        let (_, url) = watch::channel(Some(access.url(&pool)));
        let address = PoolAddress { url, access: access.open()?, tenant };
        return Ok(pie_lsp::serve(address, stop).await?);
    }
    let flags = model.map(|model| vec!["--model".into(), model]).unwrap_or_default();
    let embedded = EmbeddedPool::start(flags.into_iter().chain(pool_flags).collect(), log)?;
    let address = PoolAddress { url: embedded.url(), access: Access::default(), tenant };
    Ok(pie_lsp::serve(address, stop).await?)
}
