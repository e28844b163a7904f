//! `lab doctor` and `lab kernels`: a program of its own, because it is built in seconds, before everything else.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports to a terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use ftdm_lab_kernels::Kernel;
use ftdm_lab_kernels::doctor::{self, Finding, Line, Places};
use ftdm_lab_kernels::stock::Stock;
use ftdm_lab_kernels::uml::Uml;

const USAGE: &str = "usage: lab doctor [--quick] | lab kernels";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["doctor"] => places().map(|places| examine(&places, false)),
        ["doctor", "--quick"] => places().map(|places| examine(&places, true)),
        ["kernels"] => places().map(|places| list(&places)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(3)
    })
}

fn places() -> Result<Places> {
    let cache = std::env::var_os("LAB_CACHE").context("$LAB_CACHE is not set: start it as tests/lab/lab")?;
    let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let target = programs.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Places { cache: PathBuf::from(cache), programs, target })
}

/// Says how things are; the exit code is of what everything rests on.
fn examine(places: &Places, quick: bool) -> ExitCode {
    let basics = doctor::basics(places);
    let broken = basics.iter().any(|line| matches!(line.finding, Finding::Broken(_)));
    if quick {
        basics.iter().filter(|line| matches!(line.finding, Finding::Broken(_))).for_each(show);
        if broken {
            println!("lab: the lab does not work on this machine; `tests/lab/lab doctor` says more");
        } else if let Some(Line { what, finding: Finding::Works(how) }) = basics.last() {
            println!("lab: this machine will do; {what}: {how}");
        }
    } else {
        basics.iter().for_each(show);
        doctor::others(places).iter().for_each(show);
    }
    ExitCode::from(u8::from(broken))
}

fn show(line: &Line) {
    let (word, text) = match &line.finding {
        Finding::Works(text) => ("ok", text),
        Finding::Absent(text) => ("-", text),
        Finding::Broken(text) => ("NO", text),
    };
    println!("{:<3} {:<28} {text}", word, line.what);
}

fn list(places: &Places) -> ExitCode {
    println!("{:<14} {:<6} release", "--kernel", "on");
    for kernel in Kernel::ALL {
        let uml = Uml::new(kernel, &places.cache);
        let stock = Stock::new(kernel, &places.cache);
        let to_be_fetched = || "fetched when you first ask for it".to_owned();
        let missing = || if uml.folder().is_some() { to_be_fetched() } else { "not installed".to_owned() };
        println!("{:<14} {:<6} {}", kernel.to_string(), "uml", uml.release().unwrap_or_else(|_| missing()));
        println!("{:<14} {:<6} {}", "", "qemu", stock.release().unwrap_or_else(|_| to_be_fetched()));
    }
    ExitCode::SUCCESS
}
