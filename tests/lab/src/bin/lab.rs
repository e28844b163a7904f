//! The `lab` command: runs scenarios on two hosts. See the lab's README.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports to a terminal")]

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ftdm_lab::client::{self, Input};
use ftdm_lab::control::LAB_ERROR;
use ftdm_lab::host::Kind;
use ftdm_lab::host::root_image::RootImage;
use ftdm_lab::machines;
use ftdm_lab::scenario::{self, Lab, Outcome, Ran, Scenario, Setting};
use ftdm_lab_kernels::{Kernel, Unavailable};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use structopt::StructOpt;
use structopt::clap::{AppSettings, ErrorKind};

/// A scenario failed.
const FAILED: u8 = 1;
/// The command line or a scenario's header is wrong, or the machine lacks something.
const USAGE: u8 = 2;
/// The lab itself broke.
const BROKEN: u8 = 3;
/// Ended by a signal.
const INTERRUPTED: u8 = 130;

#[derive(Debug, StructOpt)]
#[structopt(
    name = "lab",
    about = "Two hosts with real kernels, for scenarios",
    global_settings = &[AppSettings::DisableVersion, AppSettings::VersionlessSubcommands]
)]
enum Cli {
    /// Runs scenarios, each on two freshly booted hosts with blank disks
    Run {
        /// How many scenarios run side by side
        #[structopt(long, default_value = "1")]
        jobs: usize,
        #[structopt(flatten)]
        options: Options,
        /// Print everything the scenario prints, not only its steps
        #[structopt(long, short)]
        verbose: bool,
        /// Keep the disk images of scenarios that pass
        #[structopt(long)]
        keep: bool,
        /// The scenarios
        #[structopt(required = true, name = "SCRIPT")]
        scripts: Vec<PathBuf>,
    },
    /// Boots two hosts and gives you a shell on one of them
    Shell {
        /// `primary` or `backup`
        #[structopt(name = "HOST")]
        host: String,
        #[structopt(flatten)]
        options: Options,
        /// Run this scenario first
        #[structopt(long)]
        scenario: Option<PathBuf>,
    },
    /// Says which kernels and back ends work on this machine
    Doctor,
    /// Lists the hosts' kernels, for `--kernel`
    Kernels,
    /// Lists the project's scenarios
    List,
    /// Removes the folders of earlier runs
    Clean,
    /// Makes one request to a lab that runs (in $LAB_DIR): what a scenario's commands are made of
    #[structopt(setting = AppSettings::TrailingVarArg, setting = AppSettings::AllowLeadingHyphen)]
    Ctl {
        /// The request
        #[structopt(required = true, name = "REQUEST", parse(from_os_str))]
        words: Vec<OsString>,
    },
}

#[derive(Debug, StructOpt)]
struct Options {
    /// What runs the kernels: `uml`, `qemu` or `icount`, instead of what the scenario prefers (else `uml`)
    #[structopt(long)]
    backend: Option<Kind>,
    /// The hosts' kernel, see `lab kernels`
    #[structopt(long, default_value = "distribution")]
    kernel: Kernel,
    /// Seconds that a scenario may take, instead of what it asks for
    #[structopt(long)]
    timeout: Option<u64>,
    /// The scenarios' $LAB_SEED
    #[structopt(long, default_value = "1")]
    seed: u64,
    /// Size of the disks, instead of what the scenario asks for
    #[structopt(long, parse(try_from_str = disk_size))]
    disk_size: Option<u64>,
}

fn disk_size(text: &str) -> Result<u64> {
    scenario::check_disk_size(scenario::parse_size(text)?)
}

fn main() -> ExitCode {
    let cli = match Cli::from_args_safe() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) => {
            println!("{}", error.message);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{}", error.message);
            return ExitCode::from(USAGE);
        }
    };
    let result = match cli {
        Cli::Run { jobs, options, verbose, keep, scripts } => {
            setting(options).map(|setting| Setting { keep, ..setting }).and_then(|setting| {
                let scenarios = scripts.iter().map(|script| Scenario::load(script)).collect::<Result<_>>()?;
                let scenarios = runnable(scenarios, &setting)?;
                Ok(run(&scenarios, jobs.max(1), verbose, &setting))
            })
        }
        Cli::Shell { host, options, scenario } => {
            setting(options).and_then(|setting| shell(&host, scenario.as_deref(), setting))
        }
        // `tests/lab/lab` has them done by a program that is built in seconds.
        Cli::Doctor | Cli::Kernels => Err(anyhow!("start it as tests/lab/lab")),
        Cli::List => list(),
        Cli::Clean => clean(),
        Cli::Ctl { words } => return ctl(words),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(USAGE)
    })
}

fn from_environment(name: &str) -> Result<PathBuf> {
    let value =
        std::env::var_os(name).with_context(|| format!("${name} is not set: start it as tests/lab/lab"))?;
    Ok(PathBuf::from(value))
}

fn setting(options: Options) -> Result<Setting> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab needs root, for namespaces and mounts (the hosts' kernels then run as nobody)");
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // A second signal ends the driver at once; its hosts end with it.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED.into(),
            Arc::clone(&interrupted),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let lab_programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let setting = Setting {
        root: from_environment("LAB_RUNS")?,
        programs: from_environment("LAB_BIN_DIR")?,
        repository: from_environment("LAB_REPOSITORY")?,
        lab_programs,
        cache: from_environment("LAB_CACHE")?,
        backend: options.backend,
        kernel: options.kernel,
        seed: options.seed,
        timeout: options.timeout.map(Duration::from_secs),
        disk_size: options.disk_size,
        keep: false,
        interrupted,
    };
    for name in scenario::PROGRAMS {
        if !setting.programs.join(name).exists() {
            eprintln!("lab: warning: {} has no `{name}`; hosts go without it", setting.programs.display());
        }
    }
    Ok(setting)
}

/// The scenarios that run on the back end and the kernel that are wanted, which are made ready.
///
/// Empty when a kernel that was asked for by name cannot be had: that is no fault of the scenarios.
fn runnable(scenarios: Vec<Scenario>, setting: &Setting) -> Result<Vec<Scenario>> {
    let mut kinds: Vec<Kind> = Vec::new();
    let mut runnable = Vec::new();
    for scenario in scenarios {
        match scenario.backend(setting.backend) {
            Some(kind) => {
                kinds.push(kind);
                runnable.push(scenario);
            }
            None => println!("lab: skipped: {}", scenario.runs_on()),
        }
    }
    if runnable.is_empty() {
        bail!("nothing to run");
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
        let prepared = kind.backend(setting.kernel, &setting.cache).prepare(&|line| println!("lab: {line}"));
        match prepared {
            Err(error) if setting.kernel != Kernel::Distribution && error.is::<Unavailable>() => {
                println!("lab: skipped on `{kind}`: no kernel `{}`: {error:#}", setting.kernel);
                runnable.retain(|scenario| scenario.backend(setting.backend) != Some(kind));
            }
            prepared => prepared?,
        }
    }
    if runnable.iter().any(|scenario| scenario.hardware.root) {
        RootImage::new(&setting.cache).prepare(&|line| println!("lab: {line}"))?;
    }
    Ok(runnable)
}

/// One line of the final table.
struct Row {
    name: String,
    outcome: Outcome,
    seconds: f64,
    broken: bool,
}

fn run(scenarios: &[Scenario], jobs: usize, verbose: bool, setting: &Setting) -> ExitCode {
    let single = scenarios.len() == 1;
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.min(scenarios.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = scenarios.get(number) else { return };
                    if setting.interrupted.load(Ordering::Relaxed) {
                        return;
                    }
                    let row = run_one(scenario, setting, single, verbose);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(number, _)| *number);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    report(&rows, scenarios, setting)
}

fn run_one(scenario: &Scenario, setting: &Setting, single: bool, verbose: bool) -> Row {
    let name = scenario.name.clone();
    println!("lab: {name}: started");
    let begun = Instant::now();
    let label = name.clone();
    let each_line = move |line: &str| match (verbose || line.starts_with("== "), single) {
        (true, true) => println!("{line}"),
        (true, false) if verbose => println!("{label}: {line}"),
        _ => {}
    };
    let result = scenario::run(scenario, setting, each_line);
    let seconds = begun.elapsed().as_secs_f64();
    let (outcome, broken) = match result {
        Ok(ran) => {
            if let Outcome::Failed(reason) = &ran.outcome {
                explain(scenario, reason, &ran, verbose && single);
            }
            (ran.outcome, false)
        }
        Err(error) => {
            println!("lab: {name}: the lab failed: {error:#}");
            println!("lab: {name}: files: {}", setting.root.join(&name).display());
            (Outcome::Failed("the lab failed".to_owned()), true)
        }
    };
    let word = match &outcome {
        Outcome::Passed => "passed",
        Outcome::Failed(_) => "FAILED",
        Outcome::Interrupted => "interrupted",
    };
    println!("lab: {name}: {word} after {seconds:.1} s");
    Row { name, outcome, seconds, broken }
}

/// Says why a scenario failed, where its files are and how to run it alone.
fn explain(scenario: &Scenario, reason: &str, ran: &Ran, seen: bool) {
    let folder = ran.folder.path();
    let log = std::fs::read(folder.join("run.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let mut text = format!("lab: {}: {reason}\n", scenario.name);
    if !seen {
        for line in &lines[lines.len().saturating_sub(25)..] {
            text.push_str(&format!("    | {line}\n"));
        }
    }
    for (host, why) in
        ran.deaths.iter().filter(|(host, _)| !log.contains(&format!("lab: {host} ended by itself")))
    {
        text.push_str(&format!("lab: {host} ended by itself\n{why}\n"));
    }
    text.push_str(&format!("    files: {} (run.log, {{primary,backup}}/console.log)\n", folder.display()));
    text.push_str(&format!("    again: tests/lab/lab run --verbose {}", scenario.script.display()));
    println!("{text}");
}

fn report(rows: &[Row], scenarios: &[Scenario], setting: &Setting) -> ExitCode {
    let passed = rows.iter().filter(|row| row.outcome == Outcome::Passed).count();
    if scenarios.len() > 1 {
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in rows {
            let result = match &row.outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(reason) => format!("FAILED ({reason})"),
                Outcome::Interrupted => "interrupted".to_owned(),
            };
            println!("{:width$}  {:7.1} s  {result}", row.name, row.seconds);
        }
    }
    println!("lab: {passed} passed, {} failed", rows.len() - passed);
    if setting.interrupted.load(Ordering::Relaxed) {
        ExitCode::from(INTERRUPTED)
    } else if rows.iter().any(|row| row.broken) {
        ExitCode::from(BROKEN)
    } else if passed == scenarios.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

fn shell(host: &str, script: Option<&Path>, setting: Setting) -> Result<ExitCode> {
    machines::host_index(host.as_bytes())?;
    let scenario = match script {
        Some(script) => Scenario::load(script)?,
        None => Scenario::blank("shell"),
    };
    let scenario = runnable(vec![scenario], &setting)?.pop().context("the hosts have no kernel")?;
    println!("lab: booting two hosts");
    let lab = match Lab::start(&scenario, &setting) {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("lab: {error:#}");
            return Ok(ExitCode::from(BROKEN));
        }
    };
    if script.is_some() {
        let outcome = lab.script(&scenario.script, &setting, Instant::now(), |line| println!("{line}"))?;
        println!("lab: the scenario ended: {outcome:?}");
    }
    let folder = lab.folder.path();
    println!(
        "lab: from another terminal: LAB_DIR={} {} ctl power_off {host}",
        folder.display(),
        lab_program(folder)
    );
    let code = if io::stdin().is_terminal() {
        let term = std::env::var_os("TERM").unwrap_or_default().into_vec();
        let term = [b"TERM=".to_vec(), term].concat();
        let command =
            [b"on".to_vec(), host.into(), b"env".to_vec(), term, b"script".to_vec(), b"-qefc".to_vec()];
        let command = [&command[..], &[b"bash -i".to_vec(), b"/dev/null".to_vec()]].concat();
        let _raw = RawTerminal::enter()?;
        client::request(folder, command, Input::Always)
    } else {
        client::request(folder, vec![b"on".to_vec(), host.into(), b"bash".to_vec()], Input::Always)
    }?;
    lab.stop();
    lab.folder.remove_images();
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn lab_program(folder: &Path) -> String {
    folder.join("bin/lab").display().to_string()
}

/// The terminal without line editing, until dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("cannot change the terminal's settings")?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

fn list() -> Result<ExitCode> {
    let folder = from_environment("LAB_REPOSITORY")?.join("tests/scenarios");
    let mut scripts: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    scripts.retain(|script| script.extension().is_some_and(|extension| extension == "sh"));
    scripts.sort();
    for script in scripts {
        let scenario = Scenario::load(&script)?;
        println!("{:30} {}", scenario.name, scenario.summary);
    }
    Ok(ExitCode::SUCCESS)
}

fn clean() -> Result<ExitCode> {
    let folder = from_environment("LAB_RUNS")?;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn ctl(words: Vec<OsString>) -> ExitCode {
    let words = words.into_iter().map(OsString::into_vec).collect();
    let code = from_environment("LAB_DIR").and_then(|folder| client::request(&folder, words, Input::Pipe));
    let code = code.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        LAB_ERROR
    });
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
