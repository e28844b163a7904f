//! Hostile bytes for every parser that reads from outside: a function for each, that feeds it and
//! checks what must hold whatever the bytes are.
//!
//! Two users share these functions: `tests/mutations.rs`, which is an ordinary test, and the binary of
//! `libfuzzer/`, which `make soak` runs. Always holds: a [`Target`] that returns found nothing wrong; what
//! it finds is a panic. Nothing here draws randomness or reads a clock, so an input gives the same
//! again. A format with checksums is judged as it is and with its checksums made right ([`mend`]): so
//! a mutation gets past them.

pub mod image;
pub mod input;
pub mod mend;
pub mod mutate;
mod seeds;
mod targets;

use std::fmt::Display;

use peak_alloc::PeakAlloc;

pub use targets::TARGETS;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a parser made of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took it, or a part of it.
    Accepted,
    /// It refused it, with an error that says why.
    Refused,
}

impl Verdict {
    /// Whether anything was accepted.
    #[must_use]
    pub fn of(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }

    /// Accepted if one of the two is.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Accepted { self } else { other }
    }
}

/// An input that must be accepted, and its name.
pub type Seed = (String, Vec<u8>);

/// One parser under fire.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its folder in `corpus/`.
    pub name: &'static str,
    /// Feeds an input and checks all properties.
    pub run: fn(&[u8]) -> Verdict,
    /// Inputs that are sound.
    pub seeds: fn() -> Vec<Seed>,
    /// Longest input that a fuzzer should make, in bytes.
    pub max_len: usize,
    /// Words that mean something to the parser.
    pub words: &'static [&'static str],
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// Runs `parse` and checks that it never holds more than `bound` bytes of memory more than before.
///
/// # Panics
/// When it does. Other threads' memory counts too: run one target at a time.
#[track_caller]
pub fn within<T>(bound: usize, parse: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = parse();
    let peak = MEMORY.peak_usage().saturating_sub(before);
    assert!(peak <= bound, "{peak} bytes of memory were taken, at most {bound} are allowed");
    result
}

/// Makes the C library keep freed memory instead of returning it to the kernel: a target that takes megabytes for
/// each input would otherwise spend most of its time in page faults. To be called once, at the start.
pub fn keep_memory() {
    // glibc raises its thresholds to the size of the largest mapping that was freed; elsewhere this does nothing.
    drop(std::hint::black_box(vec![0u8; 24 << 20]));
}

/// Checks that an error says where: one of `places` must be in its text, which must be of a length that
/// people read.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn explains(error: &impl Display, places: &[&str]) {
    let text = error.to_string();
    assert!(places.iter().any(|place| text.contains(place)), "does not say where: {text}");
    assert!(text.len() <= 8192, "an error of {} bytes", text.len());
}
