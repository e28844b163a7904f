//! Where log lines go: to the journal with fields of their own when standard error is connected to it, else to
//! standard error by env_logger. `RUST_LOG` chooses which, in either case.
//!
//! The journal's format (systemd.io, "Native Journal Protocol"): a datagram of `FIELD=value` lines; a value with a line
//! break in it is `FIELD`, a line break, its length as a little-endian u64, the value, a line break.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use log::{Level, Log, Metadata, Record};

const JOURNAL: &str = "/run/systemd/journal/socket";

/// Begins to log lines of `level` and above.
pub fn start(level: &str, group: Option<&str>) {
    let fallback = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).build();
    let most = fallback.filter();
    let logger: Box<dyn Log> = match journal() {
        Some(socket) => Box::new(Journal { socket, fallback, group: group.map(str::to_owned) }),
        None => Box::new(fallback),
    };
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(most);
    }
}

/// The journal's socket, if standard error is the journal.
fn journal() -> Option<UnixDatagram> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = stream.split_once(':')?;
    let errors = std::fs::metadata("/proc/self/fd/2").ok()?;
    if (device.parse(), inode.parse()) != (Ok(errors.dev()), Ok(errors.ino())) {
        return None;
    }
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(JOURNAL).ok()?;
    Some(socket)
}

struct Journal {
    socket: UnixDatagram,
    /// Decides what is logged, and takes what the journal does not.
    fallback: env_logger::Logger,
    group: Option<String>,
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.fallback.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.fallback.matches(record) && self.socket.send(&fields(record, self.group.as_deref())).is_err()
        {
            self.fallback.log(record);
        }
    }

    fn flush(&self) {}
}

fn fields(record: &Record<'_>, group: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    // As syslog(3) has them.
    let priority = match record.level() {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    };
    field(&mut out, "MESSAGE", &record.args().to_string());
    field(&mut out, "PRIORITY", priority);
    field(&mut out, "SYSLOG_IDENTIFIER", "ftship");
    field(&mut out, "FTDM_MODULE", record.target());
    if let Some(group) = group {
        field(&mut out, "FTDM_GROUP", group);
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_fields_and_a_value_of_several_lines_its_length() {
        let args = format_args!("two\nlines");
        let record = Record::builder().level(Level::Warn).target("ftship::link::peer").args(args).build();
        let bytes = fields(&record, Some("vm1"));
        let mut expected = b"MESSAGE\n".to_vec();
        expected.extend(9u64.to_le_bytes());
        expected.extend(
            b"two\nlines\nPRIORITY=4\nSYSLOG_IDENTIFIER=ftship\nFTDM_MODULE=ftship::link::peer\nFTDM_GROUP=vm1\n",
        );
        assert_eq!(bytes, expected);
    }
}
