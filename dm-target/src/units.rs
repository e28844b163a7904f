//! Positions, lengths and numbers used across the crate: the workspace's own units and block-device numbers.
//!
//! Always holds: a device number is shown and parsed as tables have it.

use std::fmt;
use std::str::FromStr;

pub use ftdm_units::{Era, Extent, SECTOR_SIZE, Sector, Sectors};

/// The number of a block device; shown and parsed as `MAJOR:MINOR`, as tables have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNum {
    /// Driver.
    pub major: u32,
    /// Device of that driver.
    pub minor: u32,
}

impl DevNum {
    /// From the `st_rdev` of a device node.
    #[must_use]
    pub fn from_rdev(rdev: u64) -> Self {
        let number = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap_or(u32::MAX);
        Self { major: number(nix::sys::stat::major(rdev)), minor: number(nix::sys::stat::minor(rdev)) }
    }

    /// From what `struct dm_ioctl` carries.
    #[must_use]
    pub fn decoded(encoded: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX);
        Self {
            major: low((encoded >> 8) & 0xfff),
            minor: low((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00)),
        }
    }

    /// As `struct dm_ioctl` carries it (the kernel's `huge_encode_dev`).
    #[must_use]
    pub fn encoded(self) -> u64 {
        u64::from((self.minor & 0xff) | (self.major << 8)) | (u64::from(self.minor & !0xff) << 12)
    }
}

impl fmt::Display for DevNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A text that is not `MAJOR:MINOR`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device number: expected MAJOR:MINOR")]
pub struct DevNumError(pub String);

impl FromStr for DevNum {
    type Err = DevNumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed =
            text.split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = parsed.ok_or_else(|| DevNumError(text.to_owned()))?;
        Ok(Self { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(DevNum { major: 254, minor: 3 }.encoded(), 0xfe03);
        assert_eq!(DevNum { major: 254, minor: 0x1_2345 }.encoded(), 0x1230_fe45);
        for number in [DevNum { major: 254, minor: 3 }, DevNum { major: 254, minor: 0xf_2345 }] {
            assert_eq!(DevNum::decoded(number.encoded()), number);
        }
        assert_eq!("254:3".parse(), Ok(DevNum { major: 254, minor: 3 }));
        assert!("254".parse::<DevNum>().is_err());
        assert!("254:x".parse::<DevNum>().is_err());
    }
}
