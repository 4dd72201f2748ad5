//! The list of all of them.

use kontor_sdk::{db, prelude::*};

use crate::aggregate::{ServiceName, ServiceNameEvent, ServiceNameView};

use ServiceNameEvent::*;

/// Raise the version when the tables or what is written to them change: the host then builds them anew.
pub(crate) fn all() -> ReadModel {
    ReadModel::new(1, include_str!("read_model.sql")).follow(ServiceName::NAME, project)
}

fn project(event: &RecordedEvent, change: ServiceNameEvent) -> Result<(), SqlError> {
    let id = &event.aggregate_id;
    match change {
        ServiceNameOpened { title } => {
            db::execute("INSERT INTO entries VALUES (?1, ?2, FALSE)", params![id, title])
        }
        ServiceNameClosed {} => db::execute("UPDATE entries SET closed = TRUE WHERE id = ?1", params![id]),
    }?;
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    #[serde(default = "Page::limit")]
    #[schemars(range(min = 1, max = 200))]
    limit: u32,
}

impl Page {
    fn limit() -> u32 {
        50
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Entries {
    items: Vec<ServiceNameView>,
    /// The `after` of the next page; null on the last one.
    next: Option<String>,
}

pub(crate) fn list(page: Page) -> Result<Entries, Failure> {
    let mut items: Vec<ServiceNameView> = db::query(
        "SELECT * FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2",
        params![page.after, page.limit + 1],
    )?;
    let more = items.len() > page.limit as usize;
    items.truncate(page.limit as usize);
    let next = items.last().filter(|_| more).map(|entry| entry.id.clone());
    Ok(Entries { items, next })
}
