//! Whether a user-mode-linux needs help with this processor's registers, and how it gets it.
//!
//! See the package `ftdm-lab-xstate`, which is the help.

use std::ffi::OsStr;

use anyhow::{Result, bail};
use raw_cpuid::CpuId;

/// Bytes of registers for which user-mode-linux before [`FIXED`] has room.
const ROOM: u32 = 2696;

/// The first release that asks the machine how many there are.
const FIXED: (u32, u32) = (6, 13);

/// The library, as cargo names it: among the lab's programs.
pub const LIBRARY: &str = "libftdm_lab_xstate.so";

/// `force` makes every kernel of a release that may need help get it, and leaves a component of the registers out:
/// the way to try it on a machine that needs none.
pub const WISH: &str = "LAB_XSTATE";

/// What a kernel gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// It knows this machine's registers.
    None,
    /// The library.
    Library,
    /// The library, which pretends that there is something to do.
    Tried,
}

impl Help {
    /// What a kernel of this release gets on a machine with `area` bytes of registers.
    ///
    /// # Errors
    /// When `wish`, the value of [`WISH`], is an unknown one.
    pub fn wanted(release: &str, area: u32, wish: Option<&OsStr>) -> Result<Self> {
        let forced = match wish {
            None => false,
            Some(wish) if wish == "force" => true,
            Some(wish) => bail!("${WISH}={}: only `force` is known", wish.to_string_lossy()),
        };
        if series(release).is_some_and(|series| series >= FIXED) {
            return Ok(Help::None);
        }
        Ok(if area > ROOM {
            Help::Library
        } else if forced {
            Help::Tried
        } else {
            Help::None
        })
    }

    /// Words of the kernel's environment; the library is in the folder `programs` where it runs.
    #[must_use]
    pub fn environment(self, programs: &str) -> Vec<String> {
        let library = format!("LD_PRELOAD={programs}/{LIBRARY}");
        match self {
            Help::None => Vec::new(),
            Help::Library => vec![library],
            Help::Tried => vec![library, "FTDM_XSTATE_CUT=1".to_owned()],
        }
    }
}

/// Bytes of this machine's register area, as its kernel takes it; 0 where the processor has none.
#[must_use]
pub fn area() -> u32 {
    CpuId::new().get_extended_state_info().map_or(0, |leaf| leaf.xsave_area_size_enabled_features())
}

/// Major and minor number of a release.
#[must_use]
pub(crate) fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|one: char| !one.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(release: &str, area: u32, wish: Option<&str>) -> Help {
        Help::wanted(release, area, wish.map(OsStr::new)).unwrap()
    }

    #[test]
    fn an_old_kernel_on_a_new_processor_gets_help() {
        assert_eq!(wanted("6.1.176", 11_008, None), Help::Library);
        assert_eq!(wanted("6.12.113", 2704, Some("force")), Help::Library);
        assert_eq!(wanted("6.13.0", 11_008, None), Help::None);
        assert_eq!(wanted("7.2.7", 11_008, Some("force")), Help::None);
        assert_eq!(wanted("6.1.176", 2696, None), Help::None);
        assert_eq!(wanted("6.1.176", 0, None), Help::None);
        assert_eq!(wanted("6.1.176", 2440, Some("force")), Help::Tried);
        // A release that says nothing may be an old one.
        assert_eq!(wanted("custom", 11_008, None), Help::Library);
        assert!(Help::wanted("6.1", 0, Some(OsStr::new("yes"))).is_err());
    }

    #[test]
    fn help_is_in_the_kernel_s_environment() {
        assert!(Help::None.environment("/lab/bin").is_empty());
        assert_eq!(Help::Library.environment("/lab/bin"), ["LD_PRELOAD=/lab/bin/libftdm_lab_xstate.so"]);
        assert_eq!(Help::Tried.environment("/lab/bin").len(), 2);
    }

    #[test]
    fn this_processor_has_registers() {
        let area = area();
        assert!(area == 0 || (576..65536).contains(&area), "{area}");
    }
}
