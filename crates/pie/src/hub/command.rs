//! `pie model`: fetches, lists and removes what the cache has of hubs.

use super::args::HubArgs;
use super::fetch::Fetched;
use super::lock::Lock;
use super::places::{ModelReference, SHORT};
use super::problem::{Code, Problem};
use super::store::{DownloadState, Manifest, ModelCacheFolder, VerificationLevel};
use super::{Hub, look_at, size};
use crate::ctl::table;
use crate::{Failure, ReportedError};
use clap::{Args, Subcommand};
use serde::Serialize;

/// `pie model`
#[derive(Clone, Debug, Args)]
pub struct ModelCommandArgs {
    /// The hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: ModelCommand,
}

/// The commands of `pie model`.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelCommand {
    /// Fetch a model, or bring it to what the hub has now. What was begun is gone on with; what is there is not fetched again.
    Fetch {
        /// A short name, hf:OWNER/NAME, or hf:OWNER/NAME/FILE.gguf; with @REVISION behind it, that revision.
        name: String,
    },
    /// Show the models that are in the cache, whole or not.
    List {
        /// Show the short names and what they stand for instead.
        #[arg(long, conflicts_with = "check")]
        names: bool,
        /// Read all files and compare their sums, which takes as long as reading them; fails if one is not as it came.
        #[arg(long)]
        check: bool,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Remove a model from the cache.
    Remove {
        /// Its name, as `pie model list` shows it.
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// A sentence with a code.
pub fn run(arguments: ModelCommandArgs) -> Result<(), Failure> {
    let hub = Hub::new(&arguments.hub)?;
    match arguments.command {
        ModelCommand::Fetch { name } => fetch(&hub, &ModelReference::of(&name)?),
        ModelCommand::List { names: true, json, .. } => names(json),
        ModelCommand::List { check, json, .. } => {
            list(&hub, if check { VerificationLevel::Full } else { VerificationLevel::Quick }, json)
        }
        ModelCommand::Remove { name } => remove(&hub, &ModelReference::of(&name)?),
    }
}

fn fetch(hub: &Hub, place: &ModelReference) -> Result<(), Failure> {
    let (home, fetched) = hub.refresh(place)?;
    if let Some(Fetched { manifest, came: 0 }) = fetched {
        say!("{place} is here as the hub has it: {}", size(manifest.size()));
    }
    outln!("{}", home.model().display());
    Ok(())
}

/// A line of the list.
#[derive(Serialize)]
struct Listed {
    place: String,
    short: Option<&'static str>,
    state: &'static str,
    broken: Vec<String>,
    commit: Option<String>,
    bytes: u64,
    path: String,
}

impl Listed {
    fn of(home: &ModelCacheFolder, look: VerificationLevel) -> Self {
        let state = look_at(home, look);
        let place = home.place().to_string();
        let short = SHORT.iter().find(|(_, known)| *known == place).map(|(short, _)| *short);
        let commit = |manifest: Manifest| Some(manifest.commit);
        let (state, broken, commit) = match state {
            DownloadState::Whole(manifest) => ("whole", Vec::new(), commit(manifest)),
            DownloadState::Broken(manifest, broken) => ("broken", broken, commit(manifest)),
            DownloadState::Absent => ("begun", Vec::new(), None),
        };
        Self {
            place,
            short,
            state,
            broken,
            commit,
            bytes: home.held(),
            path: home.folder().display().to_string(),
        }
    }
}

fn list(hub: &Hub, look: VerificationLevel, json: bool) -> Result<(), Failure> {
    // Of a fetch that ended before anything came there is an empty folder.
    let is_there = |home: &&ModelCacheFolder| home.held() > 0 || home.manifest().is_some();
    let listed: Vec<_> =
        hub.store.homes().iter().filter(is_there).map(|home| Listed::of(home, look)).collect();
    let broken = listed.iter().filter(|one| one.state == "broken").count();
    if json {
        outln!("{}", serde_json::to_string_pretty(&listed)?);
    } else if listed.is_empty() {
        say!(
            "no model was fetched yet: `pie model fetch NAME` does, and `pie model list --names` shows short names"
        );
    } else {
        let mut table = table(["model", "size", "state", "folder"]);
        for Listed { place, short, state, bytes, path, .. } in &listed {
            let name = short.map_or_else(|| place.clone(), str::to_owned);
            table.add_row([name, size(*bytes), (*state).to_owned(), path.clone()]);
        }
        outln!("{table}");
        for Listed { place, broken, .. } in &listed {
            broken.iter().for_each(|why| say!("{place}: {why}"));
        }
    }
    if broken > 0 && look == VerificationLevel::Full {
        say!(
            "{broken} of them are not as they came: they are fetched again when they are used, or by `pie model fetch NAME`"
        );
        return Err(ReportedError.into());
    }
    Ok(())
}

fn names(json: bool) -> Result<(), Failure> {
    if json {
        let all: Vec<_> =
            SHORT.iter().map(|(name, place)| serde_json::json!({"name": name, "place": place})).collect();
        outln!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for (name, place) in SHORT {
        outln!("{name:<20} {place}");
    }
    Ok(())
}

fn remove(hub: &Hub, place: &ModelReference) -> Result<(), Failure> {
    let home = hub.store.home(place);
    if !home.folder().exists() {
        let what = format!("{place} is not in the cache (`pie model list` shows what is)");
        return Err(Problem::new(Code::NotFound, what).into());
    }
    let _lock = Lock::take(&home, || say!("another process fetches {place}: waiting for it"))?;
    let held = home.held();
    home.remove()?;
    say!("{place} is removed: {} are free", size(held));
    Ok(())
}
