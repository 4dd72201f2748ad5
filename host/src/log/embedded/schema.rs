//! The log's file: its layout, and the checks when it is opened.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::answers;
use super::upgrade::{self, UpgradeError};
use crate::model::{AUDITED, Position};

/// The log's database, in the log's directory.
const FILE: &str = "events.db";

/// The file that is locked as long as the log is open. Not the database itself: a process loses SQLite's
/// locks when it closes any other handle of the database.
const LOCK: &str = "kontor.lock";

/// The id that distinguishes our files from other SQLite databases.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"Kntr");

/// The version of [`SCHEMA`]. Layout 1 has no hashes.
pub(super) const LAYOUT: i32 = 2;

/// A stream's version is the last one in the index on `(stream, version)`; a column for it would have to be
/// written with every append. Only the first event of a command has the metadata that all events of the
/// command share, so that the index on commands has one entry a command. The other events of the command have
/// the next versions, and `command_index` is the distance to the first one. The hash of the commit stands
/// with the first event too; there is no CHECK for it, because an upgraded log could not have it.
const SCHEMA: &str = "
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        version INTEGER NOT NULL,
        command_index INTEGER NOT NULL,
        name TEXT NOT NULL,
        payload TEXT NOT NULL,
        command_id TEXT,
        meta TEXT,
        hash BLOB,
        UNIQUE (stream, version),
        CHECK ((command_index = 0) = (command_id IS NOT NULL AND meta IS NOT NULL))
    ) STRICT;
    CREATE UNIQUE INDEX events_command ON events (stream, command_id) WHERE command_id IS NOT NULL;
";

/// The name of the index of the events that may record acts of operators.
pub(super) const ACTS: &str = "events_acts";

/// The writer's page cache in KiB, which holds the inner pages of the indexes of some ten million events. Not
/// larger, because SQLite searches all of it at the end of a transaction that has divided a page of an index.
const WRITER_CACHE_KIB: i32 = 32 * 1_024;

/// The number of pages in the WAL at which a commit does a checkpoint itself: 64 MB. Under a steady load the
/// checkpoint thread never quite catches up, and only a checkpoint between two commits lets the WAL start
/// over. This limits its size, and so the time of a recovery.
const BACKSTOP_PAGES: i32 = 16_384;

/// The reasons why the log cannot be opened. Each message says how an operator can solve the problem.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the log open.
    #[error("{} is in use by another process: stop that one, or choose another directory", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The directory has no log to read.
    #[error("{} holds no event log: name the data directory of a host", dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is not one of Kontor.
    #[error("{} is not an event log of Kontor: move it away, or choose another directory", file.display())]
    NotALog {
        /// The file.
        file: PathBuf,
    },
    /// A newer version of Kontor has written the file.
    #[error(
        "{} was written by a newer version of Kontor (layout {found}, this one knows {LAYOUT}): \
         use that version",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The version of its layout.
        found: i32,
    },
    /// An older version of Kontor has written the file, and it is opened only for reading.
    #[error(
        "{} was written by an older version of Kontor (layout {found}, this one knows {LAYOUT}): start a \
         host on it once, which upgrades it",
        file.display()
    )]
    Older {
        /// The file.
        file: PathBuf,
        /// The version of its layout.
        found: i32,
    },
    /// The log of an older version cannot be upgraded.
    #[error("{} cannot be upgraded to layout {LAYOUT}; it is as it was", file.display())]
    Upgrade {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: UpgradeError,
    },
    /// The file system has no support for a write-ahead log.
    #[error(
        "{} cannot hold a database with a write-ahead log: choose a directory on a local disk",
        file.display()
    )]
    NoWal {
        /// The file.
        file: PathBuf,
    },
    /// The directory holds the copy of a stream, and an embedded log was asked for.
    #[error(
        "{} is a copy of another log ({source_name}): set `log` in the configuration as it was, or choose \
         another directory",
        dir.display()
    )]
    Copy {
        /// The directory.
        dir: PathBuf,
        /// The stream that is copied.
        source_name: String,
    },
    /// The directory holds something other than a copy of the wanted stream.
    #[error(
        "{} holds {holds}, so it cannot become a copy of {wanted}: choose an empty directory", dir.display()
    )]
    NotACopy {
        /// The directory.
        dir: PathBuf,
        /// A phrase for its content.
        holds: String,
        /// The stream to copy.
        wanted: String,
    },
    /// The directory cannot be created, locked or written to.
    #[error("{} cannot be used as a data directory", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// SQLite cannot open the file.
    #[error("{} cannot be opened", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
}

/// Returns the path of the database in the log's directory.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Creates the directory if it does not exist, and syncs its parent so that it outlives a power cut.
pub(super) fn make_directory(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Locks the directory against other processes until the file is closed.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    let file =
        File::options().create(true).write(true).truncate(false).open(dir.join(LOCK)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// The time at which a commit is on disk.
#[derive(Clone, Copy)]
pub(super) enum Durability {
    /// When it returns.
    EveryCommit,
    /// At the next checkpoint. A power cut loses the commits since the last one, each completely.
    EveryCheckpoint,
}

/// Opens the database, and creates it if it does not exist. Returns its file and the writer's connection.
pub(super) fn open(dir: &Path, durability: Durability) -> Result<(PathBuf, Connection), OpenError> {
    let file = file(dir);
    let failed = failed(&file);
    let connection = connect(&file, durability).map_err(&failed)?;
    let layout = identify(&connection, &file, &failed)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(&failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { file });
    }
    match layout {
        Layout::None => create(&connection).map_err(&failed)?,
        Layout::Current => {}
        Layout::Older(_) => {
            upgrade::add_hashes(&connection)
                .map_err(|source| OpenError::Upgrade { file: file.clone(), source })?;
        }
    }
    index_acts(&connection).map_err(&failed)?;
    answers::create(&connection).map_err(&failed)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(&failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", BACKSTOP_PAGES).map_err(&failed)?;
    Ok((file, connection))
}

/// Returns the conversion of SQLite's errors about a file.
pub(super) fn failed(file: &Path) -> impl Fn(rusqlite::Error) -> OpenError + use<> {
    let file = file.to_owned();
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotALog { file: file.clone() },
        _ => OpenError::Database { file: file.clone(), source },
    }
}

/// Opens a connection that can write.
pub(super) fn connect(file: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    let synchronous = match durability {
        Durability::EveryCommit => "full",
        Durability::EveryCheckpoint => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

/// The layout of a file that is ours.
pub(super) enum Layout {
    /// The file is new.
    None,
    /// The file must be upgraded. Its layout is this one.
    Older(i32),
    /// The file has the layout of this version.
    Current,
}

/// Refuses files that are not ours, before anything is written to them.
pub(super) fn identify(
    connection: &Connection,
    file: &Path,
    failed: impl Fn(rusqlite::Error) -> OpenError,
) -> Result<Layout, OpenError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).map_err(&failed);
    let application = number("PRAGMA application_id")?;
    let layout = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, layout) {
        (0, 0) if objects == 0 => Ok(Layout::None),
        (APPLICATION_ID, LAYOUT) => Ok(Layout::Current),
        (APPLICATION_ID, found @ 1..LAYOUT) => Ok(Layout::Older(found)),
        (APPLICATION_ID, found) if found > LAYOUT => Err(OpenError::Newer { file: file.to_owned(), found }),
        _ => Err(OpenError::NotALog { file: file.to_owned() }),
    }
}

/// Returns the condition on the column of an event's name that the index of acts has. An aggregate of a
/// service may have events with these names too, and they are in the index. A chain of comparisons, because
/// SQLite builds a table for a long list each time it writes an event.
pub(super) fn names_of_acts(column: &str) -> String {
    let names = AUDITED.map(|(_, name, _)| format!("{column} = '{name}'"));
    names.join(" OR ")
}

/// Creates the index of acts if the file has none, or one of other events. It is no part of the layout: a
/// version of Kontor that does not know it keeps it up to date all the same.
fn index_acts(connection: &Connection) -> rusqlite::Result<()> {
    let wanted = format!("CREATE INDEX {ACTS} ON events (position) WHERE {}", names_of_acts("name"));
    let found = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1";
    let found: Option<String> = connection.query_row(found, [ACTS], |row| row.get(0)).optional()?;
    if found.as_ref() != Some(&wanted) {
        let events = super::last_position(connection)?;
        if events > Position::START {
            tracing::info!(events = events.get(), "adding the index of acts to the event log, once");
        }
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(&format!("DROP INDEX IF EXISTS {ACTS}; {wanted}"))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Creates the whole layout in one transaction.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()
}
