//! Exports the log to a file and imports it: a backup that any tool can read, and the migration from one kind
//! of log to the other. Checks both.

mod export;
mod format;
mod import;
mod verify;

pub use export::{ExportError, export};
pub use format::{FormatError, Summary};
pub use import::{Destination, ImportError, Imported, check, import};
pub use verify::{Damage, Verified, VerifyError, verify_export, verify_log};
