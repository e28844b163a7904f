//! How events look in a trace.
//!
//! Always holds: one line each, without payloads.

use std::fmt::Debug;

use ftship_proto::backup::BackupAction;
use ftship_proto::frame::Frame;
use ftship_proto::primary::PrimaryAction;

/// Longest text of one thing.
const WIDTH: usize = 150;

pub(crate) fn short(thing: &impl Debug) -> String {
    let mut text = format!("{thing:?}");
    if let Some((at, _)) = text.char_indices().nth(WIDTH) {
        text.truncate(at);
        text.push('…');
    }
    text
}

pub(crate) fn frame(frame: &Frame) -> String {
    let header = &frame.header;
    match ftship_proto::message::Message::decode(frame) {
        Ok(message) => short(&message),
        Err(_) => format!("{:?} seq {} of epoch {}", header.kind, header.seq, header.epoch),
    }
}

pub(crate) fn backup_action(action: &BackupAction) -> String {
    match action {
        BackupAction::Append { placement, frame: appended } => {
            format!("Append {} at {}+{}", frame(appended), placement.position, placement.len)
        }
        BackupAction::WriteBase { frame: written, .. } => format!("WriteBase {}", frame(written)),
        BackupAction::Prove { places } => {
            let epochs: Vec<_> = places.iter().map(|(sealed, _)| sealed.epoch.0).collect();
            format!("Prove {epochs:?}")
        }
        BackupAction::Apply { epochs, .. } => {
            let epochs: Vec<_> = epochs.iter().map(|sealed| sealed.epoch.0).collect();
            format!("Apply {epochs:?}")
        }
        BackupAction::WriteState(state) => {
            let lost = state.lost.map(|lost| format!(", lost up to epoch {lost}")).unwrap_or_default();
            format!("WriteState {:?} {:?}{lost}", state.role, state.content)
        }
        BackupAction::WriteSuperblock(new) => {
            let applying = new.applying.unwrap_or_default();
            format!(
                "WriteSuperblock tail {} epoch {} synced {} applying {applying}",
                new.tail, new.tail_epoch, new.synced
            )
        }
        other => short(other),
    }
}

pub(crate) fn primary_action(action: &PrimaryAction) -> String {
    match action {
        PrimaryAction::WriteState(state) => {
            format!("WriteState highest {} {}", state.highest_epoch_seen, short(&state.rolls))
        }
        other => short(other),
    }
}
