//! `ftship snapshots`: the recovery points and test copies of a host.
//!
//! Always holds: it needs no daemon.

use ftship::control::exit::Code;
use ftship::store::snapshots::{self, Snapshot};

use crate::cli::failure::{Failure, failure};
use crate::cli::output;

pub(crate) fn list_snapshots(group: &str, remove: Option<&str>, json: bool) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure { code: Code::Failed, text: format!("{group}: {error:#}") };
    // It goes into a selection of LVM's.
    let name: ftship_proto::ids::GroupName = group.parse().map_err(|error| failure(Code::Usage, &error))?;
    let all = snapshots::list(name.as_str()).map_err(failed)?;
    if let Some(name) = remove {
        let named = all.iter().find(|snapshot| snapshot.name == name);
        let text = || format!("{group}: there is no snapshot {name}");
        return named.ok_or_else(|| Failure { code: Code::Refused, text: text() })?.remove().map_err(failed);
    }
    if json {
        output::json(&all)?;
    } else {
        for snapshot in &all {
            print_snapshot(snapshot)?;
        }
    }
    Ok(())
}

/// `NAME EPOCH TIME DEVICE...`
pub(crate) fn print_snapshot(snapshot: &Snapshot) -> Result<(), Failure> {
    let devices: Vec<_> = snapshot.devices.iter().map(|device| device.display().to_string()).collect();
    let incomplete = if snapshot.complete { "" } else { " INCOMPLETE" };
    say!("{} {} {} {}{incomplete}", snapshot.name, snapshot.epoch, snapshot.time, devices.join(" "))
}
