//! Relays the vhost-user messages from a host's kernel to the disk's server, and mends one kind.
//!
//! User-mode-linux sends `SET_MEM_TABLE` with room for two regions though it fills in one, which the
//! vhost crate rightly refuses. The relay shortens that message to what it says it contains; all
//! else passes as it is, descriptors included. Requests to the disk do not go this way: they are in
//! the memory that host and server share.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Request, flags and payload length, 32 bits each, little endian here.
const HEADER: usize = 12;
const SET_MEM_TABLE: u32 = 5;
/// The payload of `SET_MEM_TABLE`: the number of regions (u32), padding (u32), and the regions.
const TABLE_HEADER: usize = 8;
const REGION: usize = 32;
/// No message is longer.
const MOST: usize = 4096;
/// No message carries more descriptors.
const MOST_DESCRIPTORS: usize = 32;

/// Relays between `host` and `server` until either ends.
pub(super) fn relay(host: UnixStream, server: UnixStream) {
    if let (Ok(mut replies), Ok(mut to_host)) = (server.try_clone(), host.try_clone()) {
        let answers = thread::spawn(move || {
            // Ends with the connection.
            let _ = io::copy(&mut replies, &mut to_host);
        });
        while matches!(pass_on(&host, &server), Ok(true)) {}
        // Both ends may be gone already.
        let _ = server.shutdown(Shutdown::Both);
        let _ = host.shutdown(Shutdown::Both);
        let _ = answers.join();
    }
}

/// Passes one message on; `false` when there are no more.
fn pass_on(mut host: &UnixStream, server: &UnixStream) -> io::Result<bool> {
    let mut message = vec![0; HEADER];
    let (count, descriptors) = receive(host, &mut message)?;
    let result = (|| {
        if count == 0 {
            return Ok(false);
        }
        host.read_exact(&mut message[count..])?;
        let length = usize::try_from(word(&message, 8)).unwrap_or(MOST + 1);
        if length > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an oversized vhost-user message"));
        }
        message.resize(HEADER + length, 0);
        host.read_exact(&mut message[HEADER..])?;
        shorten_table(&mut message);
        let sent = sendmsg::<()>(
            server.as_raw_fd(),
            &[IoSlice::new(&message)],
            &[ControlMessage::ScmRights(&descriptors)][..usize::from(!descriptors.is_empty())],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // Messages are far smaller than a socket's buffer, so they are not split.
        Ok(sent == message.len())
    })();
    for descriptor in descriptors {
        // Ours is only a copy.
        let _ = nix::unistd::close(descriptor);
    }
    result
}

fn receive(host: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<RawFd>)> {
    let mut space = cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(host.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(received);
        }
    }
    Ok((received.bytes, descriptors))
}

fn word(message: &[u8], at: usize) -> u32 {
    message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Cuts what follows the regions that a memory table says it has.
fn shorten_table(message: &mut Vec<u8>) {
    if word(message, 0) != SET_MEM_TABLE || message.len() < HEADER + TABLE_HEADER {
        return;
    }
    let regions = usize::try_from(word(message, HEADER)).unwrap_or(usize::MAX);
    let length = TABLE_HEADER.saturating_add(regions.saturating_mul(REGION));
    if let (true, Ok(size)) = (HEADER + length < message.len(), u32::try_from(length)) {
        message.truncate(HEADER + length);
        message[8..12].copy_from_slice(&size.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(regions: u32, room: usize) -> Vec<u8> {
        let size = u32::try_from(TABLE_HEADER + room * REGION).unwrap();
        let mut message = [SET_MEM_TABLE, 1, size, regions, 0].map(u32::to_le_bytes).concat();
        message.resize(HEADER + TABLE_HEADER + room * REGION, 7);
        message
    }

    #[test]
    fn a_table_with_too_much_room_is_shortened() {
        let mut message = table(1, 2);
        shorten_table(&mut message);
        assert_eq!(message, table(1, 1));
    }

    #[test]
    fn everything_else_stays() {
        for mut message in [table(2, 2), table(3, 2), table(u32::MAX, 1), vec![5, 0, 0, 0], vec![4; 84]] {
            let before = message.clone();
            shorten_table(&mut message);
            assert_eq!(message, before);
        }
    }
}
