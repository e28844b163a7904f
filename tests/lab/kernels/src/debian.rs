//! Packages of a Debian release, downloaded and unpacked without being installed.
//!
//! The machine's own release is asked through its own configuration of apt. For another one there is a private
//! configuration in the lab's cache, with the archive that the machine uses and with lists of its own. What must
//! hold: the machine's configuration, lists and packages stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{Kernel, Unavailable, output};

/// Where Debian's package of the keys puts them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release's packages.
#[derive(Debug)]
pub struct Archive {
    /// The private configuration, unless the machine's own is used.
    configuration: Option<PathBuf>,
}

impl Archive {
    /// The packages of `kernel`'s release; lists that are fetched for that are kept in `cache`.
    ///
    /// # Errors
    /// [`Unavailable`] when the lists cannot be had.
    pub fn open(kernel: Kernel, cache: &Path) -> Result<Self> {
        let Some(suite) = kernel.on_this_machine().suite() else {
            return Ok(Archive { configuration: None });
        };
        let folder = cache.join("apt").join(suite);
        for part in ["lists/partial", "archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let mirror = mirror()?;
        let signed = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("sources.list", format!("deb {signed}{mirror} {suite} main\n"))?;
        write("apt.conf", configuration(&folder))?;
        let archive = Archive { configuration: Some(folder.join("apt.conf")) };
        archive.run("apt-get", &["update", "-q", "--error-on=any"], &folder)?;
        Ok(archive)
    }

    /// The text that describes a package: fields, one a line.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no such package.
    pub fn describe(&self, package: &str) -> Result<String> {
        self.run("apt-cache", &["show", "--no-all-versions", package], Path::new("/"))
    }

    /// Downloads `packages` and unpacks them into the folder `tree`, for use in `folder`; tells `say` before that.
    ///
    /// # Errors
    /// [`Unavailable`] when they cannot be downloaded.
    pub fn unpack(&self, packages: &[String], tree: &Path, folder: &Path, say: &dyn Fn(&str)) -> Result<()> {
        let mut bytes = 0;
        for package in packages {
            let description = self.describe(package)?;
            bytes += field(&description, "Size").and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        }
        let (names, size) = (packages.join(", "), bytes / 1_000_000);
        say(&format!("fetching {names} ({size} MB, once; not installed) into {}", folder.display()));
        let downloads = tree.with_extension("packages");
        fs::create_dir_all(&downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
        let names = packages.iter().map(String::as_str);
        let words: Vec<&str> = ["download", "-q"].into_iter().chain(names).collect();
        self.run("apt-get", &words, &downloads)?;
        for entry in fs::read_dir(&downloads)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                output(Command::new("dpkg-deb").arg("-x").args([path.as_path(), tree]))?;
            }
        }
        fs::remove_dir_all(&downloads).context("cannot remove the packages")
    }

    fn run(&self, program: &str, words: &[&str], folder: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command.args(words).current_dir(folder).env("LC_ALL", "C");
        if let Some(path) = &self.configuration {
            command.env("APT_CONFIG", path);
        }
        output(&mut command).map_err(|error| {
            let error = error.to_string();
            let hint = if self.configuration.is_none() {
                "; if the package lists are old, run `apt-get update`"
            } else {
                ""
            };
            Unavailable(format!("{error}{hint}")).into()
        })
    }
}

/// What apt reads after the machine's own configuration, which may name a proxy.
fn configuration(folder: &Path) -> String {
    let settings = [
        ("Dir::Etc::sourcelist", folder.join("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::Etc::preferences", "/dev/null".into()),
        ("Dir::Etc::preferencesparts", "/dev/null".into()),
        ("Dir::State::lists", folder.join("lists")),
        ("Dir::State::status", "/dev/null".into()),
        ("Dir::Cache", folder.to_owned()),
        ("Acquire::Languages", "none".into()),
        ("APT::Default-Release", "".into()),
        // The lists need not be readable by apt's own user.
        ("APT::Sandbox::User", "root".into()),
    ];
    settings.map(|(name, value)| format!("{name} \"{}\";\n", value.display())).concat()
}

/// Checks whether `kernel`'s release can be asked for packages at all; asks nobody.
///
/// # Errors
/// [`Unavailable`] when no mirror is known.
pub fn can_ask(kernel: Kernel) -> Result<()> {
    if kernel.on_this_machine().suite().is_some() {
        mirror()?;
    }
    Ok(())
}

fn mirror() -> Result<String> {
    mirror_among(&targets()?).ok_or_else(|| {
        Unavailable("the machine's package lists name no mirror of Debian: run `apt-get update`".to_owned())
            .into()
    })
}

/// The machine's sources, one a line: origin, label, address.
fn targets() -> Result<String> {
    let format = "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)";
    output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))
}

/// The address of Debian's archive among the machine's sources.
fn mirror_among(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let [origin, label, address] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        (origin == "Debian" && label == "Debian" && address.contains("://")).then(|| address.to_owned())
    })
}

/// The value of a field in a package's description.
#[must_use]
pub fn field<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = description.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The names of the packages that a description depends on, the first of each choice.
pub fn dependencies(description: &str) -> impl Iterator<Item = &str> {
    field(description, "Depends").unwrap_or("").split(',').filter_map(|one| one.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debian_s_own_archive() {
        let security = "Debian\tDebian-Security\thttp://mirror.example/security/\n";
        let other = "Vendor\tDebian\thttp://vendor.example/\n";
        let unknown = "\tDebian\thttp://x.example/\nDebian\tDebian\t$(REPO_URI)\n";
        let main = "Debian\tDebian\thttp://mirror.example/debian/\n";
        assert_eq!(mirror_among(&[other, security, unknown].concat()), None);
        let found = mirror_among(&[other, security, unknown, main].concat());
        assert_eq!(found.unwrap(), "http://mirror.example/debian/");
    }

    #[test]
    fn a_description_has_fields() {
        let text = "Package: a\nVersion: 1-2\nDepends: b (= 1) | c, d, e:any (>= 2)\nSize: 10\n";
        assert_eq!(field(text, "Size"), Some("10"));
        assert_eq!(field(text, "Si"), None);
        assert_eq!(dependencies(text).collect::<Vec<_>>(), ["b", "d", "e:any"]);
        assert_eq!(dependencies("Package: x\n").count(), 0);
    }

    #[test]
    fn a_refusal_of_apt_is_no_fault_of_the_lab() {
        let archive = Archive { configuration: None };
        let error = archive.describe("no-such-package-as-this").unwrap_err();
        assert!(error.downcast_ref::<Unavailable>().is_some(), "{error:#}");
    }
}
