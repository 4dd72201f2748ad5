//! Follows the host's own directory of components while services are written: what changes there is deployed, with all gates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::deployer::{DeployError, Deployer, Options};
use super::directory::{self, DirectoryError, Stamp};
use super::gates::Upload;
use super::report::Report;
use crate::model::Digest;

/// Who deploys what has changed.
const ACTOR: &str = "kontor serve --watch";

/// How often the files are looked at, which costs a system call each. A file that is written for longer than this without a
/// change of its size or time would be taken too early; linkers and `cp` are not that slow.
const LOOK: Duration = Duration::from_millis(500);

/// Deploys what changes in a directory.
pub struct Follower {
    deployer: Arc<Deployer>,
    dir: PathBuf,
    files: Files,
}

/// Why a file was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Deploy(#[from] DeployError),
    #[error("the file cannot be read")]
    BrokenOff(#[from] JoinError),
}

/// The files as they were at the last look.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, ObservedMember>);

#[derive(Clone, Copy)]
struct ObservedMember {
    stamp: Stamp,
    /// Whether it has been taken since it has this stamp.
    taken: bool,
    /// What it was when it was taken last; none if it was not deployed then, so that a touch is another try.
    digest: Option<Digest>,
}

impl Follower {
    pub fn new(deployer: Arc<Deployer>, dir: PathBuf) -> Self {
        Self { deployer, dir, files: Files::default() }
    }

    /// Deploys each file that does not run when it begins, and from then on each that changes. `tell` hears what has become of
    /// it.
    pub async fn run(mut self, mut tell: impl FnMut(&Path, Result<Report, FollowError>)) -> Infallible {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let dir = self.dir.clone();
            // Err: there is no such directory at the moment.
            let Ok(Ok(stamps)) = spawn_blocking(move || directory::stamps(&dir)).await else { continue };
            for file in self.files.still(stamps) {
                if let Some(outcome) = self.take(&file).await.transpose() {
                    tell(&file, outcome);
                }
            }
        }
    }

    /// Deploys a file; none if it is nothing new, or if it is to be taken again later.
    async fn take(&mut self, file: &Path) -> Result<Option<Report>, FollowError> {
        let path = file.to_owned();
        let read = spawn_blocking(move || {
            let (wasm, signature) = (directory::read_file(&path)?, directory::signature(&path)?);
            Ok::<_, DirectoryError>((Digest::of(&wasm), Upload { wasm, signature }))
        });
        let (digest, upload) = match read.await? {
            Ok(read) => read,
            Err(error) => {
                self.files.taken(file, None);
                return Err(error.into());
            }
        };
        let runs = self.deployer.running().iter().any(|running| running.release.digest == digest);
        if self.files.was(file, digest) || runs {
            self.files.taken(file, Some(digest));
            return Ok(None);
        }
        let name = file.file_name().unwrap_or_default().display();
        let note = Some(format!("{name} has changed"));
        let options = Options { note, from_directory: true, ..Options::default() };
        match self.deployer.deploy(vec![upload], options, ACTOR).await {
            Err(DeployError::UnderWay) => Ok(None),
            outcome => {
                self.files.taken(file, outcome.is_ok().then_some(digest));
                Ok(Some(outcome?))
            }
        }
    }
}

impl Files {
    /// The files that are to be taken: they are as they were at the last look, so that nobody is writing them.
    fn still(&mut self, stamps: Vec<(PathBuf, Stamp)>) -> Vec<PathBuf> {
        let mut before = std::mem::take(&mut self.0);
        let mut still = Vec::new();
        for (file, stamp) in stamps {
            let seen = before.remove(&file);
            let same = seen.filter(|seen| seen.stamp == stamp);
            if same.is_some_and(|seen| !seen.taken) {
                still.push(file.clone());
            }
            let digest = seen.and_then(|seen| seen.digest);
            self.0.insert(file, same.unwrap_or(ObservedMember { stamp, taken: false, digest }));
        }
        still
    }

    /// Whether a file was this when it was deployed last.
    fn was(&self, file: &Path, digest: Digest) -> bool {
        self.0.get(file).is_some_and(|seen| seen.digest == Some(digest))
    }

    /// `digest`: none if it was not deployed.
    fn taken(&mut self, file: &Path, digest: Option<Digest>) {
        if let Some(seen) = self.0.get_mut(file) {
            (seen.taken, seen.digest) = (true, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look finds files by their sizes, and which of them are to be taken.
    type Look<'a> = (&'a [(&'a str, u64)], &'a [&'a str]);

    #[test]
    fn a_file_is_taken_once_when_it_has_been_still_for_a_look() {
        let looks: [Look<'_>; 9] = [
            (&[("order", 1)], &[]),
            (&[("order", 1)], &["order"]),
            (&[("order", 1)], &[]),
            (&[("order", 2), ("report", 1)], &[]),
            // It is being written.
            (&[("order", 3), ("report", 1)], &["report"]),
            (&[("order", 3)], &["order"]),
            (&[], &[]),
            (&[("order", 3)], &[]),
            (&[("order", 3)], &["order"]),
        ];
        let mut files = Files::default();
        for (number, (found, expected)) in looks.into_iter().enumerate() {
            let stamp = |bytes: u64| Stamp { bytes, changed: None };
            let still = files.still(found.iter().map(|(file, bytes)| (file.into(), stamp(*bytes))).collect());
            still.iter().for_each(|file| files.taken(file, None));
            assert_eq!(still, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "look {number}");
        }
    }

    #[test]
    fn a_file_that_could_not_be_taken_is_taken_at_the_next_look() {
        let mut files = Files::default();
        let mut look = || files.still(vec![("order".into(), Stamp { bytes: 1, changed: None })]);
        assert_eq!([look().len(), look().len(), look().len()], [0, 1, 1]);
    }
}
