//! Grace periods of RCU that do not wait for the timer, for as long as a pause lasts.
//!
//! A suspend waits twice for a grace period of SRCU, for those who are submitting I/O. The kernel hurries the first one at
//! most. It ends the other at ticks of its timer, 4 ms each on a kernel of 250 Hz: 14 ms on an idle Linux 6.1, and 36 us with
//! `/sys/kernel/rcu_expedited`. Source: `__dm_suspend` in `dm.c`, `srcu_get_delay` in `srcutree.c`.
//!
//! Always holds: a system that has the setting on keeps it on; one that has it off has it off again when the pause is gone,
//! or when a rescue ends it in place of a process that stopped; a kernel without the setting, or one that refuses it, has
//! longer pauses and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

const SETTING: &str = "/sys/kernel/rcu_expedited";

/// Opened once, before the first pause. `None`: the kernel has no such setting.
static FILE: OnceLock<Option<File>> = OnceLock::new();

fn file() -> Option<&'static File> {
    let open = || {
        let opened = File::options().read(true).write(true).open(SETTING);
        opened
            .inspect_err(|e| log::info!("{SETTING}: {e}; pauses take as long as the kernel's timer has them"))
            .ok()
    };
    FILE.get_or_init(open).as_ref()
}

fn is_on(file: &File) -> io::Result<bool> {
    let mut value = [0; 16];
    let length = file.read_at(&mut value, 0)?;
    Ok(value[..length].trim_ascii() != b"0")
}

/// Grace periods are short until this goes.
#[derive(Debug)]
pub(super) struct Expedited(Option<&'static File>);

impl Expedited {
    /// Makes them short, unless they are. Another process that pauses may end it early: then this pause takes longer.
    pub(super) fn begin() -> Self {
        let ours = file().filter(|file| is_on(file).is_ok_and(|on| !on) && file.write_at(b"1", 0).is_ok());
        Self(ours)
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(file) = self.0
            && let Err(e) = file.write_at(b"0", 0)
        {
            log::warn!("{SETTING}: setting it back: {e}");
        }
    }
}

/// What the setting was before any pause of a process that is watched.
#[derive(Debug)]
pub(crate) struct Found {
    is_on: bool,
}

impl Found {
    /// Looks, and opens what [`put_back`](Self::put_back) needs.
    pub(crate) fn look() -> Self {
        Self { is_on: file().is_some_and(|file| is_on(file).unwrap_or(true)) }
    }

    /// Sets back what a process left that stopped in its pause.
    pub(crate) fn put_back(&self) {
        let Some(file) = file().filter(|_| !self.is_on) else { return };
        if let Err(e) = file.write_at(b"0", 0) {
            log::warn!("{SETTING}: setting it back: {e}");
        }
    }
}
