//! The driver's side of a host's agent: many sessions over one channel.
//!
//! What must hold: when the channel ends (the host died or was powered off), every open session
//! learns it at once by the end of its messages.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::frame::{Frame, LINE_PIECE, LINE_WINDOW, Message};
use super::window::Window;

/// The connection to the agent of one running host.
#[derive(Debug)]
pub struct Channel {
    writer: Mutex<UnixStream>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Of the bytes to the agent, whatever session they are of.
    line: Window,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    ended: Option<String>,
    last_session: u32,
    sessions: HashMap<u32, Sender<Message>>,
}

/// One command that runs in a host.
#[derive(Debug)]
pub struct Session {
    /// Its number on the channel.
    pub id: u32,
    /// What the agent says; ends without [`Message::Exit`] when the host is gone.
    pub messages: Receiver<Message>,
}

impl Channel {
    /// Takes over the channel; the agent need not be there yet.
    ///
    /// # Errors
    /// When the stream cannot be duplicated.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            line: Window::new(LINE_WINDOW),
        });
        let reader = stream.try_clone().context("cannot duplicate the agent's channel")?;
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || read_loop(reader, &shared)
        });
        Ok(Channel { writer: Mutex::new(stream), shared })
    }

    /// Waits for the agent's first sign of life.
    ///
    /// # Errors
    /// When the host ends first, or is not ready in time.
    pub fn wait_ready(&self, patience: Duration) -> Result<()> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, patience, |state| !state.ready && state.ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &state.ended {
            Some(reason) => bail!("the host ended while it started ({reason})"),
            None if state.ready => Ok(()),
            None => bail!("the host was not ready after {} s", patience.as_secs()),
        }
    }

    /// Waits until the channel has ended, which happens when the last process of the host is gone.
    #[must_use]
    pub fn wait_ended(&self, patience: Duration) -> bool {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, patience, |state| state.ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.ended.is_some()
    }

    /// Starts a command; `None` when the host is gone.
    #[must_use]
    pub fn run(&self, words: Vec<Vec<u8>>) -> Option<Session> {
        let (sender, messages) = channel();
        let id = {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.ended.is_some() {
                return None;
            }
            state.last_session += 1;
            let id = state.last_session;
            state.sessions.insert(id, sender);
            id
        };
        self.send(id, Message::Run(words)).then_some(Session { id, messages })
    }

    /// Sends a message to a session; `false` when the host is gone.
    pub fn send(&self, session: u32, message: Message) -> bool {
        let Ok(bytes) = Frame::new(session, message).encode() else { return false };
        if self.wait_ended(Duration::ZERO) {
            return false;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.chunks(LINE_PIECE).all(|piece| {
            self.shared.line.reserve(piece.len());
            writer.write_all(piece).is_ok()
        })
    }
}

fn read_loop(stream: UnixStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let reason = loop {
        let frame = match Frame::read(&mut reader) {
            Ok(Some(frame)) => frame,
            Ok(None) => break "its channel closed".to_owned(),
            Err(error) => break error.to_string(),
        };
        if let Frame { session: 0, message: Message::Taken(_, count) } = frame {
            shared.line.taken(count);
            continue;
        }
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if frame.message == Message::Hello {
            state.ready = true;
            shared.changed.notify_all();
            continue;
        }
        let last = matches!(frame.message, Message::Exit(_));
        if let Some(session) = state.sessions.get(&frame.session) {
            // A session that nobody listens to any more is dropped below or at its exit.
            let _ = session.send(frame.message);
        }
        if last {
            state.sessions.remove(&frame.session);
        }
    };
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.sessions.clear();
    state.ended = Some(reason);
    // Whoever waits to send now finds the channel closed.
    shared.line.taken(u32::MAX);
    shared.changed.notify_all();
}
