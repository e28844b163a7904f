//! The keys that a group trusts, as a file has them.

use ftship::link::tls::fingerprint::Fingerprint;
use ftship::link::tls::pins::{MAX_LEN, MAX_PINS, PinError, Pins};

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target {
    name: "pins",
    run,
    seeds,
    max_len: MAX_LEN,
    words: &[
        "SHA256:",
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        "#",
        "\n",
        "\r\n",
        " ",
        "\t",
        "=",
        "\0",
    ],
};

fn run(data: &[u8]) -> Verdict {
    // Reading the file refuses anything else.
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    match within((16 << 10) + 4 * data.len(), || Pins::parse("fuzz.pins", text)) {
        Ok(pins) => {
            let keys: Vec<&Fingerprint> = pins.iter().map(|(key, _)| key).collect();
            assert!(keys.len() <= MAX_PINS);
            // Each is named in the text, as it is written, and nothing else is trusted.
            for key in &keys {
                assert!(pins.trusts(key) && text.contains(&key.to_string()), "{key}");
                assert_eq!(key.to_string().parse::<Fingerprint>().as_ref(), Ok(*key));
            }
            Verdict::of(!keys.is_empty())
        }
        Err(error) => {
            explains(&error, &["fuzz.pins"]);
            if let PinError::Line { line, .. } = error {
                assert!((1..=text.lines().count()).contains(&line));
            }
            Verdict::Refused
        }
    }
}

fn seeds() -> Vec<Seed> {
    let one = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let other = "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg";
    let several = format!("# Keys that this group trusts.\n\n{one} 10.9.0.2 1795379953\r\n\t{other}\n");
    vec![("one".into(), one.into()), ("several".into(), several.into())]
}
