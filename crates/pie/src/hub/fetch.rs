//! Fetches what a place has: each file on from where it was, checked by the hub's sum before it is a file of the model.

use super::api::{Api, Remote, Snapshot};
use super::http::{Client, HubResponse};
use super::meter::Meter;
use super::part::{Checked, PartialDownload};
use super::patience::ConsecutiveFailures;
use super::problem::{Code, Problem};
use super::store::{DownloadState, Manifest, ManifestFile, ModelCacheFolder, VerificationLevel};
use hyper::http::StatusCode;
use std::fs;

/// An attempt that brought so much more than any before it has got on, and the next failure is a first one.
const GETS_ON: u64 = 1 << 20;
/// Beyond the files themselves so much stays free on the disk.
const SPARE: u64 = 16 << 20;

/// Fetches into a home, whose lock is held.
pub struct Fetch<'a> {
    /// The hub.
    pub api: Api<'a>,
    /// Where it goes.
    pub home: &'a ModelCacheFolder,
}

/// What came of it.
pub struct Fetched {
    /// What is there now.
    pub manifest: Manifest,
    /// How much of it came now.
    pub came: u64,
}

impl Fetch<'_> {
    /// Brings the home to what the hub has.
    ///
    /// # Errors
    /// What came until then is kept, and the next fetch goes on with it.
    pub async fn run(&self) -> Result<Fetched, Problem> {
        let snapshot = self.api.snapshot(self.home.place()).await?;
        let have = self.what_is_right();
        let kept = |remote: &Remote| have.iter().find(|kept| kept.is(remote)).cloned();
        let missing: Vec<&Remote> = snapshot.files.iter().filter(|remote| kept(remote).is_none()).collect();
        self.forget_other_parts(&missing);
        self.check_room(&missing)?;
        let meter = Meter::new(self.home.place(), &snapshot.commit, &missing, self.begun(&missing));
        let (mut checked, mut came) = (Vec::new(), 0);
        for remote in &missing {
            let (part, new) = self.file(&snapshot, remote, &meter).await?;
            checked.push(part);
            came += new;
        }
        let mut files: Vec<ManifestFile> = snapshot.files.iter().filter_map(kept).collect();
        for part in checked {
            files.push(part.place(self.home)?);
        }
        let endpoint = self.api.endpoint.to_owned();
        let manifest =
            Manifest { place: self.home.place().to_string(), endpoint, commit: snapshot.commit, files };
        self.home.settle(&manifest)?;
        meter.end(came);
        Ok(Fetched { manifest, came })
    }

    /// Files of the last fetch that are as they came.
    fn what_is_right(&self) -> Vec<ManifestFile> {
        match self.home.state(VerificationLevel::Quick, |_| {}) {
            DownloadState::Absent => Vec::new(),
            DownloadState::Whole(manifest) => manifest.files,
            DownloadState::Broken(manifest, broken) => {
                let is_broken = |kept: &ManifestFile| {
                    broken.iter().any(|why| why.starts_with(&format!("{} ", kept.name())))
                };
                manifest.files.into_iter().filter(|kept| !is_broken(kept)).collect()
            }
        }
    }

    /// Of each file that is fetched there is one part at most, and of others none.
    fn forget_other_parts(&self, missing: &[&Remote]) {
        for (path, _) in self.home.parts() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !missing.iter().any(|remote| PartialDownload::name(remote) == name) {
                // What stays is in nobody's way.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// How much of the missing files lies there in parts.
    fn begun(&self, missing: &[&Remote]) -> u64 {
        let length = |remote: &&Remote| {
            let about = fs::metadata(self.home.folder().join(PartialDownload::name(remote)));
            about.map(|about| about.len().min(remote.size)).unwrap_or(0)
        };
        missing.iter().map(length).sum()
    }

    /// Better now than after an hour.
    fn check_room(&self, missing: &[&Remote]) -> Result<(), Problem> {
        let wanted =
            missing.iter().map(|remote| remote.size).sum::<u64>().saturating_sub(self.begun(missing));
        // Where the file system does not say how much is free, a full one says so later.
        let Ok(about) = rustix::fs::statvfs(self.home.folder()) else { return Ok(()) };
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        if wanted == 0 || wanted.saturating_add(SPARE) <= free {
            return Ok(());
        }
        let what = format!(
            "{} needs {} more, and the disk of {} has {} free: make room (`pie model list`, `pie model remove NAME`), or set \
             XDG_CACHE_HOME to a folder on a larger disk",
            self.home.place(),
            super::size(wanted),
            self.home.folder().display(),
            super::size(free)
        );
        Err(Problem::new(Code::Disk, what))
    }

    /// One file, and how much of it came now.
    async fn file(
        &self,
        snapshot: &Snapshot,
        remote: &Remote,
        meter: &Meter,
    ) -> Result<(Checked, u64), Problem> {
        let mut part = PartialDownload::open(self.home, remote)?;
        let found = part.found;
        let mut came = self.fill(&mut part, snapshot, remote, meter).await?;
        match part.checked() {
            // What lay there may have been spoilt when a machine fell over. What came in one go was not.
            Err(problem) if problem.code == Code::WrongBytes && found > 0 => {
                meter.say(&format!(
                    "{problem}; {found} bytes of it were of an earlier fetch: it is fetched anew"
                ));
                meter.back(remote.size);
                let mut part = PartialDownload::open(self.home, remote)?;
                came += self.fill(&mut part, snapshot, remote, meter).await?;
                Ok((part.checked()?, came))
            }
            checked => Ok((checked?, came)),
        }
    }

    /// Asks until nothing is missing, or there is no use in asking.
    async fn fill(
        &self,
        part: &mut PartialDownload,
        snapshot: &Snapshot,
        remote: &Remote,
        meter: &Meter,
    ) -> Result<u64, Problem> {
        let address = self.api.address(self.home.place(), &snapshot.commit, &remote.path);
        let (mut patience, mut best, mut came) = (ConsecutiveFailures::default(), part.length(), 0);
        while !part.is_whole() {
            if let Err(problem) = self.ask(part, &address, remote, meter, &mut came).await {
                if part.length() >= best + GETS_ON {
                    patience.got_on();
                    best = part.length();
                }
                patience.bear(problem, |line| meter.say(line)).await?;
            }
        }
        Ok(came)
    }

    async fn ask(
        &self,
        part: &mut PartialDownload,
        address: &str,
        remote: &Remote,
        meter: &Meter,
        came: &mut u64,
    ) -> Result<(), Problem> {
        let client: &Client = self.api.client;
        let mut answer = client.get(address, part.length()).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&answer) == Some(part.length()) => {}
            // Whoever knows no ranges sends all of it; and of a part that is none of this file nothing is left to send.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if part.length() > 0 =>
            {
                meter.back(part.length());
                part.begin_again()?;
                if answer.status() != StatusCode::OK {
                    let what =
                        format!("another part of {} comes than the one that was asked for", remote.path);
                    return Err(Problem::passing(Code::Answer, what));
                }
            }
            StatusCode::OK => {}
            _ => {
                let what = format!("{} of {}", remote.path, self.home.place().repository());
                return Err(answer
                    .refusal(&what, &self.api.page(self.home.place()), client.has_token())
                    .await);
            }
        }
        loop {
            let piece = answer.piece().await.map_err(|problem| {
                let what = format!(
                    "{} of the {} bytes of {} came; {}",
                    part.length(),
                    remote.size,
                    remote.path,
                    problem.what
                );
                Problem { what, ..problem }
            })?;
            let Some(piece) = piece else { break };
            part.add(&piece)?;
            *came += piece.len() as u64;
            meter.add(piece.len() as u64);
        }
        if part.is_whole() {
            return Ok(());
        }
        let what = format!("{} ended after {} of {} bytes", remote.path, part.length(), remote.size);
        Err(Problem::passing(Code::Cut, what))
    }
}

/// The first byte of what comes: `bytes 100-199/200`.
fn begins_at(answer: &HubResponse) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
