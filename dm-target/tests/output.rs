//! The command's output where nobody reads it, or where it cannot be written.

use std::fs::File;
use std::process::{Command, Output, Stdio};

const ANSWERS: [&[&str]; 3] = [&["--help"], &["create", "--help"], &["completions", "bash"]];

fn ftdm(arguments: &[&str], stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftdm"));
    command.args(arguments).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in ANSWERS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ftdm(arguments, writer.into());
        assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure_that_is_named() {
    for arguments in ANSWERS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = ftdm(arguments, full.into());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let reason = "cannot write the result: No space left on device (os error 28)\n";
        assert!(said(&output).ends_with(reason), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn standard_error_that_is_closed_changes_no_exit_code() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftdm"));
    let status = command.args(["written-since"]).stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
