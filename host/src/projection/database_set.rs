//! The databases of one service: the one that queries ask after a start, and the one that is being built.

use std::path::PathBuf;
use std::sync::Arc;

use super::ProjectionsError;
use super::database::{Database, Writer, is_transient};
use super::files::{self, Name};
use super::tables::{Beginning, Role};
use crate::contract::ReadModel;
use crate::deployed::Components;
use crate::error::Chain;
use crate::log::{EventLog, derived};
use crate::model::{Digest, ServiceName};
use crate::runtime::Component;

/// The databases of a service in their directory.
pub(super) struct DatabaseSet {
    pub(super) dir: PathBuf,
    pub(super) service: ServiceName,
    /// The largest size of each database in bytes.
    pub(super) max_bytes: u64,
}

/// A database that can be used for its read model.
struct Found {
    name: Name,
    writer: Writer,
}

/// A database, and the connection that fills it.
pub(super) struct Opened {
    pub(super) database: Arc<Database>,
    pub(super) writer: Writer,
}

/// The databases of a service that are filled, with the components that they belong to.
pub(super) struct LiveAndNext {
    /// The database that queries ask: of the deployed component, or of the one before it until the deployed
    /// one's is built.
    pub(super) live: (Component, Opened),
    /// The database that is being built and will replace it.
    pub(super) next: Option<(Component, Opened)>,
}

impl DatabaseSet {
    /// Opens the databases for a read model of the deployed component, and makes a missing one. Keeps only
    /// one of the other files: that of the version before. A database of another log, or ahead of this one,
    /// is removed. A database that is made has at least `min_generation`, which must be higher than that
    /// of any database that queries still ask.
    pub(super) async fn open(
        &self,
        deployed: &Component,
        model: &ReadModel,
        log: &dyn EventLog,
        min_generation: u32,
        past: &Components,
    ) -> Result<LiveAndNext, ProjectionsError> {
        let digest = deployed.digest();
        let (mut own, others): (Vec<_>, Vec<_>) =
            self.of_log(self.find()?, log).await?.into_iter().partition(|found| found.is_of(model));
        let live = own.iter().position(|found| found.writer.role == Role::Live).map(|at| own.remove(at));
        let (mut before, given_up): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|found| found.writer.role != Role::Building);
        before.sort_by_key(|found| found.writer.mark.position);
        let last = before.pop();
        let opened = match live {
            Some(live) => {
                let newer = |found: &Found| found.writer.role == Role::Building && found.name > live.name;
                let next = own.iter().position(newer).map(|at| own.remove(at));
                let next = next.map(|found| self.take(found, model, Role::Building, digest));
                let next = next.transpose()?.map(|opened| (deployed.clone(), opened));
                LiveAndNext { live: (deployed.clone(), self.take(live, model, Role::Live, digest)?), next }
            }
            None => {
                let last = match last {
                    Some(last) => self.open_last(last, past).await?,
                    None => None,
                };
                let role = if last.is_some() { Role::Building } else { Role::Live };
                let opened = match own.is_empty() {
                    true => self.make(model, role, digest, min_generation, Beginning::first(log))?,
                    false => self.take(own.remove(0), model, role, digest)?,
                };
                let deployed = (deployed.clone(), opened);
                match last {
                    Some(live) => LiveAndNext { live, next: Some(deployed) },
                    None => LiveAndNext { live: deployed, next: None },
                }
            }
        };
        for useless in own.into_iter().chain(before).chain(given_up) {
            self.remove(useless.name)?;
        }
        Ok(opened)
    }

    /// Opens the live database of a read model, or makes it, and leaves those of other versions alone.
    pub(super) fn open_live(&self, component: Digest, model: &ReadModel) -> Result<Opened, ProjectionsError> {
        let found = self.find()?.into_iter().find(|found| found.is_of(model));
        match found {
            Some(found) => self.take(found, model, Role::Live, component),
            None => self.make(model, Role::Live, component, Name::FIRST_GENERATION, Beginning::default()),
        }
    }

    /// Makes an empty database of a generation that no other file has.
    pub(super) fn make(
        &self,
        model: &ReadModel,
        role: Role,
        component: Digest,
        min_generation: u32,
        beginning: Beginning,
    ) -> Result<Opened, ProjectionsError> {
        let names = self.names()?;
        let used = names.iter().filter(|name| name.version == model.version);
        let generation = used.map(|name| name.generation + 1).max().unwrap_or(0).max(min_generation);
        let name = Name { version: model.version, generation };
        let file = name.path(&self.dir, self.service.as_str());
        let writer = Writer::new((&file, self.max_bytes), &self.service, model, role, component, beginning)?;
        Ok(Opened { database: Database::new((file, self.max_bytes), name, model, &writer), writer })
    }

    /// Opens the database of a read model to go on with it where it ends; makes it if it is not there.
    pub(super) fn build(
        &self,
        model: &ReadModel,
        component: Digest,
        log: &dyn EventLog,
    ) -> Result<Opened, ProjectionsError> {
        let kept = |found: &Found| found.is_of(model) && found.writer.role == Role::Kept;
        match self.find()?.into_iter().find(kept) {
            Some(found) => self.take(found, model, Role::Building, component),
            None => {
                self.make(model, Role::Building, component, Name::FIRST_GENERATION, Beginning::first(log))
            }
        }
    }

    /// Removes all databases but these.
    pub(super) fn retain(&self, needed: &[Name]) -> Result<(), ProjectionsError> {
        let mut names = self.names()?.into_iter().filter(|name| !needed.contains(name));
        names.try_for_each(|name| self.remove(name))
    }

    /// Returns the usable databases, the newest first. Removes the others.
    fn find(&self) -> Result<Vec<Found>, ProjectionsError> {
        let mut usable = Vec::new();
        for name in self.names()? {
            let file = name.path(&self.dir, self.service.as_str());
            match Writer::existing(&file, self.max_bytes) {
                Ok(Some(writer)) => usable.push(Found { name, writer }),
                // Recreating the database would not help.
                Err(source) if source.sqlite_error_code().is_some_and(is_transient) => {
                    return Err(ProjectionsError::Database { file, source });
                }
                found => {
                    let error = found.err().map(|error| Chain(&error).to_string());
                    tracing::info!(file = %file.display(), error, "removing an unusable read database");
                    self.remove(name)?;
                }
            }
        }
        Ok(usable)
    }

    /// Returns the databases whose events are in the log. Removes the others.
    async fn of_log(&self, found: Vec<Found>, log: &dyn EventLog) -> Result<Vec<Found>, ProjectionsError> {
        let mut of_log = Vec::new();
        for found in found {
            if log.contains(found.writer.mark).await? {
                of_log.push(found);
            } else {
                let file = found.name.path(&self.dir, self.service.as_str());
                tracing::warn!(
                    file = %file.display(),
                    position = found.writer.mark.position.get(),
                    "a read database has events that are not in this log; it is removed and filled again"
                );
                self.remove(found.name)?;
            }
        }
        Ok(of_log)
    }

    /// Opens the database that queries asked last, with its component. Removes it if the component cannot be
    /// loaded any more.
    async fn open_last(
        &self,
        found: Found,
        past: &Components,
    ) -> Result<Option<(Component, Opened)>, ProjectionsError> {
        let digest = found.writer.component;
        let component = past.get(digest).await;
        if let Err(error) = &component {
            let service = &self.service;
            tracing::warn!(
                %service,
                error = %Chain(error),
                "failed to load the old read model's component; queries see the new one while it is built"
            );
        }
        let component = component.ok();
        let model = component.as_ref().and_then(|component| component.manifest().read_model.clone());
        match component.zip(model) {
            Some((component, model)) if found.is_of(&model) => {
                Ok(Some((component, self.take(found, &model, Role::Live, digest)?)))
            }
            _ => {
                self.remove(found.name)?;
                Ok(None)
            }
        }
    }

    fn take(
        &self,
        found: Found,
        model: &ReadModel,
        role: Role,
        component: Digest,
    ) -> Result<Opened, ProjectionsError> {
        let Found { name, mut writer } = found;
        let file = name.path(&self.dir, self.service.as_str());
        if let Err(source) = writer.assign(role, component) {
            return Err(ProjectionsError::Database { file, source });
        }
        Ok(Opened { database: Database::new((file, self.max_bytes), name, model, &writer), writer })
    }

    fn names(&self) -> Result<Vec<Name>, ProjectionsError> {
        files::names(&self.dir, self.service.as_str()).map_err(|source| self.unusable(source))
    }

    fn remove(&self, name: Name) -> Result<(), ProjectionsError> {
        derived::remove(&name.path(&self.dir, self.service.as_str())).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: std::io::Error) -> ProjectionsError {
        ProjectionsError::Directory { dir: self.dir.clone(), source }
    }
}

impl Found {
    fn is_of(&self, model: &ReadModel) -> bool {
        self.name.version == model.version && self.writer.is_of(model)
    }
}
