//! Which socket an event of the loop belongs to.
//!
//! Always holds: no two sockets have the same token.

use mio::Token;

/// The listening socket.
pub const LISTENER: Token = Token(0);
/// The connection to the peer.
pub const PEER: Token = Token(1);
/// Another thread wakes the loop.
pub const WAKER: Token = Token(2);
/// The control socket.
pub const CONTROL: Token = Token(3);
/// A connection that a primary accepted.
pub const VISITOR: Token = Token(4);
/// The first of the connections in their handshake, [`ARRIVALS`] of them.
pub const FIRST_ARRIVAL: usize = 16;
/// Most connections in their handshake at a time.
pub const ARRIVALS: usize = 32;
/// The first client of the control socket.
pub const FIRST_CLIENT: usize = FIRST_ARRIVAL + ARRIVALS;
