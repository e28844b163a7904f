//! Any command of device-mapper, for the command line: the device by name, UUID or number, the kernel's own error,
//! answers of any length. The `devicemapper` crate has no minor numbers, no geometry, no cookies of others, tries a
//! removal again by itself and takes no name that is not UTF-8.
//!
//! Always holds: nothing but what the kernel filled in is read from an answer; a name or UUID that is too long is refused,
//! never cut.

use std::io;

use nix::errno::Errno;

use super::{
    Command, DATA_SIZE, DATA_START, DEV, DmControl, EVENT, FLAGS, HEADER, NAME, OPEN_COUNT, SPEC,
    SPEC_LENGTH, SPEC_TYPE, SPEC_TYPE_LEN, TARGET_COUNT, UUID, UUID_END, VERSION, flags,
};
use crate::units::DevNum;

/// The longest name in bytes; a byte that ends it is not counted.
pub const MAX_NAME: usize = 127;
/// The longest UUID.
pub const MAX_UUID: usize = 128;
/// Room for an answer at first. It doubles until the answer fits.
const ROOM: usize = 16 * 1024;
const MOST_ROOM: usize = 1 << 30;

/// Where the kernel finds a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// By name, as the kernel has it.
    pub name: Vec<u8>,
    /// By UUID, as the kernel has it.
    pub uuid: Vec<u8>,
    /// By number; of a new device: the number that it is to get.
    pub number: Option<DevNum>,
}

/// A command.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// Of which device.
    pub address: Address,
    /// See [`flags`].
    pub flags: u32,
    /// The event to wait for, or the cookie.
    pub event: u32,
    /// How many lines of a table follow.
    pub targets: u32,
    /// What follows.
    pub payload: &'a [u8],
}

/// What the kernel answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Version of the interface.
    pub version: [u32; 3],
    /// See [`flags`].
    pub flags: u32,
    /// The device's number.
    pub number: DevNum,
    /// The device's name.
    pub name: Vec<u8>,
    /// The device's UUID.
    pub uuid: Vec<u8>,
    /// How many hold it open. Negative if that was not asked.
    pub open_count: i32,
    /// The number of its last event.
    pub event: u32,
    /// Lines of its live table.
    pub targets: u32,
    /// What follows.
    pub data: Vec<u8>,
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// First sector.
    pub start: u64,
    /// Sectors.
    pub len: u64,
    /// Name of the target.
    pub kind: Vec<u8>,
    /// Its parameters, or its status.
    pub parameters: Vec<u8>,
}

/// An entry of the list of devices or targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name of a device, as the kernel has it, or of a target.
    pub name: Vec<u8>,
    /// The number of a device.
    pub number: DevNum,
    /// The version of a target.
    pub version: [u32; 3],
}

impl DmControl {
    /// Carries a command out.
    ///
    /// # Errors
    /// The kernel's; `ENAMETOOLONG` for a name or UUID that does not fit.
    pub fn exchange(&mut self, command: Command, request: &Request<'_>) -> Result<Reply, Errno> {
        let Address { name, uuid, number } = &request.address;
        if name.len() > MAX_NAME || uuid.len() > MAX_UUID {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut room = ROOM.max(HEADER + request.payload.len() + 1);
        loop {
            let mut buffer = vec![0; room];
            let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
            put(VERSION, &4u32.to_ne_bytes());
            put(DATA_SIZE, &u32::try_from(room).unwrap_or(u32::MAX).to_ne_bytes());
            put(DATA_START, &u32::try_from(HEADER).unwrap_or(u32::MAX).to_ne_bytes());
            put(TARGET_COUNT, &request.targets.to_ne_bytes());
            put(FLAGS, &request.flags.to_ne_bytes());
            put(EVENT, &request.event.to_ne_bytes());
            put(DEV, &number.map_or(0, DevNum::encoded).to_ne_bytes());
            put(NAME, name);
            put(UUID, uuid);
            put(HEADER, request.payload);
            super::command(&self.control, command, &mut buffer)?;
            let reply = Reply::read(&buffer).ok_or(Errno::EBADMSG)?;
            if reply.flags & flags::BUFFER_FULL == 0 || room >= MOST_ROOM {
                return Ok(reply);
            }
            room *= 2;
        }
    }

    /// Carries out a command that concerns no device, or only the one at this address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(&mut self, command: Command, address: Address, flags: u32) -> Result<Reply, Errno> {
        self.exchange(command, &Request { address, flags, ..Request::default() })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Up to the first zero byte.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

impl Reply {
    fn read(buffer: &[u8]) -> Option<Self> {
        let end = usize::try_from(u32_at(buffer, DATA_SIZE)?).ok()?.min(buffer.len());
        let start = usize::try_from(u32_at(buffer, DATA_START)?).ok()?.min(end);
        Some(Self {
            version: [u32_at(buffer, VERSION)?, u32_at(buffer, VERSION + 4)?, u32_at(buffer, VERSION + 8)?],
            flags: u32_at(buffer, FLAGS)?,
            number: DevNum::decoded(u64_at(buffer, DEV)?),
            name: text(&buffer[NAME..UUID]),
            uuid: text(&buffer[UUID..UUID_END]),
            open_count: u32_at(buffer, OPEN_COUNT)?.cast_signed(),
            event: u32_at(buffer, EVENT)?,
            targets: u32_at(buffer, TARGET_COUNT)?,
            data: buffer[start.max(HEADER).min(end)..end].to_vec(),
        })
    }

    /// The lines of a table, or of a status.
    ///
    /// # Errors
    /// `InvalidData` when they are cut short.
    pub fn table(&self) -> io::Result<Vec<Target>> {
        let mut lines = Vec::new();
        let mut at = 0;
        for _ in 0..self.targets {
            let line = self.data.get(at..).filter(|line| line.len() > SPEC).ok_or_else(super::malformed)?;
            let (start, len) = (u64_at(line, 0), u64_at(line, SPEC_LENGTH));
            let (start, len) = start.zip(len).ok_or_else(super::malformed)?;
            let kind = text(&line[SPEC_TYPE..SPEC_TYPE + SPEC_TYPE_LEN]);
            lines.push(Target { start, len, kind, parameters: text(&line[SPEC..]) });
            // Counted from the first line, not from this one.
            at = u32_at(line, 20).and_then(|next| usize::try_from(next).ok()).ok_or_else(super::malformed)?;
        }
        Ok(lines)
    }

    /// The numbers of the devices that a table uses.
    #[must_use]
    pub fn uses(&self) -> Vec<DevNum> {
        let count = u32_at(&self.data, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        (0..count).map_while(|n| u64_at(&self.data, 8 + 8 * n)).map(DevNum::decoded).collect()
    }

    /// The devices that there are.
    #[must_use]
    pub fn devices(&self) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut at = 0;
        while let (Some(dev), Some(next)) = (u64_at(&self.data, at), u32_at(&self.data, at + 8)) {
            let name = text(&self.data[at + 12..]);
            if name.is_empty() {
                break;
            }
            found.push(Listed { name, number: DevNum::decoded(dev), version: [0; 3] });
            if next == 0 {
                break;
            }
            at += usize::try_from(next).unwrap_or(usize::MAX / 2);
        }
        found
    }

    /// The targets that the kernel has.
    #[must_use]
    pub fn versions(&self) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(next) = u32_at(&self.data, at) {
            let version = [4, 8, 12].map(|offset| u32_at(&self.data, at + offset).unwrap_or(0));
            let name = self.data.get(at + 16..).map(text).unwrap_or_default();
            if name.is_empty() {
                break;
            }
            found.push(Listed { name, number: DevNum::default(), version });
            if next == 0 {
                break;
            }
            at += usize::try_from(next).unwrap_or(usize::MAX / 2);
        }
        found
    }
}

/// A table as the kernel takes it. `None` when the name of a target is too long for it.
#[must_use]
pub fn packed(table: &[Target]) -> Option<Vec<u8>> {
    let mut packed = Vec::new();
    for line in table {
        if line.kind.len() >= SPEC_TYPE_LEN {
            return None;
        }
        let len = (SPEC + line.parameters.len() + 1).next_multiple_of(8);
        let mut spec = vec![0; len];
        spec[..8].copy_from_slice(&line.start.to_ne_bytes());
        spec[SPEC_LENGTH..SPEC_LENGTH + 8].copy_from_slice(&line.len.to_ne_bytes());
        spec[20..24].copy_from_slice(&u32::try_from(len).ok()?.to_ne_bytes());
        spec[SPEC_TYPE..SPEC_TYPE + line.kind.len()].copy_from_slice(&line.kind);
        spec[SPEC..SPEC + line.parameters.len()].copy_from_slice(&line.parameters);
        packed.extend(spec);
    }
    Some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(start: u64, kind: &str, parameters: &str) -> Target {
        Target { start, len: 8, kind: kind.into(), parameters: parameters.into() }
    }

    #[test]
    fn a_table_that_is_packed_is_read_back() {
        let table = [line(0, "linear", "1:0 0"), line(8, "zero", ""), line(16, "error", "1234567")];
        let mut data = packed(&table).unwrap();
        // The kernel counts from the first line.
        let mut at = 0;
        for _ in 0..3 {
            let next = at + usize::try_from(u32_at(&data, at + 20).unwrap()).unwrap();
            data[at + 20..at + 24].copy_from_slice(&u32::try_from(next).unwrap().to_ne_bytes());
            at = next;
        }
        let reply = Reply { targets: 3, data, ..Reply::default() };
        assert_eq!(reply.table().unwrap(), table);
        let cut = Reply { data: reply.data[..60].to_vec(), ..reply };
        assert!(cut.table().is_err());
        assert_eq!(packed(&[line(0, "a-name-of-16-chr", "")]), None);
    }

    #[test]
    fn lists_that_are_cut_short_end_there() {
        let mut data = Vec::new();
        for (name, next) in [("a", 24u32), ("bb", 0)] {
            let mut entry = vec![0; 24];
            entry[..8].copy_from_slice(&0xfe03u64.to_ne_bytes());
            entry[8..12].copy_from_slice(&next.to_ne_bytes());
            entry[12..12 + name.len()].copy_from_slice(name.as_bytes());
            data.extend(entry);
        }
        let reply = Reply { data, ..Reply::default() };
        let names: Vec<_> = reply.devices().into_iter().map(|d| (d.name, d.number.minor)).collect();
        assert_eq!(names, [(b"a".to_vec(), 3), (b"bb".to_vec(), 3)]);
        let cut = Reply { data: reply.data[..24].to_vec(), ..Reply::default() };
        assert_eq!(cut.devices().len(), 1);
        assert_eq!(Reply::default().devices(), []);
        assert_eq!(Reply::default().uses(), []);
    }
}
