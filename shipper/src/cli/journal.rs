//! `ftship journal`: what a backup's journal holds.
//!
//! Always holds: it changes nothing.

use ftship::config::Config;
use ftship::store::journal_view::{View, text};
use ftship::store::state_file::StateFile;

use crate::cli::failure::{Failure, failure, is_served};
use crate::cli::output;

pub(crate) fn journal(config: &Config, check: bool, all: bool, json: bool) -> Result<(), Failure> {
    let read = |mut file: StateFile| Ok((file.read()?, file.damage().map(str::to_owned)));
    let state = StateFile::open_to_read(&config.state).and_then(read);
    if let Err(error) = &state {
        note!("ftship: {error}; so the last committed epoch is not known");
    }
    let (state, damage) = state.unwrap_or_default();
    let view = View {
        path: &config.journal.device,
        group: &config.group,
        state: state.as_ref(),
        state_damage: damage.as_deref(),
        daemon: is_served(config.group.as_str()),
        all,
    };
    let picture = view.take().map_err(|error| failure(error.code(), &error))?;
    if json {
        output::json(&picture)?;
    } else {
        output::print(&text::journal(&picture))?;
    }
    match picture.verdict.code() {
        Some(code) if check => {
            Err(Failure { code, text: format!("journal {}: not sound, see above", picture.device.display()) })
        }
        _ => Ok(()),
    }
}
