//! Connections: ordered streams of frames that may be cut, delayed, or die at one end only.
//!
//! Always holds: within a connection frames arrive in order, each whole, until it ends; what was on its way
//! then is lost from some point on. Different connections know nothing of each other. A partition delays
//! everything to after its end, as TCP's repetitions do.

use std::collections::{BTreeMap, VecDeque};

use ftship_proto::frame::Frame;

use crate::world::{Event, Side, World};

pub(crate) type ConnId = u32;

#[derive(Debug)]
pub(crate) enum Item {
    Frame(Frame),
    /// The stream ends here: closed, or reset.
    End,
}

#[derive(Debug, Default)]
pub(crate) struct End {
    open: bool,
    /// On its way to this end.
    coming: VecDeque<Item>,
    last_at: u64,
    /// Arrived and not read.
    pub(crate) arrived: VecDeque<Item>,
}

#[derive(Debug, Default)]
struct Conn {
    ends: [End; 2],
    /// Nothing passes any more, though an end may not know.
    broken: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    pub(crate) partition_until: u64,
}

impl Net {
    pub(crate) fn arrived(&mut self, conn: ConnId, side: Side) -> Option<Item> {
        self.conns.get_mut(&conn)?.ends[side as usize].arrived.pop_front()
    }

    /// Frames sent and not read.
    pub(crate) fn unread(&self, conn: ConnId, side: Side) -> usize {
        self.conns.get(&conn).map_or(0, |conn| {
            let end = &conn.ends[side as usize];
            end.coming.len() + end.arrived.len()
        })
    }

    pub(crate) fn open_conns(&self) -> Vec<ConnId> {
        let open = |conn: &Conn| !conn.broken && conn.ends.iter().any(|end| end.open);
        self.conns.iter().filter(|(_, conn)| open(conn)).map(|(id, _)| *id).collect()
    }
}

impl World {
    fn net_delay(&mut self) -> u64 {
        let delay = self.random.around(self.scenario.net_delay);
        delay + self.net.partition_until.saturating_sub(self.now)
    }

    /// A connection attempt of the primary; what becomes of it shows later.
    pub(crate) fn net_connect(&mut self) -> ConnId {
        let conn = self.net.next;
        self.net.next += 1;
        let mut new = Conn::default();
        new.ends[Side::Primary as usize].open = true;
        self.net.conns.insert(conn, new);
        let at = self.now + self.net_delay();
        self.schedule(at, Event::Arrives { conn });
        conn
    }

    /// A connection to the backup whose other end is nobody of the pair.
    pub(crate) fn net_stranger(&mut self) -> ConnId {
        let conn = self.net.next;
        self.net.next += 1;
        let mut new = Conn::default();
        for end in &mut new.ends {
            end.open = true;
        }
        self.net.conns.insert(conn, new);
        conn
    }

    /// The attempt reaches the backup's host.
    pub(crate) fn net_arrives(&mut self, conn: ConnId) {
        let at = self.now + self.net_delay();
        if !self.backup.is_up() {
            if self.backup.powered {
                self.schedule(at, Event::Refused { conn });
            }
            return;
        }
        if let Some(state) = self.net.conns.get_mut(&conn) {
            state.ends[Side::Backup as usize].open = true;
            state.ends[Side::Primary as usize].last_at = at;
        }
        self.schedule(at, Event::Established { conn });
        self.backup_accept(conn);
    }

    pub(crate) fn net_send(&mut self, conn: ConnId, from: Side, item: Item) {
        let (delay, to) = (self.net_delay(), from.other());
        let reachable = self.is_powered(to);
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        if state.broken {
            return;
        }
        let (now, [a, b]) = (self.now, &mut state.ends);
        let (mine, theirs) = if from == Side::Primary { (a, b) } else { (b, a) };
        if theirs.open {
            theirs.last_at = theirs.last_at.max(now + delay);
            theirs.coming.push_back(item);
            let at = theirs.last_at;
            self.schedule(at, Event::Deliver { conn, to });
        } else if reachable && mine.open && matches!(item, Item::Frame(_)) {
            // Its host answers with a reset.
            mine.last_at = mine.last_at.max(now + delay);
            mine.coming.push_back(Item::End);
            let at = mine.last_at;
            self.schedule(at, Event::Deliver { conn, to: from });
        }
    }

    pub(crate) fn net_deliver(&mut self, conn: ConnId, to: Side) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let end = &mut state.ends[to as usize];
        if let Some(item) = end.coming.pop_front()
            && end.open
        {
            end.arrived.push_back(item);
            match to {
                Side::Primary => self.primary_receive(),
                Side::Backup => self.backup_receive(),
            }
        }
    }

    /// Closes one end; the other one learns it, unless this host lost its power.
    pub(crate) fn net_close(&mut self, conn: ConnId, side: Side, tells: bool) {
        let resets = self.random.coin();
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let end = &mut state.ends[side as usize];
        if !end.open {
            return;
        }
        end.open = false;
        let has_unread = !end.arrived.is_empty() || !end.coming.is_empty();
        end.arrived.clear();
        end.coming.clear();
        if tells && has_unread && resets {
            // A reset overtakes what was sent before.
            self.net_lose(conn, side.other());
        }
        if tells {
            self.net_send(conn, side, Item::End);
        }
    }

    /// Loses what is on its way to `side`, from a random frame on.
    fn net_lose(&mut self, conn: ConnId, side: Side) {
        if let Some(state) = self.net.conns.get_mut(&conn) {
            let coming = &mut state.ends[side as usize].coming;
            let kept = self.random.index(coming.len() + 1);
            coming.truncate(kept);
        }
    }

    /// Cuts every connection at a random frame in each direction; each end learns it soon, or else late or
    /// never.
    pub(crate) fn net_break_all(&mut self, soon: bool) {
        for conn in self.net.open_conns() {
            self.net_break(conn, soon);
        }
    }

    fn net_break(&mut self, conn: ConnId, soon: bool) {
        if let Some(state) = self.net.conns.get_mut(&conn) {
            state.broken = true;
        }
        for side in [Side::Primary, Side::Backup] {
            self.net_lose(conn, side);
            let wait = match if soon { 0 } else { self.random.below(3) } {
                0 => self.random.below(20_000),
                1 => self.random.below(2 * self.scenario.timeout),
                _ => continue,
            };
            if let Some(state) = self.net.conns.get_mut(&conn) {
                let end = &mut state.ends[side as usize];
                end.coming.push_back(Item::End);
                end.last_at = end.last_at.max(self.now + wait);
                let at = end.last_at;
                self.schedule(at, Event::Deliver { conn, to: side });
            }
        }
    }
}
