//! The databases of one service: which of them queries ask after a start, and which is being built.

use std::path::PathBuf;
use std::sync::Arc;

use super::ProjectionsError;
use super::database::{Database, Writer, is_passing};
use super::files::{self, Name};
use super::tables::{Beginning, Role};
use crate::contract::ReadModel;
use crate::deployed::Components;
use crate::model::{Digest, Position, ServiceName};
use crate::runtime::Component;

/// Where the databases of a service are.
pub(super) struct Shelf {
    pub(super) dir: PathBuf,
    pub(super) service: ServiceName,
}

/// A database that can be used by whoever has its read model.
struct Found {
    name: Name,
    writer: Writer,
}

/// A database, and the connection that fills it.
pub(super) struct Opened {
    pub(super) database: Arc<Database>,
    pub(super) writer: Writer,
}

/// Databases of a service with the components that they belong to.
pub(super) struct Pair {
    /// What queries ask: of the deployed component, or of the one before it until the deployed one's is built.
    pub(super) live: (Component, Opened),
    /// What is to take its place.
    pub(super) building: Option<(Component, Opened)>,
}

impl Shelf {
    /// Opens what there is for a read model of the deployed component, or makes what there must be. Of the other files only
    /// one is kept: that of the version before. `head`: of the log; a database that is ahead of it is of no use. `fresh`: the
    /// least generation of one that must be made; none that is still asked may have it.
    pub(super) async fn open(
        &self,
        deployed: &Component,
        model: &ReadModel,
        head: Position,
        fresh: u32,
        past: &Components,
    ) -> Result<Pair, ProjectionsError> {
        let digest = deployed.digest();
        let (mut own, others): (Vec<_>, Vec<_>) =
            self.find(head)?.into_iter().partition(|found| found.is_of(model));
        let live = own.iter().position(|found| found.writer.role == Role::Live).map(|at| own.remove(at));
        let (mut before, given_up): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|found| found.writer.role != Role::Building);
        before.sort_by_key(|found| found.writer.position);
        let last = before.pop();
        let pair = match live {
            Some(live) => {
                let newer = |found: &Found| found.writer.role == Role::Building && found.name > live.name;
                let building = own.iter().position(newer).map(|at| own.remove(at));
                let building = building.map(|found| self.take(found, model, Role::Building, digest));
                let building = building.transpose()?.map(|opened| (deployed.clone(), opened));
                Pair { live: (deployed.clone(), self.take(live, model, Role::Live, digest)?), building }
            }
            None => {
                let last = match last {
                    Some(last) => self.last(last, past).await?,
                    None => None,
                };
                let role = if last.is_some() { Role::Building } else { Role::Live };
                let opened = match own.is_empty() {
                    true => self.make(model, role, digest, fresh, Beginning::default())?,
                    false => self.take(own.remove(0), model, role, digest)?,
                };
                let deployed = (deployed.clone(), opened);
                match last {
                    Some(live) => Pair { live, building: Some(deployed) },
                    None => Pair { live: deployed, building: None },
                }
            }
        };
        for useless in own.into_iter().chain(before).chain(given_up) {
            self.remove(useless.name)?;
        }
        Ok(pair)
    }

    /// Opens the live database of a read model, or makes it; looks at no other version.
    pub(super) fn open_alone(
        &self,
        component: Digest,
        model: &ReadModel,
        head: Position,
    ) -> Result<Opened, ProjectionsError> {
        let found = self.find(head)?.into_iter().find(|found| found.is_of(model));
        match found {
            Some(found) => self.take(found, model, Role::Live, component),
            None => self.make(model, Role::Live, component, 0, Beginning::default()),
        }
    }

    /// Makes an empty database, of a generation that no other file has.
    pub(super) fn make(
        &self,
        model: &ReadModel,
        role: Role,
        component: Digest,
        fresh: u32,
        beginning: Beginning,
    ) -> Result<Opened, ProjectionsError> {
        let names = self.names()?;
        let used = names.iter().filter(|name| name.version == model.version);
        let generation = used.map(|name| name.generation + 1).max().unwrap_or(0).max(fresh);
        let name = Name { version: model.version, generation };
        let file = name.path(&self.dir, self.service.as_str());
        let writer = Writer::new(&file, &self.service, model, role, component, beginning)?;
        Ok(Opened { database: Database::new(file, name, model, &writer), writer })
    }

    /// Opens the database of a read model to go on with it where it ends; makes it if it is not there.
    pub(super) fn build(
        &self,
        model: &ReadModel,
        component: Digest,
        head: Position,
    ) -> Result<Opened, ProjectionsError> {
        let kept = |found: &Found| found.is_of(model) && found.writer.role == Role::Kept;
        match self.find(head)?.into_iter().find(kept) {
            Some(found) => self.take(found, model, Role::Building, component),
            None => self.make(model, Role::Building, component, 0, Beginning::default()),
        }
    }

    /// Removes all databases but these.
    pub(super) fn retain(&self, needed: &[Name]) -> Result<(), ProjectionsError> {
        let mut names = self.names()?.into_iter().filter(|name| !needed.contains(name));
        names.try_for_each(|name| self.remove(name))
    }

    /// The databases that say what they are, the newest first. Those that do not are removed.
    fn find(&self, head: Position) -> Result<Vec<Found>, ProjectionsError> {
        let mut usable = Vec::new();
        for name in self.names()? {
            let file = name.path(&self.dir, self.service.as_str());
            match Writer::existing(&file, head) {
                Ok(Some(writer)) => usable.push(Found { name, writer }),
                // To make it anew would be no better.
                Err(source) if source.sqlite_error_code().is_some_and(is_passing) => {
                    return Err(ProjectionsError::Database { file, source });
                }
                found => {
                    let error = found.err().map(tracing::field::display);
                    tracing::info!(file = %file.display(), error, "a read database is of no use and removed");
                    self.remove(name)?;
                }
            }
        }
        Ok(usable)
    }

    /// The version that queries asked last, if its component can still be had; if not, it is removed.
    async fn last(
        &self,
        found: Found,
        past: &Components,
    ) -> Result<Option<(Component, Opened)>, ProjectionsError> {
        let digest = found.writer.component;
        let component = past.get(digest).await;
        if let Err(error) = &component {
            let service = &self.service;
            tracing::warn!(%service, %error, "nobody can answer from the old read model until the new one is built");
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
        Ok(Opened { database: Database::new(file, name, model, &writer), writer })
    }

    fn names(&self) -> Result<Vec<Name>, ProjectionsError> {
        files::names(&self.dir, self.service.as_str()).map_err(|source| self.unusable(source))
    }

    fn remove(&self, name: Name) -> Result<(), ProjectionsError> {
        files::remove(&name.path(&self.dir, self.service.as_str())).map_err(|source| self.unusable(source))
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
