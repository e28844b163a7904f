//! dm-era's metadata, as far as ftdm reads it: pure parsers, no I/O.

pub mod size;
pub mod status;
pub mod superblock;
