//! `PROTOCOL.md` says what the code does: every number, name and golden vector is in it, and no other.

use ftship_proto::frame::{FrameKind, HEADER_LEN, MAX_CONTROL_PAYLOAD, MAX_RAW_PAYLOAD};
use ftship_proto::generations::MAX_LINEAGE;
use ftship_proto::group::MAX_VOLUMES;
use ftship_proto::message::{MAX_TEXT, RefuseCode};
use ftship_proto::protocol::{ACK_RECEIVED, COMPARE, EXTERNAL_COMMIT, FEATURES_KNOWN, VERIFY};
use ftship_proto::verify::{MAX_DIGESTS, MAX_HASHED, MAX_PLACES, MAX_UNIT};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../PROTOCOL.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rows of the table under this header row, as cells.
fn table(document: &str, header: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(header).unwrap_or_else(|| panic!("no table {header}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

#[test]
fn every_kind_of_frame_is_listed_with_its_number_and_no_other() {
    let listed: Vec<(String, String)> = table(&document(), "| kind | name | from | payload |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let known: Vec<(String, String)> = (0..0x8000)
        .filter_map(|number| {
            Some((format!("{number:#06x}"), format!("{:?}", FrameKind::from_number(number)?)))
        })
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn every_refusal_is_listed_with_its_number_and_no_other() {
    let listed: Vec<(String, String)> = table(&document(), "| code | refusal |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].split(':').next().unwrap().to_owned()))
        .collect();
    let known: Vec<(String, String)> =
        RefuseCode::known().map(|code| (code.number().to_string(), format!("{code:?}"))).collect();
    assert_eq!(listed, known);
}

#[test]
fn feature_bits_and_limits_are_those_of_the_code() {
    let document = document();
    let bits: Vec<u64> = table(&document, "| bit | feature | |")
        .into_iter()
        .map(|row| 1 << row[0].parse::<u32>().unwrap())
        .collect();
    assert_eq!(bits, [EXTERNAL_COMMIT, ACK_RECEIVED, VERIFY, COMPARE]);
    assert_eq!(bits.iter().sum::<u64>(), FEATURES_KNOWN);
    // Wherever the text breaks its lines.
    let flowing = document.split_whitespace().collect::<Vec<_>>().join(" ");
    for phrase in [
        format!("a header of {HEADER_LEN} bytes"),
        format!("a control payload has at most {MAX_CONTROL_PAYLOAD} bytes"),
        format!("a data payload {MAX_RAW_PAYLOAD} decompressed"),
        format!("A text has at most {MAX_TEXT} bytes"),
        format!("a group {MAX_VOLUMES} volumes"),
        format!("a lineage {MAX_LINEAGE} generations"),
        format!("places, 1 to {MAX_PLACES}"),
        format!(
            "at most {MAX_DIGESTS} digests of at most {} sectors, {} at most each",
            MAX_HASHED.0, MAX_UNIT.0
        ),
    ] {
        assert!(flowing.contains(&phrase), "{phrase}");
    }
}

#[test]
fn every_golden_vector_is_quoted_and_no_other() {
    let document = document();
    let (_, quoted) = document.split_once("\n## Golden vectors\n").unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let vector = std::fs::read_to_string(&path).unwrap();
        assert!(
            quoted.contains(&format!("### {name}\n\n```\n{vector}```\n")),
            "{name} is not quoted as it is"
        );
        names.push(name);
    }
    names.sort_unstable();
    let listed: Vec<&str> = quoted.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(listed, names);
}
