//! Who wanted a snapshot, and when the next recovery point is due.
//!
//! Always holds: everybody who asked has one answer; a snapshot that fails, fails nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ftship_proto::backup::BackupEvent;
use ftship_proto::ids::Epoch;

use super::BackupDriver;
use super::lanes::{Taken, VolumeJob};
use crate::config::Config;
use crate::control::Response;
use crate::control::server::ClientId;
use crate::store::snapshots::{Kind, Order, Snapshot, check_name};

/// The next try after a recovery point that could not be taken, at the latest.
const RETRY: Duration = Duration::from_secs(60);

/// See the head of this module.
#[derive(Debug)]
pub(super) struct Snapshots {
    next_id: u64,
    /// Ordered and not taken.
    orders: BTreeMap<u64, (Option<ClientId>, Order)>,
    every: Option<Duration>,
    due: Option<Duration>,
    plain: Order,
    /// Recovery points that are to be removed and cannot be.
    kept: Vec<String>,
}

impl Snapshots {
    pub(super) fn new(config: &Config) -> Self {
        let devices: Vec<PathBuf> = config.volume.iter().map(|volume| volume.device.clone()).collect();
        let plain = Order {
            group: config.group.to_string(),
            devices,
            kind: Kind::Point,
            name: None,
            size: None,
            keep: Some(config.snapshots.keep),
        };
        let every = config.snapshots.every;
        Self { next_id: 0, orders: BTreeMap::new(), every, due: every, plain, kept: Vec::new() }
    }

    /// Goes on as another configuration says.
    pub(super) fn tune(&mut self, now: Duration, config: &Config) {
        self.plain.keep = Some(config.snapshots.keep);
        if self.every != config.snapshots.every {
            self.every = config.snapshots.every;
            self.due = self.every.map(|every| now + every);
        }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Recovery points that are to be removed and cannot be, for people.
    pub(super) fn kept(&self) -> &[String] {
        &self.kept
    }
}

impl BackupDriver {
    /// Somebody wants a writable copy.
    pub(super) fn test_copy(&mut self, now: Duration, client: ClientId, name: String, size: Option<String>) {
        if let Err(reason) = check_name(&name) {
            return self.answers.push((client, Response::Refused { reason }));
        }
        let order =
            Order { kind: Kind::Test, name: Some(name), size, keep: None, ..self.snapshots.plain.clone() };
        self.order_snapshot(now, Some(client), order);
    }

    /// Takes the recovery point that the configuration wants, when it is time.
    pub(super) fn point_when_due(&mut self, now: Duration) {
        if self.snapshots.due.is_some_and(|due| due <= now) {
            self.snapshots.due = self.snapshots.every.map(|every| now + every);
            let order = self.snapshots.plain.clone();
            self.order_snapshot(now, None, order);
        }
    }

    fn order_snapshot(&mut self, now: Duration, client: Option<ClientId>, order: Order) {
        self.snapshots.next_id += 1;
        let id = self.snapshots.next_id;
        self.snapshots.orders.insert(id, (client, order));
        self.core.handle(now, BackupEvent::Snapshot { id });
        self.act(now);
    }

    pub(super) fn take_snapshot(&mut self, now: Duration, id: u64, epoch: Epoch) {
        if let Some((_, order)) = self.snapshots.orders.get(&id) {
            let order = Box::new(order.clone());
            if let Taken::VolumesClosed = self.lanes.take_volume(0, VolumeJob::Snapshot { id, epoch, order })
            {
                self.volumes_closed(now);
            }
        }
    }

    pub(super) fn snapshot_refused(&mut self, id: u64, reason: String) {
        match self.snapshots.orders.remove(&id) {
            Some((Some(client), _)) => self.answers.push((client, Response::Refused { reason })),
            // Nothing to be taken yet: the next one is tried when it is due.
            _ => log::debug!("recovery point: {reason}"),
        }
    }

    pub(super) fn snapshot_taken(
        &mut self,
        now: Duration,
        id: u64,
        result: Result<Snapshot, String>,
        kept: Vec<String>,
    ) {
        for what in kept.iter().filter(|what| !self.snapshots.kept.contains(what)) {
            log::error!("{what}");
        }
        match &result {
            Ok(Snapshot { name, epoch, .. }) => log::info!("snapshot {name} of epoch {epoch}"),
            Err(reason) => log::error!("snapshot: {reason}"),
        }
        let Some((client, order)) = self.snapshots.orders.remove(&id) else { return };
        if order.keep.is_some() {
            self.snapshots.kept = kept;
        }
        match (client, result) {
            (Some(client), Ok(snapshot)) => {
                self.answers.push((client, Response::Snapshot(Box::new(snapshot))));
            }
            (Some(client), Err(reason)) => self.answers.push((client, Response::Failed { reason })),
            (None, Err(_)) => self.snapshots.due = self.snapshots.every.map(|every| now + every.min(RETRY)),
            (None, Ok(_)) => {}
        }
    }
}
