//! The agent: runs commands in the host for the driver.
//!
//! What must hold: a command gets its arguments, its input and its signals as they were sent; its
//! exit frame comes after all the output that it wrote itself; processes it leaves behind do not
//! hold up the exit and are not killed by it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::frame::{Frame, FrameError, Message, Stream, WINDOW};
use super::window::Window;

/// How long the output of an ended command is waited for when other processes hold it open.
const LINGER_MS: u16 = 100;

/// The most output that goes into one frame.
const PIECE: usize = 16 * 1024;

type Output<W> = Arc<Mutex<W>>;

struct Session {
    input: Mutex<Option<Input>>,
    /// Of standard output and standard error.
    windows: [Window; 2],
    /// While the command runs.
    group: Mutex<Option<Pid>>,
}

/// A command's standard input while it is open.
enum Input {
    /// Nothing has been sent yet, so nobody attends to it.
    Unused(ChildStdin),
    /// A thread writes to it what is sent here.
    Fed(Sender<Vec<u8>>),
}

type Sessions = Mutex<HashMap<u32, Arc<Session>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line from the driver; says what has been taken from it.
struct Line<R, W> {
    input: R,
    output: Output<W>,
}

impl<R: Read, W: Write> Read for Line<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let (true, Ok(taken)) = (count > 0, u32::try_from(count)) {
            send(&self.output, 0, Message::Taken(Stream::Stdin, taken));
        }
        Ok(count)
    }
}

/// Serves the driver until the channel ends.
///
/// # Errors
/// When the channel fails or carries something else than frames.
pub fn serve<W: Write + Send + 'static>(input: impl Read, output: W) -> Result<(), FrameError> {
    let output = Arc::new(Mutex::new(output));
    let mut input = BufReader::new(Line { input, output: Arc::clone(&output) });
    let sessions: Arc<Sessions> = Arc::default();
    send(&output, 0, Message::Hello);
    while let Some(Frame { session: id, message }) = Frame::read(&mut input)? {
        if let Message::Run(words) = message {
            // Started here, so that a signal that follows at once finds the command.
            open(id, words, &sessions, &output);
            continue;
        }
        let Some(session) = lock(&sessions).get(&id).cloned() else { continue };
        match message {
            Message::Data(Stream::Stdin, bytes) => session.feed(id, bytes, &output),
            Message::End(Stream::Stdin) => *lock(&session.input) = None,
            Message::Taken(Stream::Stdout, count) => session.windows[0].taken(count),
            Message::Taken(Stream::Stderr, count) => session.windows[1].taken(count),
            Message::Signal(number) => session.signal(number),
            _ => {}
        }
    }
    for session in lock(&sessions).values() {
        session.signal(Signal::SIGKILL as i32);
    }
    Ok(())
}

impl Session {
    fn feed<W: Write + Send + 'static>(&self, id: u32, bytes: Vec<u8>, output: &Output<W>) {
        let mut input = lock(&self.input);
        *input = match input.take() {
            Some(Input::Unused(stdin)) => {
                let (sender, received) = channel();
                let output = Arc::clone(output);
                thread::spawn(move || feed(id, stdin, &received, &output));
                Some(Input::Fed(sender))
            }
            other => other,
        };
        if let Some(Input::Fed(sender)) = &*input {
            // The thread takes everything, also when the command has closed its input.
            let _ = sender.send(bytes);
        }
    }

    fn signal(&self, number: i32) {
        if let (Some(group), Ok(signal)) = (*lock(&self.group), Signal::try_from(number)) {
            // The group may just have ended.
            let _ = killpg(group, signal);
        }
    }
}

fn send<W: Write>(output: &Output<W>, session: u32, message: Message) {
    // When the channel is gone, the reading side notices it and ends the agent.
    let _ = Frame::new(session, message).write(&mut *lock(output));
}

fn open<W: Write + Send + 'static>(
    id: u32,
    words: Vec<Vec<u8>>,
    sessions: &Arc<Sessions>,
    output: &Output<W>,
) {
    let mut child = match start(words) {
        Ok(child) => child,
        Err(error) => {
            send(output, id, Message::Data(Stream::Stderr, format!("lab-agent: {error}\n").into_bytes()));
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            send(output, id, Message::Exit(code));
            return;
        }
    };
    let session = Arc::new(Session {
        input: Mutex::new(child.stdin.take().map(Input::Unused)),
        windows: [Window::new(WINDOW), Window::new(WINDOW)],
        group: Mutex::new(i32::try_from(child.id()).ok().map(Pid::from_raw)),
    });
    lock(sessions).insert(id, Arc::clone(&session));
    let (sessions, output) = (Arc::clone(sessions), Arc::clone(output));
    thread::spawn(move || {
        let code = attend(id, child, &session, &output);
        lock(&sessions).remove(&id);
        send(&output, id, Message::Exit(code));
    });
}

fn start(words: Vec<Vec<u8>>) -> io::Result<Child> {
    let mut words = words.into_iter().map(OsString::from_vec);
    let program = words.next().ok_or_else(|| io::Error::other("no command given"))?;
    Command::new(&program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.to_string_lossy())))
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(126)
}

fn feed<W: Write>(id: u32, mut stdin: ChildStdin, input: &Receiver<Vec<u8>>, output: &Output<W>) {
    for bytes in input {
        let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // When the command has closed its input, the bytes are taken all the same.
        let _ = stdin.write_all(&bytes);
        send(output, id, Message::Taken(Stream::Stdin, taken));
    }
}

/// One of a command's outputs.
struct Pipe {
    stream: Stream,
    from: OwnedFd,
}

/// Relays a command's output until it has ended; returns its exit code.
fn attend<W: Write>(id: u32, mut child: Child, session: &Session, output: &Output<W>) -> i32 {
    let stdout = child.stdout.take().map(|from| Pipe { stream: Stream::Stdout, from: from.into() });
    let stderr = child.stderr.take().map(|from| Pipe { stream: Stream::Stderr, from: from.into() });
    let mut pipes: Vec<Pipe> = stdout.into_iter().chain(stderr).collect();
    let mut status = None;
    let mut buffer = vec![0; PIECE];
    while !pipes.is_empty() {
        let mut ready: Vec<_> =
            pipes.iter().map(|pipe| PollFd::new(pipe.from.as_fd(), PollFlags::POLLIN)).collect();
        let count = poll(&mut ready, PollTimeout::from(LINGER_MS));
        let ready: Vec<bool> = ready.iter().map(|pipe| pipe.any().unwrap_or(true)).collect();
        if count == Ok(0) {
            if status.is_some() {
                break;
            }
            status = child.try_wait().ok().flatten();
            continue;
        }
        let mut ready = ready.into_iter();
        pipes.retain(|pipe| !ready.next().unwrap_or(false) || relay(id, pipe, session, output, &mut buffer));
    }
    let code = status.map_or_else(|| child.wait(), Ok).map_or(126, exit_code);
    *lock(&session.group) = None;
    if !pipes.is_empty() {
        // Processes that the command left behind still hold its output: do not break their pipes.
        thread::spawn(move || {
            for pipe in pipes {
                let _ = io::copy(&mut File::from(pipe.from), &mut io::sink());
            }
        });
    }
    code
}

/// Passes on what is there; `false` when the output has ended.
fn relay<W: Write>(id: u32, pipe: &Pipe, session: &Session, output: &Output<W>, buffer: &mut [u8]) -> bool {
    match nix::unistd::read(&pipe.from, buffer) {
        Ok(0) => false,
        Ok(count) => {
            session.windows[usize::from(pipe.stream == Stream::Stderr)].reserve(count);
            send(output, id, Message::Data(pipe.stream, buffer[..count].to_vec()));
            true
        }
        Err(error) => error == Errno::EINTR,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::super::channel::Channel;
    use super::*;

    fn agent() -> Channel {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = far.try_clone().unwrap();
        thread::spawn(move || serve(far, writer));
        let channel = Channel::new(near).unwrap();
        channel.wait_ready(Duration::from_secs(5)).unwrap();
        channel
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn outcome(channel: &Channel, command: &[&str], input: &[u8]) -> (Vec<u8>, Vec<u8>, i32) {
        let session = channel.run(words(command)).unwrap();
        for piece in input.chunks(1000) {
            assert!(channel.send(session.id, Message::Data(Stream::Stdin, piece.to_vec())));
        }
        assert!(channel.send(session.id, Message::End(Stream::Stdin)));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for message in &session.messages {
            match message {
                Message::Data(stream, bytes) => {
                    channel.send(session.id, Message::Taken(stream, bytes.len().try_into().unwrap()));
                    if stream == Stream::Stdout { &mut stdout } else { &mut stderr }.extend(bytes);
                }
                Message::Exit(code) => return (stdout, stderr, code),
                _ => {}
            }
        }
        panic!("the session ended without an exit code");
    }

    #[test]
    fn output_errors_and_code_come_back() {
        let result = outcome(&agent(), &["sh", "-c", "echo out; echo err >&2; exit 7"], b"");
        assert_eq!(result, (b"out\n".to_vec(), b"err\n".to_vec(), 7));
    }

    #[test]
    fn arguments_and_input_are_bytes() {
        let channel = agent();
        let (stdout, _, _) = outcome(&channel, &["printf", "%s|", "", "a b", "$x\n'\""], b"");
        assert_eq!(stdout, b"|a b|$x\n'\"|");
        let input: Vec<u8> =
            (0..2400).flat_map(|n: u32| (0..=249).map(move |byte| n.to_le_bytes()[0] ^ byte)).collect();
        assert_eq!(outcome(&channel, &["cat"], &input).0, input);
    }

    #[test]
    fn a_missing_command_is_127() {
        assert_eq!(outcome(&agent(), &["/nowhere/to/be/found"], b"").2, 127);
    }

    #[test]
    fn a_signal_ends_the_whole_group() {
        let channel = agent();
        let session = channel.run(words(&["sh", "-c", "sleep 60 & echo up; wait"])).unwrap();
        assert!(matches!(session.messages.recv().unwrap(), Message::Data(Stream::Stdout, _)));
        channel.send(session.id, Message::Signal(Signal::SIGTERM as i32));
        assert_eq!(session.messages.recv().unwrap(), Message::Exit(128 + 15));
    }

    #[test]
    fn leftover_processes_do_not_hold_up_the_exit() {
        let started = Instant::now();
        let (stdout, _, code) = outcome(&agent(), &["sh", "-c", "sleep 20 & echo done"], b"");
        assert_eq!((stdout.as_slice(), code), (b"done\n".as_slice(), 0));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_slow_reader_stops_the_writer_and_not_the_others() {
        let channel = agent();
        let slow = channel.run(words(&["yes"])).unwrap();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(outcome(&channel, &["echo", "quick"], b"").0, b"quick\n");
        let waiting: usize = slow
            .messages
            .try_iter()
            .map(|message| if let Message::Data(_, bytes) = message { bytes.len() } else { 0 })
            .sum();
        assert!(waiting > 0 && waiting <= WINDOW, "{waiting} bytes on the way");
    }
}
