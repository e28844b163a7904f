//! What a person or the kernel says about devices, in words: the `ft` table, status lines of dm-era and
//! log-writes, device numbers, names and UUIDs, kernel releases.

use std::fmt::Display;
use std::str::FromStr;

use ftdm::era::size::MetadataSize;
use ftdm::era::status::EraStatus;
use ftdm::kernel_gate;
use ftdm::log_writes::status::LogStatus;
use ftdm::name::{StackName, VolumeId};
use ftdm::table::{BlockSectors, FtTable};
use ftdm::units::{DevNum, Sectors};
use ftship_proto::ids::{Epoch, Generation, GroupName, VolumeUuid};

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target {
    name: "dm_text",
    run,
    seeds,
    max_len: 1024,
    words: &[
        "0 ",
        " ft ",
        "/dev/vg/vm1",
        " 128",
        "-",
        "/",
        ":",
        " logging_disabled",
        "Error",
        "LVM-",
        "FTDM-",
        "18446744073709551615",
        "4294967295",
        "2147483647",
        "\u{a0}",
        "ä",
        "\n",
        ".",
        "6.1.0-28-amd64",
        "#1 SMP Debian 6.1.119-1",
    ],
};

/// Memory for a text of `len` bytes: its words, and an error that repeats it.
fn bound(len: usize) -> usize {
    (4 << 10) + 32 * len
}

fn run(data: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(data);
    let verdicts = [
        table(&text),
        era_status(&text),
        log_status(&text),
        shown_again::<DevNum>(&text),
        shown_again::<StackName>(&text),
        shown_again::<GroupName>(&text),
        shown_again::<Epoch>(&text),
        shown_again::<Generation>(&text),
        shown_again::<VolumeUuid>(&text),
        volume_id(&text),
        kernel(&text),
    ];
    verdicts.into_iter().fold(Verdict::Refused, Verdict::or)
}

/// What was parsed is shown as something that parses to the same.
fn shown_again<T>(text: &str) -> Verdict
where
    T: FromStr + Display + PartialEq + std::fmt::Debug,
    T::Err: Display,
{
    match within(bound(text.len()), || text.parse::<T>()) {
        Ok(parsed) => {
            let shown = parsed.to_string();
            assert_eq!(shown.parse::<T>().ok(), Some(parsed), "shown as {shown}");
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["not a", "name", "table", "expected", "sectors in blocks"]);
            Verdict::Refused
        }
    }
}

fn table(text: &str) -> Verdict {
    if let Ok(table) = text.parse::<FtTable>() {
        let blocks = table.block.count(table.sectors);
        assert!(blocks > 0 && blocks < 1 << 31 && BlockSectors::new(table.block.get()).is_some());
        let size = MetadataSize::of(table.sectors, table.block);
        assert!(size.minimum <= size.recommended && size.recommended_sectors().0 > 0);
    }
    shown_again::<FtTable>(text)
}

fn era_status(text: &str) -> Verdict {
    match within(bound(text.len()), || text.parse::<EraStatus>()) {
        Ok(status) => {
            let snapshot = status.snapshot.map_or("-".into(), |block| block.to_string());
            let shown = format!("8 {}/{} {} {snapshot}", status.used, status.total, status.current);
            assert_eq!(shown.parse(), Ok(status));
            // Whatever the kernel counts, asking for room is no overflow.
            if let Some(block) = BlockSectors::new(128) {
                let _ = MetadataSize::of(Sectors(1 << 30), block).room(&status);
            }
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["expected `SECTORS USED/TOTAL ERA SNAPSHOT`"]);
            Verdict::Refused
        }
    }
}

fn log_status(text: &str) -> Verdict {
    // This one is read within the pause of a cut.
    let read = within(0, || LogStatus::parse(text));
    match (read, text.parse::<LogStatus>()) {
        (Some(status), parsed) => {
            assert_eq!(parsed, Ok(status));
            let off = if status.on { "" } else { " logging_disabled" };
            assert_eq!(
                LogStatus::parse(&format!("{} {}{off}", status.entries, status.used.0 - 1)),
                Some(status)
            );
            Verdict::Accepted
        }
        (None, Err(error)) => {
            explains(&error, &["expected `ENTRIES SECTOR"]);
            Verdict::Refused
        }
        (None, Ok(status)) => panic!("read as nothing and as {status:?}"),
    }
}

fn volume_id(text: &str) -> Verdict {
    let ids = [VolumeId::from_lvm(text), VolumeId::from_top_uuid(text)];
    for id in ids.iter().flatten() {
        assert_eq!(VolumeId::from_top_uuid(&id.top()).as_ref(), Some(id));
        assert_eq!(VolumeId::from_top_uuid(&id.era()), None);
    }
    Verdict::of(ids.iter().any(Option::is_some))
}

fn kernel(text: &str) -> Verdict {
    let (release, build) = text.split_once('\n').unwrap_or((text, ""));
    match within(bound(text.len()), || kernel_gate::check(release, build)) {
        Ok(()) => Verdict::Accepted,
        Err(error) => {
            explains(&error, &["kernel "]);
            Verdict::Refused
        }
    }
}

fn seeds() -> Vec<Seed> {
    let texts = [
        ("table", "0 2097152 ft /dev/vg/vm1_meta /dev/vg/vm1 128"),
        ("era", "8 21/1024 3 -"),
        ("era-snapshot", "8 21/1024 3 17"),
        ("log", "3 25"),
        ("log-off", "3 25 logging_disabled"),
        ("number", "254:3"),
        ("generation", "7:00112233445566778899aabbccddeeff"),
        ("uuid", "00112233-4455-6677-8899-aabbccddeeff"),
        ("lvm", "LVM-vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvLqLqLqLqLqLqLqLqLqLqLqLqLqLqLqLq"),
        ("top", "FTDM-LqLqLqLqLqLqLqLqLqLqLqLqLqLqLqLq"),
        ("kernel", "6.1.0-28-amd64\n#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)"),
    ];
    texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect()
}
