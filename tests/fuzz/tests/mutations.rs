//! Every target on its seeds, on the inputs in `corpus/`, and on mutations of both that a number decides.
//!
//! `FUZZ_SEED=N` runs one mutation, `FUZZ_CASES=N` another number of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ftdm_fuzz::{Target, Verdict, mutate};

/// Mutations of each target: most take less than a second for all.
const CASES: u64 = 30_000;
/// Fewer for those of which one case takes a millisecond: a handshake, a journal to recover. `make soak` runs more.
const CASES_OF_THE_SLOW: [(&str, u64); 2] = [("recovery", 15_000), ("session", 10_000)];

/// Memory is counted for the whole process, so targets run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> = match folder.read_dir() {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let read =
        |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(path).unwrap());
    files.into_iter().map(read).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Runs one input; a failure names it, keeps it and says how to see it again.
fn run(target: &Target, bytes: &[u8], name: &str, again: &str) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).unwrap_or_else(|_| {
        let kept = std::env::temp_dir().join(format!("ftdm-fuzz-{}-{name}", target.name));
        let kept = std::fs::write(&kept, bytes).map(|()| kept);
        panic!(
            "target {}, input {name}, {} bytes, kept as {kept:?}; once more with:\n    {again}",
            target.name,
            bytes.len()
        )
    })
}

fn all(name: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    ftdm_fuzz::keep_memory();
    let target = Target::named(name).unwrap();
    let (seeds, corpus) = ((target.seeds)(), corpus(target));
    let command = format!("cargo test -p ftdm-fuzz --test mutations {name}");
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (seed, bytes) in &seeds {
        let verdict = run(target, bytes, seed, &command);
        assert_eq!(verdict, Verdict::Accepted, "seed {seed} of {name} is sound and was refused");
    }
    for (file, bytes) in &corpus {
        run(target, bytes, file, &command);
    }
    let inputs: Vec<_> = seeds.into_iter().chain(corpus).map(|(_, bytes)| bytes).collect();
    let usual = CASES_OF_THE_SLOW.iter().find(|(slow, _)| *slow == name).map_or(CASES, |(_, cases)| *cases);
    let cases = match number("FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FUZZ_CASES").unwrap_or(usual),
    };
    let (mut accepted, count) = (0, cases.end - cases.start);
    for seed in cases {
        let bytes = mutate::case(target, &inputs, seed);
        let verdict = run(target, &bytes, &format!("seed-{seed}"), &format!("FUZZ_SEED={seed} {command}"));
        accepted += u64::from(verdict == Verdict::Accepted);
    }
    // Mutations that are all refused, or all accepted, would test nothing behind the door, or the door.
    if count >= usual {
        assert!(accepted > 9 && accepted < count, "{accepted} of {count} mutations accepted");
    }
}

/// One test for each target, so that each has a name to run it by.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            all(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(ftdm_fuzz::TARGETS.map(|target| target.name), tested);
        }

        #[test]
        fn every_folder_of_the_corpus_has_its_target() {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            for entry in corpus.read_dir().unwrap() {
                let name = entry.unwrap().file_name();
                assert!(Target::named(name.to_str().unwrap()).is_some(), "{name:?}");
            }
        }
    };
}

targets![
    config,
    control,
    dm_text,
    epoch,
    era_metadata,
    log_writes,
    message,
    pins,
    recovery,
    rolls,
    session,
    slots,
    tlv,
    wire,
];
