//! Pages of the events that a caller asks for and may see.

use std::collections::HashSet;
use std::sync::Arc;

use crate::api::{Event, EventsQuery, Page};
use crate::log::{EventLog, MAX_PAGE, MAX_PAGE_BYTES, ReadError, more_may_follow};
use crate::model::{AggregateName, Position, Recorded, StreamId, Version};

/// Maximum number of events that are read for one page of JSON. A page of rare events ends early.
const MAX_READ: usize = 10 * MAX_PAGE;

/// The selected events.
pub(super) struct Selected {
    pub(super) query: EventsQuery,
    /// The aggregates whose events may be seen. `None`: all.
    pub(super) aggregates: Option<HashSet<AggregateName>>,
}

impl Selected {
    pub(super) fn admits(&self, event: &Recorded) -> bool {
        let aggregate = event.stream.aggregate();
        self.query.admits(event) && self.aggregates.as_ref().is_none_or(|known| known.contains(aggregate))
    }

    /// Returns the selected events after a position: at most `limit`, and not many more bytes than
    /// [`MAX_PAGE_BYTES`].
    pub(super) async fn page(
        &self,
        log: &Arc<dyn EventLog>,
        after: Position,
        limit: usize,
    ) -> Result<Page<Event, Position>, ReadError> {
        let mut past = self.past(log, after).await?;
        if self.is_unfiltered() {
            past.page = limit.min(MAX_PAGE);
        }
        let (mut items, mut read, mut bytes) = (Vec::new(), 0, 0);
        while past.has_more {
            let events = past.next().await?;
            read += events.len();
            let mut last = None;
            for event in events {
                last = Some(event.position);
                if self.admits(&event) {
                    bytes += event.payload.as_str().len();
                    items.push(Event::from(&event));
                }
                if items.len() >= limit || bytes >= MAX_PAGE_BYTES {
                    return Ok(Page { items, next: last });
                }
            }
            if read >= MAX_READ && past.has_more {
                return Ok(Page { items, next: last });
            }
        }
        Ok(Page { items, next: None })
    }

    /// Returns the events after a position, up to the end of the log as it is now.
    pub(super) async fn past(&self, log: &Arc<dyn EventLog>, after: Position) -> Result<Past, ReadError> {
        let place = match &self.query.stream {
            Some(stream) => Place::Stream(stream.clone(), version_at(&**log, stream, after).await?),
            None => Place::Log(after),
        };
        Ok(Past { log: log.clone(), place, page: MAX_PAGE, end: *log.head().borrow(), has_more: true })
    }

    fn is_unfiltered(&self) -> bool {
        let EventsQuery { aggregate, service, event, correlation, .. } = &self.query;
        let named = aggregate.is_some() || service.is_some() || event.is_some() || correlation.is_some();
        self.aggregates.is_none() && !named
    }
}

/// Recorded events, page by page.
pub(super) struct Past {
    log: Arc<dyn EventLog>,
    place: Place,
    /// Maximum number of events on a page.
    page: usize,
    /// The position of the last event to read.
    pub(super) end: Position,
    /// False once all are read.
    pub(super) has_more: bool,
}

/// The place behind which a page begins.
enum Place {
    Log(Position),
    Stream(StreamId, Version),
}

impl Past {
    /// Returns the next events. Empty if there are none.
    pub(super) async fn next(&mut self) -> Result<Vec<Recorded>, ReadError> {
        let mut page = match &self.place {
            Place::Log(after) => self.log.read_all(*after, self.page).await?,
            Place::Stream(stream, after) => self.log.read(stream, *after, self.page).await?,
        };
        self.has_more =
            more_may_follow(&page, self.page) && page.iter().all(|event| event.position <= self.end);
        page.retain(|event| event.position <= self.end);
        if let Some(last) = page.last() {
            match &mut self.place {
                Place::Log(after) => *after = last.position,
                Place::Stream(_, after) => *after = last.version,
            }
        }
        Ok(page)
    }
}

/// Returns the version that a stream had at a position, by binary search.
async fn version_at(log: &dyn EventLog, stream: &StreamId, position: Position) -> Result<Version, ReadError> {
    let is_by_then = async |version: u64| -> Result<bool, ReadError> {
        let event = log.read(stream, Version::new(version - 1), 1).await?;
        Ok(event.first().is_some_and(|event| event.position <= position))
    };
    let (mut version, mut step) = (0, 1);
    while position > Position::START && is_by_then(version + step).await? {
        version += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if is_by_then(version + step).await? {
            version += step;
        }
    }
    Ok(Version::new(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Append, EmbeddedLog};
    use crate::model::{Json, Meta, NewEvent};

    /// Returns a log in which the events of two streams take turns, each with its own correlation id.
    async fn log(dir: &std::path::Path, events: u64) -> Arc<dyn EventLog> {
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(dir).unwrap());
        for number in 0..events {
            let stream = StreamId::new(["order", "product"][number as usize % 2], "a").unwrap();
            let name = if number % 10 == 0 { "tenth" } else { "other" };
            let events = vec![NewEvent { name: name.into(), payload: Json::empty_object() }];
            let meta = Meta { correlation_id: format!("c-{number}").into(), ..Meta::default() }.into();
            let append = Append { events, meta, ..Append::nothing(stream, Version::new(number / 2)) };
            log.append(vec![append]).await.unwrap();
        }
        log
    }

    #[tokio::test]
    async fn pages_have_the_selected_events_and_go_on_behind_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 30).await;
        let page = async |query: EventsQuery, aggregates: Option<&str>, after: u64, limit: usize| {
            let aggregates = aggregates.map(|name| HashSet::from([name.into()]));
            let selected = Selected { query, aggregates };
            let page = selected.page(&log, Position::new(after), limit).await.unwrap();
            let positions: Vec<_> = page.items.iter().map(|event| event.position.get()).collect();
            (positions, page.next.map(Position::get))
        };
        let all = EventsQuery::default;
        let order = || Some(StreamId::new("order", "a").unwrap());
        assert_eq!(page(all(), None, 27, 9).await, (vec![28, 29, 30], None));
        assert_eq!(page(all(), None, 27, 2).await, (vec![28, 29], Some(29)));
        assert_eq!(page(all(), Some("product"), 0, 2).await, (vec![2, 4], Some(4)));
        assert_eq!(
            page(EventsQuery { stream: order(), ..all() }, None, 12, 3).await,
            (vec![13, 15, 17], Some(17))
        );
        assert_eq!(page(EventsQuery { stream: order(), ..all() }, None, 29, 3).await, (vec![], None));
        assert_eq!(
            page(EventsQuery { stream: order(), ..all() }, Some("product"), 0, 3).await,
            (vec![], None)
        );
        assert_eq!(
            page(EventsQuery { event: Some("tenth".into()), ..all() }, None, 1, 9).await,
            (vec![11, 21], None)
        );
        let correlation = Some("c-6".into());
        assert_eq!(page(EventsQuery { correlation, ..all() }, None, 0, 9).await, (vec![7], None));
        let aggregate = Some("order".into());
        assert_eq!(page(EventsQuery { aggregate, ..all() }, None, 25, 9).await, (vec![27, 29], None));
    }

    #[tokio::test]
    async fn the_version_of_a_stream_at_a_position_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 21).await;
        let order = StreamId::new("order", "a").unwrap();
        for (position, version) in [(0, 0), (1, 1), (2, 1), (3, 2), (8, 4), (20, 10), (21, 11), (99, 11)] {
            assert_eq!(
                version_at(&*log, &order, Position::new(position)).await.unwrap().get(),
                version,
                "{position}"
            );
        }
        let none = StreamId::new("order", "none").unwrap();
        assert_eq!(version_at(&*log, &none, Position::new(9)).await.unwrap(), Version::START);
    }
}
