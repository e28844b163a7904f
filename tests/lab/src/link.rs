//! The network link between the two hosts: a pair of datagram sockets, one frame per datagram.
//!
//! The hosts' kernels send to each other directly, nothing forwards in between. A pulled cable is a
//! socket filter that drops everything that arrives (the sender does not notice), set on the
//! driver's own descriptors of the same sockets. What must hold: a link that is down loses frames
//! silently in both directions, and nothing sent to a host that is off reaches it when it is on.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{Domain, SockFilter, Socket, Type};

/// How much may be on the way in each direction.
const BUFFER: usize = 4 << 20;

/// `BPF_RET | BPF_K`, 0 bytes: take nothing of any datagram.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// Both ends of the link.
#[derive(Debug)]
pub struct Link {
    ends: [Socket; 2],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    up: bool,
    /// Which hosts are on.
    on: [bool; 2],
}

impl Link {
    /// A link that is up between two hosts that are off.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn new() -> Result<Self> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::DGRAM, None).context("cannot make the link")?;
        for end in [&one, &other] {
            // Only root may exceed the machine's limit; for anybody else there is a smaller buffer.
            setsockopt(end, sockopt::SndBufForce, &BUFFER)
                .or_else(|_| setsockopt(end, sockopt::SndBuf, &BUFFER))
                .context("cannot set the link's buffer size")?;
        }
        let link = Link { ends: [one, other], state: Mutex::new(State { up: true, on: [false; 2] }) };
        link.apply(&link.state())?;
        Ok(link)
    }

    /// A descriptor of the end of host `index` for its kernel.
    ///
    /// # Errors
    /// When there are too many open descriptors.
    pub fn end(&self, index: usize) -> Result<OwnedFd> {
        self.ends[index].as_fd().try_clone_to_owned().context("cannot duplicate the link's end")
    }

    /// Pulls the cable, or plugs it in again.
    ///
    /// # Errors
    /// When the sockets refuse.
    pub fn set_up(&self, up: bool) -> Result<()> {
        let mut state = self.state();
        state.up = up;
        self.apply(&state)
    }

    /// Host `index` is switched on or off. Frames that waited for it are lost.
    ///
    /// # Errors
    /// When the sockets refuse.
    pub fn set_on(&self, index: usize, on: bool) -> Result<()> {
        let mut state = self.state();
        if on {
            self.drain(index)?;
        }
        state.on[index] = on;
        self.apply(&state)?;
        if !on {
            // Frames that nobody takes count as on their way, and would in the end block the other.
            self.drain(index)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, state: &State) -> Result<()> {
        for (end, on) in self.ends.iter().zip(state.on) {
            if on && state.up {
                match end.detach_filter() {
                    Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                    other => other.context("cannot take the filter off the link")?,
                }
            } else {
                end.attach_filter(&DROP_ALL).context("cannot put a filter on the link")?;
            }
        }
        Ok(())
    }

    fn drain(&self, index: usize) -> Result<()> {
        let mut datagram = [0; 1];
        loop {
            match recv(self.ends[index].as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("cannot drain the link"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrives(link: &Link, from: usize) -> bool {
        let to = 1 - from;
        link.ends[from].send(b"frame").unwrap();
        let mut datagram = [0; 8];
        recv(link.ends[to].as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT).is_ok()
    }

    #[test]
    fn frames_arrive_only_over_a_link_that_is_up_at_hosts_that_are_on() {
        let link = Link::new().unwrap();
        assert!(!arrives(&link, 0));
        link.set_on(0, true).unwrap();
        link.set_on(1, true).unwrap();
        assert!(arrives(&link, 0) && arrives(&link, 1));
        link.set_up(false).unwrap();
        assert!(!arrives(&link, 0) && !arrives(&link, 1));
        link.set_up(true).unwrap();
        assert!(arrives(&link, 0) && arrives(&link, 1));
    }

    #[test]
    fn frames_from_before_a_power_cut_do_not_arrive_after_it() {
        let link = Link::new().unwrap();
        link.set_on(0, true).unwrap();
        link.set_on(1, true).unwrap();
        link.ends[0].send(b"old").unwrap();
        link.set_on(1, false).unwrap();
        link.ends[0].send(b"sent to a host that is off").unwrap();
        link.set_on(1, true).unwrap();
        let mut datagram = [0; 8];
        assert_eq!(recv(link.ends[1].as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT), Err(Errno::EAGAIN));
    }
}
