//! The devices that a configuration names, read from as much of it as can be read.
//!
//! Always holds: a fault elsewhere in the file does not hide them. At boot udev asks whose a logical volume is, and a
//! volume that is nobody's is scanned, activated and mounted below the stack.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Config, Volume};

/// What a file names, whether or not its configuration is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedDevices {
    /// The group; the file's name where the file does not say.
    pub group: String,
    /// The protected volumes, each with its metadata where one is named.
    pub volumes: Vec<(PathBuf, Option<PathBuf>)>,
    /// The journal.
    pub journal: Option<PathBuf>,
    /// The state.
    pub state: Option<PathBuf>,
}

impl NamedDevices {
    /// Reads a file; `None` where it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let named = path.file_stem()?.to_str()?;
        Some(Self::parse(named, &text))
    }

    /// What has to be there before the group can be set up.
    pub fn needed(&self) -> impl Iterator<Item = &PathBuf> {
        self.volumes.iter().flat_map(|(device, metadata)| [Some(device), metadata.as_ref()]).flatten()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.needed().chain(&self.journal).chain(&self.state)
    }

    /// Takes what can be found in `text`, the file of group `named`.
    #[must_use]
    pub fn parse(named: &str, text: &str) -> Self {
        let (root, _) = DeTable::parse_recoverable(text);
        let root = root.get_ref();
        let text = |table: &DeTable<'_>, key: &str| Some(table.get(key)?.get_ref().as_str()?.to_owned());
        let path = |table: &DeTable<'_>, key: &str| text(table, key).map(PathBuf::from);
        let table = |key: &str| match root.get(key)?.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
        let all = match root.get("volume").map(|value| value.get_ref()) {
            Some(DeValue::Array(all)) => all.iter().map(|one| one.get_ref()).collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let volume = |value: &DeValue<'_>| match value {
            DeValue::Table(inner) => Some((path(inner, "device")?, path(inner, "metadata"))),
            _ => None,
        };
        Self {
            group: text(root, "group").unwrap_or_else(|| named.to_owned()),
            volumes: all.into_iter().filter_map(volume).collect(),
            journal: table("journal").and_then(|journal| path(journal, "device")),
            state: path(root, "state"),
        }
    }
}

impl From<&Config> for NamedDevices {
    fn from(config: &Config) -> Self {
        let volume = |volume: &Volume| (volume.device.clone(), volume.metadata.clone());
        Self {
            group: config.group.to_string(),
            volumes: config.volume.iter().map(volume).collect(),
            journal: Some(config.journal.device.clone()),
            state: Some(config.state.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "group = 'vm1'\nrole = 'primary'\naddress = '10.9.0.1:7'\npeer = '10.9.0.2:7'\n\
        state = '/dev/vg/s'\n[[volume]]\nname = 'v'\ndevice = '/dev/vg/d'\nmetadata = '/dev/vg/m'\n\
        [journal]\ndevice = '/dev/vg/j'\n";

    #[test]
    fn a_fault_elsewhere_hides_no_device() {
        let good = NamedDevices::parse("vm1", GOOD);
        assert_eq!(NamedDevices::from(&Config::parse("vm1.toml", GOOD).unwrap()), good);
        assert_eq!(good.volumes, [("/dev/vg/d".into(), Some("/dev/vg/m".into()))]);
        assert_eq!(
            (good.journal.clone(), good.state.clone()),
            (Some("/dev/vg/j".into()), Some("/dev/vg/s".into()))
        );
        for (what, by) in [
            ("role = 'primary'", "rolle = 'primary'"),
            ("address = '10.9.0.1:7'", "address = 'nonsense'"),
            ("group = 'vm1'\n", ""),
            ("role = 'primary'", "role = primary"),
            ("role = 'primary'", "role = 'primary"),
            ("name = 'v'", "name = "),
        ] {
            assert!(Config::parse("vm1.toml", &GOOD.replace(what, by)).is_err(), "{by}");
            assert_eq!(NamedDevices::parse("vm1", &GOOD.replace(what, by)), good, "{by}");
        }
    }
}
