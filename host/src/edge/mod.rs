//! Where the outside comes in. Wire types stay in here; further in there are only the types of [`crate::model`].

pub mod http;
