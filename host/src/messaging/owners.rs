//! Which service an event belongs to. That follows from the log: it is the service of the component that decided it, whether
//! that still runs or not.

use std::collections::HashMap;

use crate::deployed::{self, HistoryError};
use crate::log::{EventLog, MAX_PAGE};
use crate::model::{Digest, Recorded, ServiceName, Version};

/// Whom the host's own streams belong to: sagas and deployments.
const HOST: &str = "kontor";

pub(super) struct Owners {
    host: ServiceName,
    by_digest: HashMap<Digest, ServiceName>,
    /// Of the stream of deployments: what has been read of it.
    version: Version,
}

impl Default for Owners {
    fn default() -> Self {
        Self { host: HOST.into(), by_digest: HashMap::new(), version: Version::START }
    }
}

impl Owners {
    /// The service of an event. A component stands in the log before all that it decides.
    pub(super) async fn of(
        &mut self,
        log: &dyn EventLog,
        event: &Recorded,
    ) -> Result<ServiceName, HistoryError> {
        let Some(digest) = event.meta.digest else {
            return Ok(self.host.clone());
        };
        if !self.by_digest.contains_key(&digest) {
            self.read_on(log).await?;
        }
        // A host without a stream of deployments, as tests have it, knows no services.
        Ok(self.by_digest.get(&digest).unwrap_or(&self.host).clone())
    }

    async fn read_on(&mut self, log: &dyn EventLog) -> Result<(), HistoryError> {
        loop {
            let releases = deployed::releases(log, self.version, MAX_PAGE).await?;
            let Some((last, _)) = releases.last() else {
                return Ok(());
            };
            self.version = *last;
            let services = releases.into_iter().flat_map(|(_, releases)| releases);
            self.by_digest.extend(services.map(|release| (release.digest, release.service)));
        }
    }
}
