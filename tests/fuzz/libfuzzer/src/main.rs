//! One target under libFuzzer: the one that `FTDM_FUZZ_TARGET` names. `tests/fuzz/soak` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use ftdm_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    ftdm_fuzz::keep_memory();
    let name = std::env::var("FTDM_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("FTDM_FUZZ_TARGET is `{name}`: no such target"))
});

fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
