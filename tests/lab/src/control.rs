//! What a scenario asks of the lab: a socket on which each client makes one request.
//!
//! A client sends [`Message::Run`] with the request's words and gets output and, last, an exit
//! code, exactly as with a command in a host. What must hold: a client that goes away ends its
//! command; every request is answered with an exit code, also when its host dies under it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::agent::channel::{Channel, Session};
use crate::agent::frame::{Frame, Message, Stream};
use crate::disk::overlay::{Flushes, Survivors};
use crate::folder::{Folder, ShortPath};
use crate::machines::{HOSTS, Machines, host_index};

/// The name of the control socket in the run's folder.
pub const SOCKET: &str = "control";

/// Exit code of a command whose host went off under it.
pub const HOST_LOST: i32 = 200;

/// Exit code when the host is off to begin with.
pub const HOST_OFF: i32 = 201;

/// Exit code when the lab itself cannot do what is asked.
pub const LAB_ERROR: i32 = 202;

/// A request, understood.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    On { host: usize, command: Vec<Vec<u8>> },
    Background { host: usize, command: Vec<Vec<u8>> },
    WaitBackground(Option<u32>),
    KillBackground { job: u32, signal: Signal },
    PowerOn(usize),
    PowerOff { host: usize, survivors: Survivors },
    Link { up: bool },
    DiskStats(usize),
    DiskFlushes { host: usize, disk: usize, flushes: Flushes },
}

impl Request {
    fn parse(words: &[Vec<u8>]) -> Result<Self> {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let command = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
        Ok(match words.as_slice() {
            [b"on", host, first @ ..] if !first.is_empty() => {
                Request::On { host: host_index(host)?, command: command(first) }
            }
            [b"background", host, first @ ..] if !first.is_empty() => {
                Request::Background { host: host_index(host)?, command: command(first) }
            }
            [b"wait_background"] => Request::WaitBackground(None),
            [b"wait_background", job] => Request::WaitBackground(Some(number(job)?)),
            [b"kill_background", job] => {
                Request::KillBackground { job: number(job)?, signal: Signal::SIGTERM }
            }
            [b"kill_background", job, name] => {
                Request::KillBackground { job: number(job)?, signal: signal(name)? }
            }
            [b"power_on", host] => Request::PowerOn(host_index(host)?),
            [b"power_off", host] => {
                Request::PowerOff { host: host_index(host)?, survivors: Survivors::Nothing }
            }
            [b"power_off", host, b"--keep-random", seed] | [b"power_off", b"--keep-random", seed, host] => {
                Request::PowerOff { host: host_index(host)?, survivors: Survivors::Random(number(seed)?) }
            }
            [b"link", b"up"] => Request::Link { up: true },
            [b"link", b"down"] => Request::Link { up: false },
            [b"disk_stats", host] => Request::DiskStats(host_index(host)?),
            [b"disk_flushes", host, disk, b"fail"] => {
                Request::DiskFlushes { host: host_index(host)?, disk: number(disk)?, flushes: Flushes::Fail }
            }
            [b"disk_flushes", host, disk, b"work"] => {
                Request::DiskFlushes { host: host_index(host)?, disk: number(disk)?, flushes: Flushes::Work }
            }
            words => bail!("not understood: `{}`", String::from_utf8_lossy(&words.join(&b' '))),
        })
    }
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Result<T> {
    let text = String::from_utf8_lossy(word);
    text.parse().ok().with_context(|| format!("`{text}` is not a number that fits here"))
}

fn signal(word: &[u8]) -> Result<Signal> {
    let text = String::from_utf8_lossy(word);
    let parsed = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => format!("SIG{}", text.trim_start_matches("SIG")).parse().ok(),
    };
    parsed.with_context(|| format!("`{text}` is not a signal"))
}

/// The control socket's server.
#[derive(Debug)]
pub struct Control {
    machines: Machines,
    folder: Arc<Folder>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    last: u32,
    /// Those that nobody has waited for yet.
    open: BTreeMap<u32, Arc<Job>>,
}

#[derive(Debug)]
struct Job {
    channel: Arc<Channel>,
    session: u32,
    code: Mutex<Option<i32>>,
    ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// Takes requests for `machines` on the folder's control socket until the process ends.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(machines: Machines, folder: Arc<Folder>) -> Result<Arc<Self>> {
        let path = ShortPath::open(folder.path())?;
        let listener = UnixListener::bind(path.join(SOCKET)).context("cannot make the control socket")?;
        let control = Arc::new(Control { machines, folder, jobs: Mutex::default() });
        let weak = Arc::downgrade(&control);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(control) = weak.upgrade() else { return };
                thread::spawn(move || control.serve(stream));
            }
        });
        Ok(control)
    }

    /// The hosts.
    #[must_use]
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    fn serve(&self, stream: UnixStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut input = BufReader::new(reading);
        let mut output = stream;
        let Ok(Some(Frame { message: Message::Run(words), .. })) = Frame::read(&mut input) else { return };
        let code = Request::parse(&words)
            .and_then(|request| self.perform(request, input, &mut output))
            .unwrap_or_else(|error| {
                say(&mut output, Stream::Stderr, &format!("lab: {error:#}\n"));
                LAB_ERROR
            });
        say_exit(&mut output, code);
    }

    fn perform(
        &self,
        request: Request,
        input: BufReader<UnixStream>,
        output: &mut UnixStream,
    ) -> Result<i32> {
        match request {
            Request::On { host, command } => return Ok(self.on(host, command, input, output)),
            Request::Background { host, command } => return self.background(host, command, output),
            Request::WaitBackground(Some(job)) => return self.wait_background(job),
            Request::WaitBackground(None) => return self.wait_all(),
            Request::KillBackground { job, signal } => {
                let job = self.job(job)?;
                job.channel.send(job.session, Message::Signal(signal as i32));
            }
            Request::PowerOn(host) => self.machines.power_on(host)?,
            Request::PowerOff { host, survivors } => self.machines.power_off(host, survivors)?,
            Request::Link { up } => self.machines.set_link(up)?,
            Request::DiskFlushes { host, disk, flushes } => self.machines.set_flushes(host, disk, flushes)?,
            Request::DiskStats(host) => say(output, Stream::Stdout, &self.machines.stats(host)),
        }
        Ok(0)
    }

    fn on(
        &self,
        host: usize,
        command: Vec<Vec<u8>>,
        input: BufReader<UnixStream>,
        output: &mut UnixStream,
    ) -> i32 {
        let Some(channel) = self.machines.channel(host) else {
            say(output, Stream::Stderr, &format!("lab: {} is off\n", HOSTS[host]));
            return HOST_OFF;
        };
        let Some(Session { id, messages }) = channel.run(command) else {
            let why = self.machines.death(host).unwrap_or_default();
            say(output, Stream::Stderr, &format!("lab: {} has ended by itself\n{why}\n", HOSTS[host]));
            return HOST_OFF;
        };
        thread::spawn({
            let channel = Arc::clone(&channel);
            move || forward(input, &channel, id)
        });
        for message in messages {
            if let Message::Exit(code) = message {
                return code;
            }
            let (stream, count) = match &message {
                Message::Data(stream, bytes) => (*stream, bytes.len()),
                _ => (Stream::Stdin, 0),
            };
            if Frame::new(0, message).write(output).is_err() && count > 0 {
                // The client is gone; its command is being killed, let it come to its end.
                channel.send(id, Message::Taken(stream, u32::try_from(count).unwrap_or(u32::MAX)));
            }
        }
        match self.machines.death(host) {
            Some(why) => {
                say(output, Stream::Stderr, &format!("lab: {} ended by itself\n{why}\n", HOSTS[host]));
            }
            None => say(output, Stream::Stderr, &format!("lab: {} went off\n", HOSTS[host])),
        }
        HOST_LOST
    }

    fn background(&self, host: usize, command: Vec<Vec<u8>>, output: &mut UnixStream) -> Result<i32> {
        let Some(channel) = self.machines.channel(host) else {
            say(output, Stream::Stderr, &format!("lab: {} is off\n", HOSTS[host]));
            return Ok(HOST_OFF);
        };
        let mut jobs = lock(&self.jobs);
        let number = jobs.last + 1;
        let file = |stream: &str| {
            let path = self.folder.jobs().join(format!("{number}.{stream}"));
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))
        };
        let files = [file("stdout")?, file("stderr")?];
        let session = channel.run(command).with_context(|| format!("{} is gone", HOSTS[host]))?;
        channel.send(session.id, Message::End(Stream::Stdin));
        let job = Job { channel, session: session.id, code: Mutex::new(None), ended: Condvar::new() };
        let job = Arc::new(job);
        jobs.last = number;
        jobs.open.insert(number, Arc::clone(&job));
        drop(jobs);
        thread::spawn(move || job.record(session, files));
        say(output, Stream::Stdout, &format!("{number}\n"));
        Ok(0)
    }

    fn job(&self, number: u32) -> Result<Arc<Job>> {
        lock(&self.jobs).open.get(&number).cloned().with_context(|| format!("no background job {number}"))
    }

    fn wait_background(&self, number: u32) -> Result<i32> {
        let code = self.job(number)?.wait();
        lock(&self.jobs).open.remove(&number);
        Ok(code)
    }

    fn wait_all(&self) -> Result<i32> {
        let numbers: Vec<u32> = lock(&self.jobs).open.keys().copied().collect();
        let codes = numbers.into_iter().map(|number| self.wait_background(number));
        let codes = codes.collect::<Result<Vec<_>>>()?;
        Ok(codes.into_iter().find(|&code| code != 0).unwrap_or(0))
    }
}

impl Job {
    fn record(&self, session: Session, [mut stdout, mut stderr]: [File; 2]) {
        let mut code = HOST_LOST;
        for message in session.messages {
            match message {
                Message::Data(stream, bytes) => {
                    let file = if stream == Stream::Stderr { &mut stderr } else { &mut stdout };
                    // A full file system must not keep the job from ending.
                    let _ = file.write_all(&bytes);
                    let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    self.channel.send(self.session, Message::Taken(stream, taken));
                }
                Message::Exit(exit) => code = exit,
                _ => {}
            }
        }
        *lock(&self.code) = Some(code);
        self.ended.notify_all();
    }

    fn wait(&self) -> i32 {
        let mut code = lock(&self.code);
        loop {
            if let Some(code) = *code {
                return code;
            }
            code = self.ended.wait(code).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Passes on what a client sends to its command; when the client is gone, so is the command.
fn forward(mut input: BufReader<UnixStream>, channel: &Channel, session: u32) {
    while let Ok(Some(Frame { message, .. })) = Frame::read(&mut input) {
        if !matches!(message, Message::Run(_)) {
            channel.send(session, message);
        }
    }
    // Does nothing when the command has ended.
    channel.send(session, Message::Signal(Signal::SIGKILL as i32));
}

fn say(output: &mut UnixStream, stream: Stream, text: &str) {
    if !text.is_empty() {
        // A client that is gone does not need to hear it.
        let _ = Frame::new(0, Message::Data(stream, text.as_bytes().to_vec())).write(output);
    }
}

fn say_exit(output: &mut UnixStream, code: i32) {
    // As above.
    let _ = Frame::new(0, Message::Exit(code)).write(output);
}

/// Connects to the control socket in a run's folder.
///
/// # Errors
/// When no lab is running there.
pub fn connect(folder: &Path) -> Result<UnixStream> {
    let path = ShortPath::open(folder)?;
    UnixStream::connect(path.join(SOCKET)).with_context(|| format!("no lab runs in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request> {
        Request::parse(&words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn requests_are_understood() {
        let command = vec![b"echo".to_vec(), b"a b".to_vec()];
        assert_eq!(parse(&["on", "backup", "echo", "a b"]).unwrap(), Request::On { host: 1, command });
        let random = Request::PowerOff { host: 0, survivors: Survivors::Random(7) };
        assert_eq!(parse(&["power_off", "primary", "--keep-random", "7"]).unwrap(), random);
        let flushes = Request::DiskFlushes { host: 1, disk: 2, flushes: Flushes::Fail };
        assert_eq!(parse(&["disk_flushes", "backup", "2", "fail"]).unwrap(), flushes);
        for name in ["KILL", "SIGKILL", "9"] {
            let kill = Request::KillBackground { job: 3, signal: Signal::SIGKILL };
            assert_eq!(parse(&["kill_background", "3", name]).unwrap(), kill);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for words in [
            &["on", "primary"][..],
            &["on", "third", "true"],
            &["link", "sideways"],
            &["power_off", "primary", "--keep-random", "x"],
            &["kill_background", "1", "NONSENSE"],
            &["disk_flushes", "backup", "0", "perhaps"],
            &[],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
