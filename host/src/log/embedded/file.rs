//! The log's file as it is on disk: for whoever only reads, whether a host has it open or not.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{OpenError, last_position, read, schema};
use crate::log::readers::{self, Unreadable};
use crate::log::{MAX_PAGE, ReadError};
use crate::model::{Position, Recorded};

/// The events of a log, or of a copy of one. Keeps nobody from writing. Blocks the thread that reads.
pub struct LogFile {
    connection: Connection,
}

impl LogFile {
    /// Opens the file of the log in `dir`, which must be there.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file: PathBuf = schema::file(dir);
        if !file.exists() {
            return Err(OpenError::NoLog { dir: dir.to_owned() });
        }
        let failed = schema::failed(&file);
        let connection = readers::connect(&file).map_err(&failed)?;
        match schema::identify(&connection, &file, &failed)? {
            // A host is about to make it.
            true => Err(OpenError::NoLog { dir: dir.to_owned() }),
            false => Ok(Self { connection }),
        }
    }

    /// The position of the last event.
    pub fn head(&self) -> Result<Position, ReadError> {
        Ok(last_position(&self.connection).map_err(Unreadable::from)?)
    }

    /// Up to a page of events with a position above `after`, oldest first.
    pub fn read_all(&self, after: Position) -> Result<Vec<Recorded>, ReadError> {
        Ok(read::all(&self.connection, after, MAX_PAGE)?)
    }
}
