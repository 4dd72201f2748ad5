//! The list of all entries.

use kontor_sdk::{db, prelude::*};

use crate::aggregate::{ServiceName, ServiceNameEvent, ServiceNameView};

/// Raise the version when the tables or their rows change: the host then rebuilds them.
pub(crate) fn all() -> ReadModel {
    ReadModel::new(1, include_str!("read_model.sql")).follow(ServiceName::NAME, project)
}

fn project(event: &RecordedEvent, change: ServiceNameEvent) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    match change {
        ServiceNameEvent::ServiceNameOpened { title } => {
            db::execute("INSERT INTO entries VALUES (?1, ?2, FALSE)", params![id, title])
        }
        ServiceNameEvent::ServiceNameClosed {} => {
            db::execute("UPDATE entries SET closed = TRUE WHERE id = ?1", params![id])
        }
    }?;
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: PageLimit,
}

impl Query for List {
    const NAME: &str = "list";
    const DESCRIPTION: &str = "All entries in the order of their ids.";
    type Answer = Page<ServiceNameView>;

    fn answer(self) -> Result<Page<ServiceNameView>, Error> {
        let rows = db::query(
            "SELECT * FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2",
            params![self.after, self.limit.rows()],
        )?;
        Ok(Page::new(rows, self.limit, |entry: &ServiceNameView| entry.id.clone()))
    }
}
