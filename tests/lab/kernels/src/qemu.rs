//! The emulator for hosts that are virtual machines: whether it is here, and new enough.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::output;
use crate::registers::series;

/// The emulator, and the firmware: the small one that knows nothing but the direct start of a kernel.
pub const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";
/// See [`PROGRAM`].
pub const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";

/// The first version that takes a datagram socket as a network.
const OLDEST: (u32, u32) = (7, 2);

/// Checks the emulator; returns its version.
///
/// # Errors
/// When it is missing or too old, with what to install.
pub fn check() -> Result<String> {
    for path in [PROGRAM, FIRMWARE] {
        if !Path::new(path).exists() {
            bail!("{path} is missing: install the Debian package qemu-system-x86 (7.2 or newer)");
        }
    }
    version(&output(Command::new(PROGRAM).arg("--version"))?)
}

fn version(said: &str) -> Result<String> {
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let version = version.with_context(|| format!("{PROGRAM} does not tell its version"))?;
    if series(version).is_none_or(|version| version < OLDEST) {
        bail!("{PROGRAM} is version {version}: install 7.2 or newer");
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_emulator_is_refused() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright\n").unwrap(), "7.2.22");
        assert_eq!(version("QEMU emulator version 10.0.0").unwrap(), "10.0.0");
        assert!(version("QEMU emulator version 7.1.0").is_err());
        assert!(version("something else").is_err());
    }
}
