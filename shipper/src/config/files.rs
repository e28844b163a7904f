//! Where configurations are.
//!
//! Always holds: a group's name is no path, and only files that end in `.toml` count.

use std::path::{Path, PathBuf};

/// Where `GROUP` is looked for when no path is given.
pub const DIRECTORY: &str = "/etc/ftdm";

/// The file that `argument` names: a path when it holds a slash or ends in `.toml`, else a group.
#[must_use]
pub fn path_of(argument: &str) -> PathBuf {
    let is_toml = Path::new(argument).extension().is_some_and(|extension| extension == "toml");
    if argument.contains('/') || is_toml {
        argument.into()
    } else {
        Path::new(DIRECTORY).join(format!("{argument}.toml"))
    }
}

/// The configurations in [`DIRECTORY`], in the order of their names.
///
/// # Errors
/// When the folder cannot be read; one that does not exist holds none.
pub fn installed() -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
