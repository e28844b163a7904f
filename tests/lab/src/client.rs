//! One request to a running lab, as a process: its input, output and exit code are the request's.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::agent::frame::{Frame, Message, Stream, WINDOW};
use crate::agent::window::Window;
use crate::control;

/// Where a request's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Standard input, but for a terminal's.
    Pipe,
    /// Standard input, whatever it is.
    Always,
}

/// Makes the request to the lab in `folder` and returns its exit code.
///
/// # Errors
/// When there is no lab, or it ends before it has answered.
pub fn request(folder: &Path, words: Vec<Vec<u8>>, input: Input) -> Result<i32> {
    let mut stream = control::connect(folder)?;
    let writer = Arc::new(Mutex::new(stream.try_clone().context("cannot duplicate the control socket")?));
    let window = Arc::new(Window::new(WINDOW));
    send(&writer, Message::Run(words))?;
    if input == Input::Pipe && io::stdin().is_terminal() {
        send(&writer, Message::End(Stream::Stdin))?;
    } else {
        let (writer, window) = (Arc::clone(&writer), Arc::clone(&window));
        thread::spawn(move || {
            // When the lab is gone, the reading side says so.
            let _ = feed(&writer, &window);
        });
    }
    let mut input = io::BufReader::new(&mut stream);
    while let Some(Frame { message, .. }) = Frame::read(&mut input)? {
        match message {
            Message::Data(stream, bytes) => {
                match stream {
                    Stream::Stderr => put(io::stderr().lock(), &bytes),
                    _ => put(io::stdout().lock(), &bytes),
                }
                .context("cannot pass on the output")?;
                let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                // Fails when the command has just ended.
                let _ = send(&writer, Message::Taken(stream, taken));
            }
            Message::Taken(Stream::Stdin, count) => window.taken(count),
            Message::Exit(code) => return Ok(code),
            _ => {}
        }
    }
    bail!("the lab ended")
}

fn send(writer: &Mutex<UnixStream>, message: Message) -> Result<()> {
    Ok(Frame::new(0, message).write(&mut *writer.lock().unwrap_or_else(PoisonError::into_inner))?)
}

fn feed(writer: &Mutex<UnixStream>, window: &Window) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = io::stdin().lock().read(&mut buffer)?;
        if count == 0 {
            return send(writer, Message::End(Stream::Stdin));
        }
        window.reserve(count);
        send(writer, Message::Data(Stream::Stdin, buffer[..count].to_vec()))?;
    }
}

fn put(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
