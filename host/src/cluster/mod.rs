//! The hosts that share one log, which of them owns what, and the connection to NATS.

mod connection;
mod members;
mod options;

pub use connection::{Connection, NatsError};
pub(crate) use members::Lease;
pub use members::{Cluster, Member, MemberState, ObservedMember, Status, id_of};
pub use options::{InvalidNatsUrl, Nats, NatsUrl};
