//! The primary's data path: the stack of stock device-mapper targets that ftdm builds over a
//! logical volume, the capture of every write that passes it, and the cut that ends an epoch
//! with content that is exact.
//!
//! Always holds: nothing here prints or exits, `unsafe` is confined to [`ioctl`], and on every
//! path out of a cut, panics included, the visible device is resumed.

pub mod block_io;
pub mod capture;
pub mod cut;
pub mod discard;
pub mod era;
pub mod fault;
pub mod fold;
pub mod ioctl;
pub mod kernel_gate;
pub mod log_writes;
pub mod mangle;
pub mod name;
pub mod pause;
pub mod stack;
pub mod table;
pub mod units;
