//! STUB
pub struct EmbeddedLog;
pub struct EmbeddedOptions;
