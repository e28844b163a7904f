//! The targets, one module each: how an input is read, and what must hold.

mod config;
mod control;
mod dm_text;
mod epoch;
mod era_metadata;
mod log_writes;
mod message;
mod pins;
mod recovery;
mod rolls;
mod session;
mod slots;
mod tlv;
mod wire;

use crate::Target;

/// All of them.
pub const TARGETS: [Target; 14] = [
    config::TARGET,
    control::TARGET,
    dm_text::TARGET,
    epoch::TARGET,
    era_metadata::TARGET,
    log_writes::TARGET,
    message::TARGET,
    pins::TARGET,
    recovery::TARGET,
    rolls::TARGET,
    session::TARGET,
    slots::TARGET,
    tlv::TARGET,
    wire::TARGET,
];
