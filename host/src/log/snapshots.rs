//! STUB
pub struct Snapshot;
pub struct Snapshots;
