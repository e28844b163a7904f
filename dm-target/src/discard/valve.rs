//! The way of discards to the volume, its opening and its closing.
//!
//! Always holds: once [`Valve::shut`] has returned, no discard that was not on its way before reaches the
//! volume; once [`Valve::wait`] has said so, none does.
//!
//! The way is a device of its own, the *outlet*: linear, over dm-era, used by the daemon alone. A limit that was
//! lowered to 0 is lowered for good on later kernels (seen on 7.2): with it they forget the granularity, and refuse
//! every figure that is not a multiple of it. Only a table made live sets a device's limits up again, and that on
//! every kernel. The outlet can be given one at any time; dm-era, which carries the guest's I/O, cannot, and the
//! volume is not ours. So their limits are left alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::block_io::{sysfs, write_attribute};
use crate::ioctl::DmControl;
use crate::pause;
use crate::pause::stillness::Stillness;
use crate::units::{DevNum, Sectors};

/// How long a discard in flight is waited for before the guest's writers run again all the same. A volume
/// that takes longer does not answer the guest either; one that never answers must not hold it for good.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// When waiting is said in the log.
const NOTICEABLE: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);

/// The largest discard that a device takes: `queue/discard_max_bytes`.
#[derive(Debug)]
pub(crate) struct Limit {
    max: File,
    /// The same for writing, or why the kernel does not have it written: that matters only once it has to be changed.
    writer: io::Result<File>,
    hardware: File,
    granularity: File,
    alignment: File,
}

impl Limit {
    pub(crate) fn open(device: DevNum) -> io::Result<Self> {
        let folder = sysfs(device);
        let open = |name: &str| File::open(folder.join(name));
        Ok(Self {
            max: open("queue/discard_max_bytes")?,
            writer: File::options().write(true).open(folder.join("queue/discard_max_bytes")),
            hardware: open("queue/discard_max_hw_bytes")?,
            granularity: open("queue/discard_granularity")?,
            alignment: open("discard_alignment")?,
        })
    }

    /// What it is, in bytes.
    pub(crate) fn get(&self) -> io::Result<u64> {
        number(&self.max)
    }

    /// Lowers it to 0 where it is not, and reads it back.
    pub(crate) fn shut(&self) -> io::Result<()> {
        if self.get()? == 0 {
            return Ok(());
        }
        self.set(0)?;
        if self.get()? == 0 { Ok(()) } else { Err(io::Error::other("discard_max_bytes does not go to 0")) }
    }

    fn set(&self, bytes: u64) -> io::Result<()> {
        write_attribute(self.writable()?, &bytes.to_string())
    }

    /// Whether it can be changed at all.
    fn writable(&self) -> io::Result<&File> {
        self.writer.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))
    }

    /// Raises it as far as the device goes, if it is at 0. Returns whether it takes discards then.
    ///
    /// # Errors
    /// The kernel's: later ones do not raise a limit that was lowered to 0.
    pub(crate) fn raise(&self) -> io::Result<bool> {
        if self.get()? == 0 {
            let most = highest(number(&self.hardware)?, number(&self.granularity)?);
            if most > 0 {
                self.set(most)?;
            }
        }
        Ok(self.get()? > 0)
    }

    /// In bytes: what a discard has to be made of to have an effect, and where the first such unit begins.
    pub(crate) fn granule(&self) -> io::Result<(u64, u64)> {
        Ok((number(&self.granularity)?, number(&self.alignment)?))
    }
}

/// The highest limit that the kernel takes for a device: 32 bits, and whole units.
fn highest(hardware: u64, granularity: u64) -> u64 {
    let most = hardware.min(u32::MAX.into());
    most - most.checked_rem(granularity).unwrap_or(0)
}

fn number(file: &File) -> io::Result<u64> {
    let mut text = [0; 32];
    let len = file.read_at(&mut text, 0)?;
    let word = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim().parse().ok());
    word.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The only way of discards below the gate; or, where none are passed, dm-era's own refusal.
#[derive(Debug)]
pub(crate) struct Valve {
    limit: Limit,
    outlet: Option<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    number: DevNum,
    size: Sectors,
    control: DmControl,
    flight: Stillness,
}

impl Valve {
    /// Opens what shutting takes. A stack without an outlet never lets discards through: there dm-era's own limit
    /// is kept at 0. Else `outlet` is that device, of this size.
    pub(crate) fn open(era: DevNum, outlet: Option<DevNum>, size: Sectors) -> io::Result<Self> {
        let limit = Limit::open(outlet.unwrap_or(era))?;
        let open = |number| {
            let (control, flight) = (DmControl::open()?, Stillness::open(number)?);
            io::Result::Ok(Outlet { number, size, control, flight })
        };
        Ok(Self { limit, outlet: outlet.map(open).transpose()? })
    }

    /// What the outlet takes.
    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// From now on every discard is refused.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.limit.shut()
    }

    /// Lets discards through to dm-era, if they can be shut off again. Returns whether that takes any.
    pub(crate) fn let_through(&mut self, era: DevNum) -> io::Result<bool> {
        let Some(outlet) = &mut self.outlet else { return Ok(false) };
        self.limit.writable()?;
        outlet.point_at("linear", &format!("{era} 0"))?;
        Ok(self.limit.get()? > 0)
    }

    /// Lets discards through, shuts them off, and lets them through again, as captures and their ends do: does this
    /// kernel? They are shut off in the end. Returns whether the volume takes any.
    pub(crate) fn rehearse(&mut self, era: DevNum) -> io::Result<bool> {
        let takes = self.let_through(era)?;
        self.shut()?;
        if takes && !self.let_through(era)? {
            return Err(io::Error::other("discards that were shut off once are not let through again"));
        }
        self.shut()?;
        Ok(takes)
    }

    /// Waits until no discard is in flight, and none can be any more; discards are to be shut off, and the visible
    /// device to be suspended. Returns whether that was reached in [`PATIENCE`]; where there is no outlet, whether dm-era
    /// refuses them.
    pub(crate) fn wait(&mut self) -> bool {
        let Some(outlet) = &mut self.outlet else { return self.limit.get().is_ok_and(|most| most == 0) };
        let began = Instant::now();
        let mut said = false;
        // One that cannot be asked cannot be waited for either.
        while outlet.flight.writes_in_flight().is_ok_and(|n| n > 0) {
            if began.elapsed() > PATIENCE {
                log::error!(
                    "a discard has been in flight for {PATIENCE:?}: the volume goes on without waiting"
                );
                return false;
            }
            if !said && began.elapsed() > NOTICEABLE {
                said = true;
                log::warn!("the volume waits for a discard in flight, {PATIENCE:?} at most");
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        // One that had passed the limit and was not counted yet is waited for here, or fails.
        if let Err(e) = outlet.point_at("error", "") {
            log::error!("taking the discards' way to the volume off it: {e}");
            return false;
        }
        true
    }
}

impl Outlet {
    fn point_at(&mut self, target: &str, parameters: &str) -> io::Result<()> {
        pause::replace(&mut self.control, self.number, self.size, target, parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_to_what_the_kernel_can_read() {
        assert_eq!(highest(1 << 30, 512), 1 << 30);
        // An NVMe disk's, in 32 bits of sectors; a thin pool of 64 KiB chunks over it.
        let nvme = u64::from(u32::MAX) * 512;
        assert_eq!(highest(nvme, 512), (1 << 32) - 512);
        assert_eq!(highest(nvme, 65536), (1 << 32) - 65536);
        assert_eq!(highest(1 << 20, 0), 1 << 20);
        assert_eq!(highest(0, 4096), 0);
    }
}
