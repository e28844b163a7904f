//! Why a host died: what its console said last, and what helps where that is known. Pure.
//!
//! What must hold: the text is short, whatever the console says, and the line that decides is in it.

use std::fmt::Write as _;

/// Lines of the console that are shown: before and behind the line that decides; without one, the last.
const BEFORE: usize = 6;
const BEHIND: usize = 2;
const LINES: usize = 12;
const LONGEST: usize = 200;

/// What a console may say, in lower case, and what helps. The first that is found counts.
const REMEDIES: [(&str, &str); 10] = [
    (
        "put_fp_registers",
        "this kernel does not know the processor's registers. The lab helps kernels before 6.13 with a library: \
         `tests/lab/lab doctor` says whether that works here. `--kernel newest` needs no help",
    ),
    (
        "cannot be preloaded",
        "the library that helps this kernel with the processor's registers is missing or broken: build it with \
         `cargo build -p ftdm-lab-xstate`",
    ),
    (
        "version `glibc_",
        "the kernel wants a newer C library than the one beside it: remove its folder in target/lab-cache/kernels, \
         and it is fetched again",
    ),
    (
        "ptrace: operation not permitted",
        "processes may not be traced here. In a container allow it: for Docker `--cap-add=SYS_PTRACE \
         --security-opt seccomp=unconfined`",
    ),
    ("kernel mode signal 7", NO_ROOM),
    ("bus error", NO_ROOM),
    ("no space left on device", NO_ROOM),
    ("cannot allocate memory", NO_ROOM),
    ("cannot set up guest memory", NO_ROOM),
    (
        "out of memory",
        "the host has too little memory: ask for more in the scenario's header, `# lab: memory=1536M`",
    ),
];

const NO_ROOM: &str = "the machine has no room for the host's memory, which is in a tmpfs: free some memory, or run \
                       fewer scenarios side by side (`--jobs`)";

/// For a host that was killed, and not by the lab.
const KILLED: &str = "something on the machine killed it. If `dmesg` says `Out of memory`, free some memory, or run \
                      fewer scenarios side by side (`--jobs`)";

/// Words that only a line has which tells of a death.
const DECIDING: [&str; 4] = ["kernel panic", "kernel bug at", "bug: ", "segfault with no mm"];

/// Explains a death in a few lines: `console` is what the host printed since it was switched on, `code` the exit code
/// of the program that was its kernel (128 + N for signal N), if that has ended.
#[must_use]
pub fn explain(console: &str, kernel: &str, code: Option<i32>) -> String {
    let lines: Vec<String> = console.lines().map(readable).filter(|line| !line.is_empty()).collect();
    let lower: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let find = |words: &str| lower.iter().position(|line| line.contains(words));
    let remedy = REMEDIES.iter().find_map(|(words, remedy)| find(words).map(|at| (at, *remedy)));
    let deciding = remedy.map(|(at, _)| at).or_else(|| DECIDING.iter().find_map(|words| find(words)));
    let ended = match code {
        None => "it still ran".to_owned(),
        Some(code) if code > 128 => format!("it ended by signal {}", code - 128),
        Some(code) => format!("it ended with code {code}"),
    };
    let mut text = format!("    kernel: {kernel}; {ended}\n");
    if lines.is_empty() {
        text.push_str("    its console said nothing\n");
    } else {
        text.push_str("    its console:\n");
    }
    let shown = match deciding {
        Some(at) => at.saturating_sub(BEFORE)..(at + 1 + BEHIND).min(lines.len()),
        None => lines.len().saturating_sub(LINES)..lines.len(),
    };
    for line in &lines[shown] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    | {line}");
    }
    let killed = (code == Some(128 + 9)).then_some(KILLED);
    if let Some(remedy) = remedy.map(|(_, remedy)| remedy).or(killed) {
        let _ = writeln!(text, "    what helps: {remedy}");
    }
    text.trim_end().to_owned()
}

/// A line without control characters and of bounded length.
fn readable(line: &str) -> String {
    line.chars().filter(|one| !one.is_control()).take(LONGEST).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_with_what_came_before() {
        let mut console: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
        console.push_str("Kernel panic - not syncing: no init\n");
        console.extend((0..100).map(|n| format!(" trace {n}\n")));
        let text = explain(&console, "user-mode-linux 6.1.176", Some(134));
        assert!(text.starts_with("    kernel: user-mode-linux 6.1.176; it ended by signal 6\n"), "{text}");
        assert!(text.contains("    | line 94\n") && !text.contains("line 93\n"), "{text}");
        assert!(text.contains("    | Kernel panic - not syncing: no init\n"), "{text}");
        assert!(text.ends_with("|  trace 1") && !text.contains("what helps"), "{text}");
    }

    #[test]
    fn without_a_panic_the_last_lines_are_shown() {
        let console: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let text = explain(&console, "k", Some(1));
        assert!(
            text.contains("line 88\n") && text.ends_with("line 99") && !text.contains("line 87"),
            "{text}"
        );
        assert_eq!(explain("\n\n", "k", None), "    kernel: k; it still ran\n    its console said nothing");
    }

    #[test]
    fn a_known_death_has_a_remedy() {
        for (console, helps) in [
            (
                "x\nuserspace - put_fp_registers failed, errno = 14\nKernel panic - not syncing: init",
                "doctor",
            ),
            ("ERROR: ld.so: object '/x.so' from LD_PRELOAD cannot be preloaded: ignored.", "cargo build"),
            ("linux.uml: libc.so.6: version `GLIBC_2.38' not found", "remove its folder"),
            ("Kernel panic - not syncing: Kernel mode signal 7", "tmpfs"),
            ("Bus error (core dumped)", "tmpfs"),
            ("qemu-system-x86_64: cannot set up guest memory 'memory'", "tmpfs"),
            ("Out of memory: Killed process 7 (ftship)", "memory=1536M"),
        ] {
            let text = explain(console, "k", Some(1));
            let last = text.lines().last().unwrap();
            assert!(last.starts_with("    what helps: ") && last.contains(helps), "{text}");
        }
        assert!(explain("all well", "k", Some(137)).contains("dmesg"));
    }

    #[test]
    fn whatever_the_console_says_the_text_is_short() {
        let noise: String = (0..5000u32).filter_map(|n| char::from_u32(n * 7)).collect();
        assert!(explain(&noise.repeat(20), "k", None).len() < 20_000);
    }
}
