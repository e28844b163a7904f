//! The connection between the two hosts: the listener, the peer, and TLS.
//!
//! Always holds: nothing of a peer reaches a role before the peer has proven who it is.

pub mod door;
pub mod host;
mod path;
pub mod peer;
pub mod tls;
pub(crate) mod visitor;
