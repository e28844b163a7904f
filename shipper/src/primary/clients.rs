//! The control clients of a primary that wait for an answer.
//!
//! Always holds: each request gets one answer at most.

use crate::control::Response;
use crate::control::server::ClientId;

/// Clients, and the answers that are ready for them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    waiting: Vec<ClientId>,
    /// Those that want the next cut without a suspend.
    quiesced: Vec<ClientId>,
    /// Those whose `--quiesced` checkpoint the cut in progress serves.
    cutting: Vec<ClientId>,
    ready: Vec<(ClientId, Response)>,
}

impl Clients {
    /// This client's request takes a while.
    pub(super) fn wait(&mut self, client: ClientId) {
        self.waiting.push(client);
    }

    /// The same, and the cut for it must not suspend.
    pub(super) fn wait_quiesced(&mut self, client: ClientId) {
        self.waiting.push(client);
        self.quiesced.push(client);
    }

    /// Answers a client that does not wait.
    pub(super) fn answer_at_once(&mut self, client: ClientId, answer: Response) {
        self.ready.push((client, answer));
    }

    /// Answers client `id`, if it waits still.
    pub(super) fn answer(&mut self, id: u64, answer: Response) {
        if let Some(index) = self.waiting.iter().position(|client| client.0 as u64 == id) {
            let client = self.waiting.swap_remove(index);
            self.ready.push((client, answer));
        }
    }

    /// The checkpoint of this client fails: no cut need be quiesced for it.
    pub(super) fn fail_checkpoint(&mut self, id: u64, reason: String) {
        self.quiesced.retain(|client| client.0 as u64 != id);
        self.answer(id, Response::Failed { reason });
    }

    /// A cut is ordered. Returns whether it must not suspend. A part suspends, also if a checkpoint waits for the
    /// epoch's end.
    pub(super) fn begin_cut(&mut self, part: bool) -> bool {
        self.cutting = if part { Vec::new() } else { std::mem::take(&mut self.quiesced) };
        !self.cutting.is_empty()
    }

    /// Whom the cut in progress was to serve without a suspend; they get no suspend instead.
    pub(super) fn withdraw(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.cutting)
    }

    /// What is ready.
    pub(super) fn take_ready(&mut self) -> Vec<(ClientId, Response)> {
        std::mem::take(&mut self.ready)
    }
}
