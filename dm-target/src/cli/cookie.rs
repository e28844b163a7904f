//! Working with udev: the cookie that the kernel hands to udev's rules with an event, which count down the semaphore
//! of that key when they are done.
//!
//! Always holds: a cookie that this program made is removed by it on every path; one that another made is counted up
//! and left to its maker to wait for; without udev nothing is waited for.

use std::path::Path;

use ftdm::ioctl::semaphore::{MAGIC, Semaphore};
use nix::errno::Errno;

/// Bits of the upper half of a cookie, which tell udev's rules what to leave out.
pub(crate) const DISABLE_DM_RULES: u32 = 1;
pub(crate) const DISABLE_SUBSYSTEM_RULES: u32 = 1 << 1;
pub(crate) const DISABLE_LIBRARY_FALLBACK: u32 = 1 << 5;
pub(crate) const PRIMARY_SOURCE: u32 = 1 << 6;

const TRIES: u32 = 10_000;

/// Whether udev is there to answer.
pub(crate) fn udev_runs() -> bool {
    std::env::var_os("DM_DISABLE_UDEV").is_none() && Path::new("/run/udev/control").exists()
}

/// How the command line wants udev.
#[derive(Clone, Debug)]
pub(crate) struct Udev {
    /// A cookie of another's.
    pub(crate) cookie: u32,
    /// udev is waited for.
    pub(crate) sync: bool,
    /// udev's rules make the nodes.
    pub(crate) rules: bool,
    /// Nodes are looked at after udev.
    pub(crate) verify: bool,
}

/// An event that udev is to deal with.
pub(crate) struct Event {
    /// For the kernel.
    pub(crate) number: u32,
    semaphore: Option<Semaphore>,
    /// To be waited for and removed here.
    own: bool,
}

impl Udev {
    /// Whether udev, and not this program, makes and removes nodes.
    pub(crate) fn makes_nodes(&self) -> bool {
        udev_runs() && self.rules && !self.verify
    }

    /// Begins an event. `flags` for udev's rules.
    pub(crate) fn begin(&self, flags: u32) -> Result<Event, String> {
        let mut flags = flags | PRIMARY_SOURCE;
        if !self.rules {
            flags |= DISABLE_DM_RULES | DISABLE_SUBSYSTEM_RULES;
        }
        if !self.verify {
            flags |= DISABLE_LIBRARY_FALLBACK;
        }
        if !self.sync || !udev_runs() {
            return Ok(Event { number: flags << 16, semaphore: None, own: false });
        }
        let (cookie, semaphore, own) = if self.cookie == 0 {
            let (cookie, semaphore) = create()?;
            (cookie, semaphore, true)
        } else {
            (self.cookie, find(self.cookie)?, false)
        };
        semaphore.count(1).map_err(|e| not_counted_up(cookie, e))?;
        Ok(Event { number: flags << 16 | cookie & 0xffff, semaphore: Some(semaphore), own })
    }
}

impl Event {
    /// The kernel has carried the command out, or not: `sent` says whether udev hears of it. Waits for udev.
    pub(crate) fn end(self, sent: bool) {
        let Some(semaphore) = self.semaphore else { return };
        if !sent {
            let _ = semaphore.count(-1);
        }
        if self.own {
            let waited = semaphore.count(-1).and_then(|()| semaphore.wait());
            let removed = semaphore.remove();
            if let Err(e) = waited.and(removed) {
                log::warn!("udev's cookie: {e}");
            }
        }
    }
}

fn not_counted_up(cookie: u32, error: Errno) -> String {
    let key = format!("{cookie} (0x{cookie:x})");
    format!("Failed to increment notification semaphore identified by cookie value {key}: {}", error.desc())
}

/// A new one.
pub(crate) fn create() -> Result<(u32, Semaphore), String> {
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|e| format!("Failed to create udev cookie: {e}"))?;
        let cookie = MAGIC << 16 | u32::from(u16::from_ne_bytes(random));
        match Semaphore::create(cookie) {
            Ok(semaphore) => return Ok((cookie, semaphore)),
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(format!("Failed to create notification semaphore: {}", e.desc())),
        }
    }
    Err("Failed to create notification semaphore: no free cookie".to_owned())
}

/// The semaphore of another's cookie.
pub(crate) fn find(cookie: u32) -> Result<Semaphore, String> {
    if cookie >> 16 != MAGIC {
        return Err(format!(
            "Could not continue to access notification semaphore identified by cookie value {cookie} (0x{cookie:x}). Incorrect cookie prefix."
        ));
    }
    Semaphore::find(cookie).map_err(|e| {
        let why = match e {
            Errno::ENOENT => "The semaphore has not been found".to_owned(),
            Errno::EACCES => "No permission to access notifications semaphore".to_owned(),
            other => other.desc().to_owned(),
        };
        format!("Failed to access notification semaphore identified by cookie value {cookie} (0x{cookie:x}). {why}")
    })
}
