//! Whether a kernel has the fixes that dm-era needs: a pure judgement of its release. And the oldest kernel that has
//! what ftdm asks for, which no other place says.
//!
//! Always holds: what is not known to be fixed is refused. What can be tried is tried where it is used ([`crate::stack`]
//! says which and when); what is judged here cannot be: the faults show only after a crash, and not each time.
//!
//! [`OLDEST`] is the first series with `queue/stable_writes`, without which a page may change between the copy that
//! goes to the log and the one that goes to the disk. Not required, and missed before [`NUMBERS_DISKS`]: `diskseq`.
//!
//! The fixes, by the release that had them first:
//!
//! | fix | without it | upstream |
//! |---|---|---|
//! | `dm era: Recover committed writeset after crash` | a power cut loses the current era: changed blocks are never reported | 5.12 |
//! | `dm era: Update in-core bitset after committing the metadata` | a write may reach the disk before its mark does | 5.12 |
//! | `dm era: Reinitialize bitset cache before digesting a new writeset` | one era's bits are digested as another's | 5.12 |
//! | `dm era: Use correct value size in equality function of writeset tree` | metadata is damaged | 5.12 |
//! | `dm era: Verify the data block size hasn't changed` | marks are read with another granule | 5.12 |
//! | `dm era: Fix bitset memory leaks`, `dm era: only resize metadata in preresume` | leaks; sizes change under a live table | 5.12 |
//! | `dm era: commit metadata in postsuspend after worker stops` | metadata is changed after the last commit | 5.19 |
//!
//! The first seven went into the stable series of March 2021 (up to 5.11.3), the last into those of June 2022, which is
//! why it decides for every series that was still alive then.
//!
//! Checked against the stable kernels' own announcements and review lists: 5.10.20 for the first seven; 5.10.127 and
//! 5.15.51 for the last. The others (5.11.3; 5.18.8) are of the same days and were not looked up.

use std::fmt;

/// The last of the fixes; who has it has all.
const LAST: &str = "dm era: commit metadata in postsuspend after worker stops";
/// One of the first seven, the one that loses data.
const FIRST: &str = "dm era: Recover committed writeset after crash";

/// First upstream series that was born with all fixes.
const BORN_WITH_LAST: Version = Version { series: (5, 19), patch: 0 };
/// First upstream series that was born with the first seven.
const BORN_WITH_FIRST: (u32, u32) = (5, 12);

/// The oldest series that has all that is asked for, dm-era's fixes aside.
pub const OLDEST: (u32, u32) = (5, 10);
/// The first series that numbers block devices (`diskseq`).
const NUMBERS_DISKS: (u32, u32) = (5, 15);

/// Stable series and their first release with the last fix.
const STABLE_WITH_LAST: [Version; 3] =
    [Version::new(5, 10, 127), Version::new(5, 15, 51), Version::new(5, 18, 8)];
/// Stable series and their first release with the first seven.
const STABLE_WITH_FIRST: [Version; 2] = [Version::new(5, 10, 20), Version::new(5, 11, 3)];

/// Distributions keep `.0` in the release and count builds: first build of a series that has all.
/// Debian 11's 5.10.0-16 is 5.10.127. Ubuntu's is taken late rather than early: that build follows 5.15.64.
const DEBIAN_BUILDS: [((u32, u32), u32); 1] = [((5, 10), 16)];
const UBUNTU_BUILDS: [((u32, u32), u32); 1] = [((5, 15), 56)];

/// An upstream release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// As 5.10.
    pub series: (u32, u32),
    /// The third number.
    pub patch: u32,
}

impl Version {
    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { series: (major, minor), patch }
    }

    /// From the beginning of a text: `MAJOR.MINOR[.PATCH]`. Also gives what follows.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (major, rest) = number(text)?;
        let (minor, rest) = number(rest.strip_prefix('.')?)?;
        let (patch, rest) = match rest.strip_prefix('.').and_then(number) {
            Some((patch, rest)) => (patch, rest),
            None => (0, rest),
        };
        Some((Self::new(major, minor, patch), rest))
    }

    fn is_at_least(self, firsts: &[Self], born: (u32, u32)) -> bool {
        self.series >= born
            || firsts.iter().any(|first| first.series == self.series && self.patch >= first.patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.series.0, self.series.1, self.patch)
    }
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Why a kernel is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It is too old, whatever fixes it has.
    #[error(
        "kernel {release} is older than {}.{}, which ftdm needs at least (`queue/stable_writes`): boot a newer one, \
         or {ALLOW} if your vendor has backported that", OLDEST.0, OLDEST.1
    )]
    Old {
        /// `uname -r`.
        release: String,
    },
    /// Its release says that it lacks a fix.
    #[error(
        "kernel {release} lacks `{fix}`: after a crash dm-era may not report blocks that changed, and a replica \
         would silently differ; use {wanted} or newer, or {ALLOW} if your vendor has backported the fix"
    )]
    Lacks {
        /// `uname -r`.
        release: String,
        /// The fix.
        fix: &'static str,
        /// The first release of this series that has it.
        wanted: String,
    },
    /// It is a vendor's own series, of which nothing is known.
    #[error(
        "kernel {release}: its release does not tell whether it has `{LAST}`; without that a replica could \
         silently differ after a crash; {ALLOW} if your vendor's changelog has it"
    )]
    Unknown {
        /// `uname -r`.
        release: String,
    },
}

/// How a person says that a kernel has what its release does not show.
const ALLOW: &str = "set `allow-kernel = true` in the group's configuration (`ftdm create`: --allow-kernel)";

/// Judges the running kernel. With `allowed` a person has done that, and the judgement is only logged.
///
/// # Errors
/// As [`check`]; the system's.
pub fn check_running(allowed: bool) -> std::io::Result<Result<(), KernelError>> {
    let name = nix::sys::utsname::uname()?;
    Ok(match check(&name.release().to_string_lossy(), &name.version().to_string_lossy()) {
        Err(error) if allowed => {
            log::warn!("allowed nevertheless: {error}");
            Ok(())
        }
        judged => judged,
    })
}

/// What is to be said of the running kernel before anything is made on it. With `allowed` its release was judged by a
/// person.
#[must_use]
pub fn remarks(allowed: bool) -> Vec<String> {
    let judged = match check_running(false) {
        Ok(Err(error)) if !allowed => Some(error.to_string()),
        _ => None,
    };
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbered: Vec<bool> = disks.map(|disk| disk.path().join("diskseq").exists()).collect();
    let is_numbered = numbered.is_empty() || numbered.contains(&true);
    judged.into_iter().chain(lacks_numbers(&kernel_release(), is_numbered)).collect()
}

/// What follows where block devices have no numbers of their own.
fn lacks_numbers(release: &str, is_numbered: bool) -> Option<String> {
    let (major, minor) = NUMBERS_DISKS;
    (!is_numbered).then(|| {
        format!(
            "kernel {release} does not number block devices (Linux {major}.{minor} and later do): if a primary is stopped and \
             its backup is promoted without `ftship switch`, both say `split brain` when they meet, also if nothing was \
             written since; `ftship resolve --discard-mine` ends that"
        )
    })
}

/// The running kernel's `uname -r`.
pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "$(uname -r)".to_owned(), |name| name.release().to_string_lossy().into_owned())
}

/// Judges a kernel by `uname -r`, and by `uname -v`, where Debian names the upstream release.
///
/// # Errors
/// When it lacks a fix, or when its release does not show that.
pub fn check(release: &str, build: &str) -> Result<(), KernelError> {
    let unknown = || KernelError::Unknown { release: release.to_owned() };
    let (version, rest) = Version::parse(release).ok_or_else(unknown)?;
    if version.series >= BORN_WITH_LAST.series {
        let candidate = version.series == BORN_WITH_LAST.series && version.patch == 0 && is_early(rest);
        return if candidate { Err(unknown()) } else { Ok(()) };
    }
    if version.series < OLDEST {
        return Err(match distribution(rest) {
            Distribution::Other => unknown(),
            _ => KernelError::Old { release: release.to_owned() },
        });
    }
    if let Some((upstream, _)) = build.split("Debian ").nth(1).and_then(Version::parse)
        && upstream.series == version.series
    {
        return judge(release, upstream);
    }
    match distribution(rest) {
        Distribution::Upstream => judge(release, version),
        Distribution::Builds { number, firsts } => {
            match firsts.iter().find(|(series, _)| *series == version.series) {
                Some((_, first)) if number >= *first => Ok(()),
                Some((_, first)) => {
                    let (major, minor) = version.series;
                    let wanted = format!("{major}.{minor}.0-{first}");
                    Err(KernelError::Lacks { release: release.to_owned(), fix: LAST, wanted })
                }
                None => Err(unknown()),
            }
        }
        Distribution::Other => Err(unknown()),
    }
}

/// Release candidates 1 to 3 of the first series came before the last fix.
fn is_early(rest: &str) -> bool {
    ["-rc1", "-rc2", "-rc3"].iter().any(|early| rest.starts_with(early))
}

fn judge(release: &str, version: Version) -> Result<(), KernelError> {
    if version.is_at_least(&STABLE_WITH_LAST, BORN_WITH_LAST.series) {
        return Ok(());
    }
    let has_first = version.is_at_least(&STABLE_WITH_FIRST, BORN_WITH_FIRST);
    let wanted = STABLE_WITH_LAST.iter().find(|first| first.series == version.series);
    Err(KernelError::Lacks {
        release: release.to_owned(),
        fix: if has_first { LAST } else { FIRST },
        wanted: wanted.unwrap_or(&BORN_WITH_LAST).to_string(),
    })
}

/// Whose numbers a release has.
enum Distribution {
    /// Upstream's, perhaps with a suffix.
    Upstream,
    /// A distribution's that keeps the third number at 0 and counts builds.
    Builds { number: u32, firsts: &'static [((u32, u32), u32)] },
    /// A vendor that takes fixes over without a trace in the release.
    Other,
}

fn distribution(rest: &str) -> Distribution {
    let build = |number, firsts| Distribution::Builds { number, firsts };
    let Some(tail) = rest.strip_prefix('-') else {
        return if rest.is_empty() || rest.starts_with('+') {
            Distribution::Upstream
        } else {
            Distribution::Other
        };
    };
    let vendors = [".el", ".fc", ".amzn", "default", "uek", ".tl", ".an", ".oe"];
    if vendors.iter().any(|vendor| tail.contains(vendor)) {
        return Distribution::Other;
    }
    // Backports: 0.deb10.16-amd64 is the build 16.
    let backport = tail.strip_prefix("0.deb").and_then(|t| t.split_once('.')).map(|(_, build)| build);
    let Some((count, flavour)) = number(backport.unwrap_or(tail)) else { return Distribution::Upstream };
    match flavour.strip_prefix('-') {
        Some("generic" | "lowlatency" | "generic-64k" | "generic-lpae") => build(count, &UBUNTU_BUILDS),
        Some(flavour) if debian_flavour(flavour) => build(count, &DEBIAN_BUILDS),
        _ => Distribution::Other,
    }
}

fn debian_flavour(flavour: &str) -> bool {
    let architecture = flavour.trim_start_matches("rt-").trim_start_matches("cloud-");
    let architectures = ["amd64", "arm64", "686", "686-pae", "armmp", "armmp-lpae", "powerpc64le", "s390x"];
    architectures.contains(&architecture.trim_end_matches("-unsigned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(release: &str) -> bool {
        check(release, "#1 SMP").is_ok()
    }

    #[test]
    fn kernels_with_all_fixes_are_taken() {
        for release in [
            "6.1.0-18-amd64",
            "6.1.176",
            "6.8.0-31-generic",
            "6.12.0-55.9.1.el10_0.x86_64",
            "5.15.0-91-generic",
            "5.10.0-28-amd64",
            "5.10.0-0.deb10.28-amd64",
            "5.10.0-28-cloud-amd64",
            "5.15.51",
            "5.10.127+",
            "5.19.0",
            "5.19.0-rc4",
            "7.0.0",
        ] {
            assert!(taken(release), "{release}");
        }
    }

    #[test]
    fn kernels_without_are_refused_with_the_fix_they_lack() {
        for (release, fix, wanted) in [
            ("5.10.126", LAST, "5.10.127"),
            ("5.10.19", FIRST, "5.10.127"),
            ("5.10.0-13-amd64", LAST, "5.10.0-16"),
            ("5.10.0-0.deb10.15-amd64", LAST, "5.10.0-16"),
            ("5.15.0-25-generic", LAST, "5.15.0-56"),
            ("5.15.50", LAST, "5.15.51"),
            ("5.11.2", FIRST, "5.19.0"),
            ("5.17.15", LAST, "5.19.0"),
        ] {
            let expected = KernelError::Lacks { release: release.to_owned(), fix, wanted: wanted.to_owned() };
            assert_eq!(check(release, ""), Err(expected), "{release}");
        }
    }

    /// They lack `queue/stable_writes`, whatever fixes of dm-era they have.
    #[test]
    fn kernels_before_the_oldest_are_refused_with_a_word_that_allows_them() {
        for release in
            ["3.16.0", "4.4.302", "4.19.0-27-amd64", "4.19.325", "5.4.0-200-generic", "5.4.302", "5.9.16"]
        {
            let refused = check(release, "#1 SMP").unwrap_err();
            assert_eq!(refused, KernelError::Old { release: release.to_owned() });
            let text = refused.to_string();
            assert!(text.contains("5.10") && text.contains("allow-kernel = true"), "{text}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_number_disks_is_remarked_on() {
        assert_eq!(lacks_numbers("6.1.0", true), None);
        let text = lacks_numbers("5.10.0", false).unwrap();
        assert!(text.contains("5.15") && text.contains("split brain"), "{text}");
    }

    #[test]
    fn what_does_not_tell_is_refused() {
        for release in [
            "4.18.0-513.el8",
            "4.18.0-513.5.1.el8_9.x86_64",
            "5.14.0-362.el9",
            "5.14.21-150500.55.52-default",
            "5.15.0-1.el8uek.x86_64",
            "5.15.0-1050-aws",
            "5.13.0-52-generic",
            "5.19.0-rc1",
            "",
            "garbage",
            "5",
            "5.x.3",
            "4.19.90-2112.8.0.0131.oe1.x86_64",
            "99999999999999.1.1",
            "-5.10.127",
            "é.10.1",
        ] {
            let expected = KernelError::Unknown { release: release.to_owned() };
            assert_eq!(check(release, "#1 SMP"), Err(expected), "{release}");
        }
    }

    #[test]
    fn debian_says_itself_what_it_follows() {
        let build = |upstream| format!("#1 SMP Debian {upstream}-1 (2022-07-23)");
        assert!(check("5.10.0-15-amd64", &build("5.10.127")).is_ok());
        assert!(check("5.10.0-99-amd64", &build("5.10.120")).is_err());
        // Another series in that place is not this kernel's.
        assert!(check("5.10.0-13-amd64", &build("5.15.99")).is_err());
    }
}
