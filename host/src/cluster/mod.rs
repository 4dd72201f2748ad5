//! The cluster: the hosts that share one log, the ownership of sagas, and the connection to NATS.

mod connection;
mod heartbeats;
mod members;
mod options;

pub use connection::{Connection, NatsError};
pub(crate) use members::Lease;
pub use members::{Cluster, Member, MemberState, ObservedMember, Status, id_of};
pub use options::{InvalidNatsUrl, Nats, NatsUrl, UrlFileError};
