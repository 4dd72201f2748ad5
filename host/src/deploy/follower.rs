//! Follows the host's own directory of components during development: a changed file is deployed, through all
//! gates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::deployer::Deployer;
use super::directory::{self, DirectoryError, Stamp};
use super::error::DeployError;
use super::gates::Upload;
use super::report::Report;
use super::rules::Options;
use crate::model::{Caller, Digest};

/// The actor of the deployments.
const ACTOR: &str = "kontor serve --watch";

/// The interval between two scans, which cost a system call for each file. A file that is written for longer
/// than this without a change of its size or time would be deployed too early; linkers and `cp` are not that
/// slow.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// Deploys the files of a directory that change.
pub struct Follower {
    deployer: Arc<Deployer>,
    dir: PathBuf,
    files: Files,
}

/// The reason why a file was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The file cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The deployment failed.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The task that reads the file was aborted.
    #[error("the file cannot be read")]
    BrokenOff(#[from] JoinError),
}

/// The files at the last scan.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, ObservedFile>);

#[derive(Clone, Copy)]
struct ObservedFile {
    stamp: Stamp,
    /// True if the file has been handled since it has this stamp.
    handled: bool,
    /// The digest of the file when it was deployed last. None if the last deployment failed, so that a touch
    /// is a retry.
    digest: Option<Digest>,
}

impl Follower {
    /// Creates a follower of a directory.
    pub fn new(deployer: Arc<Deployer>, dir: PathBuf) -> Self {
        Self { deployer, dir, files: Files::default() }
    }

    /// Deploys each file that does not run yet, and from then on each that changes. Calls `report` with every
    /// result.
    pub async fn run(mut self, mut report: impl FnMut(&Path, Result<Report, FollowError>)) -> Infallible {
        let mut scans = interval(SCAN_INTERVAL);
        scans.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            scans.tick().await;
            let dir = self.dir.clone();
            // Err: the directory does not exist at the moment.
            let Ok(Ok(stamps)) = spawn_blocking(move || directory::stamps(&dir)).await else { continue };
            for file in self.files.settled(stamps) {
                if let Some(outcome) = self.handle(&file).await.transpose() {
                    report(&file, outcome);
                }
            }
        }
    }

    /// Deploys a file. Returns none if the file is not new, or if another deployment is in progress: then the
    /// next scan retries.
    async fn handle(&mut self, file: &Path) -> Result<Option<Report>, FollowError> {
        let path = file.to_owned();
        let read = spawn_blocking(move || {
            let (wasm, signature) = (directory::read_file(&path)?, directory::signature(&path)?);
            Ok::<_, DirectoryError>((Digest::of(&wasm), Upload { wasm, signature }))
        });
        let (digest, upload) = match read.await? {
            Ok(read) => read,
            Err(error) => {
                self.files.handled(file, None);
                return Err(error.into());
            }
        };
        let runs = self.deployer.running().iter().any(|running| running.release.digest == digest);
        if self.files.was(file, digest) || runs {
            self.files.handled(file, Some(digest));
            return Ok(None);
        }
        let name = file.file_name().unwrap_or_default().display();
        let note = Some(format!("{name} has changed"));
        let options = Options { note, from_directory: true, ..Options::default() };
        match self.deployer.deploy(vec![upload], options, &Caller::named(ACTOR)).await {
            Err(DeployError::UnderWay) => Ok(None),
            outcome => {
                self.files.handled(file, outcome.is_ok().then_some(digest));
                Ok(Some(outcome?))
            }
        }
    }
}

impl Files {
    /// Returns the files to deploy: those that have not changed since the last scan, so that nobody is
    /// writing them.
    fn settled(&mut self, stamps: Vec<(PathBuf, Stamp)>) -> Vec<PathBuf> {
        let mut before = std::mem::take(&mut self.0);
        let mut settled = Vec::new();
        for (file, stamp) in stamps {
            let seen = before.remove(&file);
            let same = seen.filter(|seen| seen.stamp == stamp);
            if same.is_some_and(|seen| !seen.handled) {
                settled.push(file.clone());
            }
            let digest = seen.and_then(|seen| seen.digest);
            self.0.insert(file, same.unwrap_or(ObservedFile { stamp, handled: false, digest }));
        }
        settled
    }

    /// Returns whether a file had this digest when it was deployed last.
    fn was(&self, file: &Path, digest: Digest) -> bool {
        self.0.get(file).is_some_and(|seen| seen.digest == Some(digest))
    }

    /// Records that a file has been handled. `digest` is none if its deployment failed.
    fn handled(&mut self, file: &Path, digest: Option<Digest>) {
        if let Some(seen) = self.0.get_mut(file) {
            (seen.handled, seen.digest) = (true, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a scan with their sizes, and those of them that are to be deployed.
    type Scan<'a> = (&'a [(&'a str, u64)], &'a [&'a str]);

    #[test]
    fn a_file_is_deployed_once_when_it_has_not_changed_for_one_scan() {
        let scans: [Scan<'_>; 9] = [
            (&[("order", 1)], &[]),
            (&[("order", 1)], &["order"]),
            (&[("order", 1)], &[]),
            (&[("order", 2), ("report", 1)], &[]),
            // The file is being written.
            (&[("order", 3), ("report", 1)], &["report"]),
            (&[("order", 3)], &["order"]),
            (&[], &[]),
            (&[("order", 3)], &[]),
            (&[("order", 3)], &["order"]),
        ];
        let mut files = Files::default();
        for (number, (found, expected)) in scans.into_iter().enumerate() {
            let stamp = |bytes: u64| Stamp { bytes, changed: None };
            let settled =
                files.settled(found.iter().map(|(file, bytes)| (file.into(), stamp(*bytes))).collect());
            settled.iter().for_each(|file| files.handled(file, None));
            assert_eq!(settled, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "scan {number}");
        }
    }

    #[test]
    fn a_file_that_could_not_be_deployed_is_deployed_at_the_next_scan() {
        let mut files = Files::default();
        let mut scan = || files.settled(vec![("order".into(), Stamp { bytes: 1, changed: None })]);
        assert_eq!([scan().len(), scan().len(), scan().len()], [0, 1, 1]);
    }
}
