//! The services that events belong to. They follow from the log: an event belongs to the service of the
//! component that decided it, whether the service still runs or not.

use std::collections::HashMap;

use crate::deployed::{self, HistoryError};
use crate::log::{EventLog, MAX_PAGE};
use crate::model::{Digest, Recorded, ServiceName, Version};

/// The owner of the host's own streams: sagas and deployments.
const HOST: &str = "kontor";

/// The services by the digests of their components.
pub(super) struct Owners {
    host: ServiceName,
    by_digest: HashMap<Digest, ServiceName>,
    /// The version up to which the stream of deployments has been read.
    version: Version,
}

impl Default for Owners {
    fn default() -> Self {
        Self { host: HOST.into(), by_digest: HashMap::new(), version: Version::START }
    }
}

impl Owners {
    /// Returns the service of an event. A component is recorded in the log before the events that it decides.
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
        // Without a stream of deployments, as in tests, no services are known.
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
