//! Prepares a fuzzer's folders: `prepare FOLDER` writes each target's sound inputs to `FOLDER/seeds/TARGET/`,
//! its words to `FOLDER/words/TARGET`, and prints a line `TARGET LONGEST-INPUT` for each.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ftdm_fuzz::{TARGETS, Target};

fn main() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: prepare FOLDER");
    let folder = std::env::args_os().nth(1).ok_or_else(usage)?;
    for target in &TARGETS {
        prepare(Path::new(&folder), target)?;
        writeln!(io::stdout(), "{} {}", target.name, target.max_len)?;
    }
    Ok(())
}

fn prepare(folder: &Path, target: &Target) -> io::Result<()> {
    let seeds = folder.join("seeds").join(target.name);
    fs::create_dir_all(&seeds)?;
    for (name, bytes) in (target.seeds)() {
        fs::write(seeds.join(name), bytes)?;
    }
    let words = folder.join("words");
    fs::create_dir_all(&words)?;
    // libFuzzer's form: one quoted word a line, what is not plain as \xNN.
    let quoted = |word: &&str| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\') || byte == b' ';
        let shown = |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("\\x{byte:02x}") };
        format!("\"{}\"\n", word.bytes().map(shown).collect::<String>())
    };
    fs::write(words.join(target.name), target.words.iter().map(quoted).collect::<String>())
}
