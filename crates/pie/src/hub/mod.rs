//! Models that are named by a place on a Hugging Face hub, or by a short name for one: fetched once, kept in the user's cache, checked
//! each time. What knows of names is in `places.rs`, of the hub in `api.rs`, of its protocol in `http.rs`, of the cache in `store.rs`.

mod api;
pub mod args;
pub mod command;
mod fetch;
mod http;
mod lock;
mod meter;
mod part;
mod patience;
mod places;
pub mod problem;
mod store;
mod wire;

use crate::cache::Cache;
use crate::{Failure, progress};
use api::Api;
use args::{HubArgs, HubSettings};
use bytesize::ByteSize;
use fetch::{Fetch, Fetched};
use http::Client;
use indicatif::ProgressBar;
use lock::Lock;
pub use places::ModelReference;
use problem::{Code, Problem};
use std::cell::OnceCell;
use std::future::Future;
use std::path::PathBuf;
use store::{DownloadState, ModelCacheFolder, Store, VerificationLevel};

/// A hub, and what was fetched of it.
pub struct Hub {
    settings: HubSettings,
    store: Store,
}

impl Hub {
    /// With the user's cache.
    ///
    /// # Errors
    /// The settings are wrong, or there is no place for a cache.
    pub fn new(arguments: &HubArgs) -> Result<Self, Failure> {
        Ok(Self { settings: HubSettings::of(arguments)?, store: Store::at(Cache::hub()?) })
    }

    /// What a place's model is loaded from. What is whole in the cache is taken as it is, without a look at the network; anything else
    /// is fetched.
    ///
    /// # Errors
    /// [`Problem`]
    pub fn model(&self, place: &ModelReference) -> Result<PathBuf, Problem> {
        let home = self.store.home(place);
        match look_at(&home, VerificationLevel::Quick) {
            DownloadState::Whole(_) => return Ok(home.model()),
            DownloadState::Broken(_, why) if !self.settings.offline => {
                say!("{place} is not as it came ({}): what is wrong is fetched again", why.join("; "));
            }
            DownloadState::Absent | DownloadState::Broken(..) => {}
        }
        self.fetch_into(&home, |home| {
            matches!(home.state(VerificationLevel::Quick, |_| {}), DownloadState::Whole(_))
        })?;
        Ok(home.model())
    }

    /// Brings a place to what the hub has now; how much of it came, if anything had to.
    ///
    /// # Errors
    /// [`Problem`]
    pub fn refresh(&self, place: &ModelReference) -> Result<(ModelCacheFolder, Option<Fetched>), Problem> {
        let home = self.store.home(place);
        let fetched = self.fetch_into(&home, |_| false)?;
        Ok((home, fetched))
    }

    /// `is_done` looks whether another process has done it meanwhile.
    fn fetch_into(
        &self,
        home: &ModelCacheFolder,
        is_done: impl Fn(&ModelCacheFolder) -> bool,
    ) -> Result<Option<Fetched>, Problem> {
        if self.settings.offline {
            return Err(self.without_network(
                home,
                "the network is not to be used (--offline, PIE_OFFLINE)",
                Code::Offline,
            ));
        }
        home.make()?;
        self.store.clear_old_parts();
        let place = home.place();
        let _lock = Lock::take(home, || say!("another process fetches {place}: waiting for it"))?;
        if is_done(home) {
            return Ok(None);
        }
        let HubSettings { endpoint, token, .. } = &self.settings;
        let client = Client::new(endpoint, token.clone())?;
        let fetch = Fetch { api: Api { client: &client, endpoint }, home };
        let fetched = finished(|| fetch.run())?;
        if fetched.is_err() && home.held() == 0 {
            // Nothing came: as if nobody had asked. What cannot be removed is an empty folder.
            let _ = home.remove();
        }
        match fetched {
            Ok(fetched) => Ok(Some(fetched)),
            Err(problem) if problem.code == Code::Unreachable => {
                Err(self.without_network(home, &problem.what, Code::Unreachable))
            }
            Err(problem) => Err(problem),
        }
    }

    /// Without a network people can carry the files: what is missing, and where it would be looked for.
    fn without_network(&self, home: &ModelCacheFolder, why: &str, code: Code) -> Problem {
        let place = home.place();
        let found = match home.state(VerificationLevel::Quick, |_| {}) {
            DownloadState::Broken(_, broken) => format!("is in the cache, but {}", broken.join("; ")),
            _ => "is not in the cache".to_owned(),
        };
        let what = format!(
            "{place} {found}, and {why}. Where there is a network run `pie model fetch {place}`, and copy the folder that `pie model \
             list` shows there to {}; or give --model the path of a folder or file that you copied from {}/{}",
            home.folder().display(),
            self.settings.endpoint,
            place.repository()
        );
        Problem::new(code, what)
    }
}

/// Whether `text`, which is the path of nothing, is rather a name: it has no slash, but for places on a hub.
pub fn is_name(text: &str) -> bool {
    ModelReference::is_meant(text)
        || !text.is_empty() && !text.contains(['/', '\\']) && !text.starts_with('.')
}

/// Runs something to its end. On a thread of its own, since commands wait for a model inside their runtimes, where nobody may wait for
/// another one.
fn finished<T: Send, F: Future<Output = T>>(begin: impl FnOnce() -> F + Send) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Problem::new(Code::Unreachable, format!("no thread to fetch on: {error}")))?;
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            let ended = runtime.block_on(begin());
            // A name that is still being looked up is not waited for.
            runtime.shutdown_background();
            ended
        });
        Ok(ended.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What is there of a model, with a bar where files have to be read for it.
fn look_at(home: &ModelCacheFolder, look: VerificationLevel) -> DownloadState {
    let bar = OnceCell::new();
    let state = home.state(look, |read| {
        let bar: &ProgressBar = bar.get_or_init(|| {
            let bar = progress::transfer(&format!("checking {}", home.place()));
            bar.set_length(home.held());
            bar
        });
        bar.inc(read);
    });
    bar.into_inner().iter().for_each(ProgressBar::finish_and_clear);
    state
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
