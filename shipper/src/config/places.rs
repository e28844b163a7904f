//! Where the devices and files of a configuration may be.
//!
//! Always holds: what is accepted here the service can open; the unit `ftship@.service` closes no more of the host than the
//! lists below (a test compares them).

use std::path::Path;

use super::Config;

/// What does not outlive a boot.
const EMPTIED: [&str; 5] = ["/tmp", "/run", "/dev/shm", "/proc", "/sys"];

/// What the service cannot write to, and by which setting of its unit.
const CLOSED: [(&str, &str, &str); 11] = [
    ("/tmp", "PrivateTmp=yes", "the service has a folder of its own in its place"),
    ("/var/tmp", "PrivateTmp=yes", "the service has a folder of its own in its place"),
    ("/home", "ProtectHome=yes", "it is closed to the service"),
    ("/root", "ProtectHome=yes", "it is closed to the service"),
    ("/run/user", "ProtectHome=yes", "it is closed to the service"),
    ("/etc", "ProtectSystem=full", "the service cannot write there"),
    ("/usr", "ProtectSystem=full", "the service cannot write there"),
    ("/boot", "ProtectSystem=full", "the service cannot write there"),
    ("/efi", "ProtectSystem=full", "the service cannot write there"),
    ("/lib", "ProtectSystem=full", "the service cannot write there"),
    ("/sbin", "ProtectSystem=full", "the service cannot write there"),
];

/// Why the service cannot write to a place.
fn closed(path: &Path) -> Option<String> {
    let (folder, setting, why) = CLOSED.into_iter().find(|(folder, ..)| path.starts_with(folder))?;
    Some(format!("{} is below {folder}: {why} ({setting})", path.display()))
}

/// Devices and files where they cannot be: the key, and why.
pub(super) fn wrong(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let visible = |path: &Path| {
        let name = path.strip_prefix("/dev/mapper").ok().and_then(Path::to_str);
        name.is_some_and(|name| config.volume.iter().any(|volume| volume.name.top() == name))
    };
    for volume in &config.volume {
        for (key, path) in
            [("volume.device", Some(&volume.device)), ("volume.metadata", volume.metadata.as_ref())]
        {
            if let Some(path) = path.filter(|path| visible(path)) {
                let path = path.display();
                let reason = format!("{path} is made by ftdm itself: name the logical volume below it");
                found.push((key, reason));
            }
        }
    }
    for (key, path) in [("state", &config.state), ("journal.device", &config.journal.device)] {
        if let Some(folder) = EMPTIED.iter().find(|folder| path.starts_with(folder)) {
            let reason =
                format!("{} does not outlive a boot: everything below {folder} goes", path.display());
            found.push((key, reason));
        } else if path.is_relative() {
            let reason = format!("{} is relative: give the whole path", path.display());
            found.push((key, reason));
        } else if visible(path) {
            let reason = format!("{} is the VM's own disk", path.display());
            found.push((key, reason));
        } else if let Some(reason) = closed(path) {
            found.push((key, reason));
        }
    }
    if let Some(reason) = config.audit.digest_file.as_deref().and_then(closed) {
        found.push(("audit.digest-file", reason));
    }
    found
}

impl Config {
    /// What is no fault and yet may not work: programs that the service does not see unless a drop-in lets it.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let hooks = [("hooks.freeze", &self.hooks.freeze), ("hooks.thaw", &self.hooks.thaw)];
        let remark = |(key, hook): (&str, &Vec<String>)| {
            let reason =
                closed(Path::new(hook.first()?)).filter(|reason| !reason.contains("ProtectSystem"))?;
            Some(format!(
                "`{key}`: {reason}, unless a drop-in of ftship@{}.service says otherwise",
                self.group
            ))
        };
        hooks.into_iter().filter_map(remark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_closes_what_is_listed_and_no_more() {
        let unit = include_str!("../../../packaging/systemd/ftship@.service");
        let set: Vec<&str> = unit.lines().filter(|line| line.starts_with("Protect")).collect();
        for (.., setting, _) in CLOSED {
            assert!(unit.lines().any(|line| line == setting), "{setting}");
        }
        // ProtectSystem=strict, ReadOnlyPaths= and the like would close places that are not listed.
        let other = [
            "ReadOnlyPaths=",
            "InaccessiblePaths=",
            "TemporaryFileSystem=",
            "RootDirectory=",
            "ProtectSystem=strict",
        ];
        assert!(!unit.lines().any(|line| other.iter().any(|word| line.starts_with(word))), "{set:?}");
    }
}
