//! The first file system of a QEMU host: just enough to reach the machine's own through 9p.
//!
//! A cpio archive in the `newc` format (kernel: Documentation/driver-api/early-userspace/
//! buffer-format.rst), uncompressed. What must hold: every name and content is followed by zeros up
//! to a multiple of four bytes, parents come before what is in them, and the trailer is last.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The host's first process while this is its root.
const INIT: &str = include_str!("../../guest/initramfs.sh");

/// Applets of busybox that it needs.
const APPLETS: [&str; 4] = ["sh", "mount", "insmod", "switch_root"];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive with a static `busybox` and kernel modules (name and content), which are loaded in this order.
///
/// # Errors
/// When `busybox` cannot be read.
pub(super) fn build(busybox: &Path, modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let program = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "machine"] {
        archive.add(folder, FOLDER, b"");
    }
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("bin/busybox", PROGRAM, &program);
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), LINK, b"busybox");
    }
    for (number, (name, content)) in modules.iter().enumerate() {
        archive.add(&format!("modules/{number:02}-{name}"), PROGRAM, content);
    }
    Ok(archive.finish())
}

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Appends an entry of the given mode (type and permissions); a link's content is its target.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        self.entry(name, self.entries, mode, content);
    }

    fn entry(&mut self, name: &str, inode: u32, mode: u32, content: &[u8]) {
        let size = content.len();
        let name_size = name.len() + 1;
        // Magic, then in hexadecimal: inode, mode, uid, gid, links, time, size, device, device of
        // the node (each two numbers), size of the name with its zero, checksum (unused).
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.bytes.extend(header.bytes());
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive the way the kernel does.
    fn list(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let field = |number: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * number..14 + 8 * number]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let from = (110 + name_size).next_multiple_of(4);
            let content = bytes[from..from + size].to_vec();
            bytes = &bytes[(from + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode.try_into().unwrap(), content));
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        let entries = [("d", FOLDER, ""), ("d/file", PROGRAM, "odd"), ("d/l", LINK, "file")];
        for (name, mode, content) in entries {
            archive.add(name, mode, content.as_bytes());
        }
        let expected =
            entries.map(|(name, mode, content)| (name.to_owned(), mode, content.as_bytes().to_vec()));
        assert_eq!(list(&archive.finish()), expected);
    }

    #[test]
    fn modules_keep_their_order() {
        let modules = ["z.ko", "a.ko"].map(|name| (name.to_owned(), b"code".to_vec()));
        let archive = build(Path::new("/proc/self/exe"), &modules);
        let names: Vec<String> = list(&archive.unwrap()).into_iter().map(|(name, ..)| name).collect();
        assert!(names.ends_with(&["modules/00-z.ko".to_owned(), "modules/01-a.ko".to_owned()]), "{names:?}");
        assert!(names.contains(&"bin/switch_root".to_owned()));
    }
}
