//! Running commands in a host: frames over a byte stream between the driver and a small agent.
//!
//! [`guest`] is the agent's side, [`channel`] the driver's. What must hold: commands run side by
//! side on one channel, their arguments, input and output are bytes that arrive as they were, and
//! every command ends with exactly one exit code, also when its host dies.

pub mod channel;
pub mod frame;
pub mod guest;
pub mod window;
