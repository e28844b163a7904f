//! The limits that let discards through to the volume, and their closing.
//!
//! Always holds: once [`Valve::shut`] has returned, no discard that was not in flight before reaches the
//! volume; once [`Valve::wait`] has said so, none is in flight.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::block_io::sysfs;
use crate::pause::stillness::Stillness;
use crate::units::DevNum;

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
    hardware: File,
    granularity: File,
    alignment: File,
}

impl Limit {
    pub(crate) fn open(device: DevNum) -> io::Result<Self> {
        let folder = sysfs(device);
        let open = |name: &str| File::open(folder.join(name));
        Ok(Self {
            max: File::options().read(true).write(true).open(folder.join("queue/discard_max_bytes"))?,
            hardware: open("queue/discard_max_hw_bytes")?,
            granularity: open("queue/discard_granularity")?,
            alignment: open("discard_alignment")?,
        })
    }

    /// What it is, in bytes.
    pub(crate) fn get(&self) -> io::Result<u64> {
        number(&self.max)
    }

    /// Lowers it to 0, and reads it back.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.max.write_all_at(b"0", 0)?;
        if self.get()? == 0 { Ok(()) } else { Err(io::Error::other("discard_max_bytes does not go to 0")) }
    }

    /// Raises it as far as the device goes. Returns whether it takes discards then.
    pub(crate) fn raise(&self) -> io::Result<bool> {
        let most = number(&self.hardware)?;
        if most > 0 && self.get()? == 0 {
            self.max.write_all_at(most.to_string().as_bytes(), 0)?;
        }
        Ok(self.get()? > 0)
    }

    /// In bytes: what a discard has to be made of to have an effect, and where the first such unit begins.
    pub(crate) fn granule(&self) -> io::Result<(u64, u64)> {
        Ok((number(&self.granularity)?, number(&self.alignment)?))
    }
}

fn number(file: &File) -> io::Result<u64> {
    let mut text = [0; 32];
    let len = file.read_at(&mut text, 0)?;
    let word = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim().parse().ok());
    word.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Everything on a discard's way below the gate.
#[derive(Debug)]
pub(crate) struct Valve {
    limits: Vec<Limit>,
    flights: Vec<Stillness>,
}

impl Valve {
    /// Opens what shutting takes. A stack without a gate never lets discards through: there only dm-era's own
    /// limit is kept at 0.
    pub(crate) fn open(era: DevNum, origin: DevNum, has_gate: bool) -> io::Result<Self> {
        let mut valve = Self { limits: vec![Limit::open(era)?], flights: Vec::new() };
        if has_gate {
            // A partition has no queue of its own: dm-era alone refuses there.
            match Limit::open(origin) {
                Ok(limit) => valve.limits.push(limit),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            valve.flights = vec![Stillness::open(era)?, Stillness::open_as_it_is(origin)?];
        }
        Ok(valve)
    }

    /// From now on every discard is refused.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.limits.iter().try_for_each(Limit::shut)
    }

    /// Waits until no discard is in flight; the visible device is to be suspended. Returns whether that was
    /// reached in [`PATIENCE`].
    pub(crate) fn wait(&self) -> bool {
        let began = Instant::now();
        let mut said = false;
        // One that cannot be asked cannot be waited for either.
        while self.flights.iter().any(|flight| flight.writes_in_flight().is_ok_and(|n| n > 0)) {
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
        true
    }
}
