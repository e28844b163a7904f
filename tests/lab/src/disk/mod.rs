//! The hosts' disks: image files served over vhost-user, with a volatile write cache.
//!
//! [`overlay`] is the cache, [`vhost`] the device a host sees. What must hold: a disk outlives its
//! host, and a power cut loses nothing that the host had flushed.

mod handshake;
mod image;
pub mod overlay;
pub mod vhost;
