//! What went wrong in a TLS connection, for people: what it means here, and what to do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{AlertDescription, CertificateError, Error};

use super::fingerprint::Fingerprint;
use super::verifier::{NotPinned, validity};

const DAY: u64 = 86_400;
/// The last second that a date can be written of.
const LAST: u64 = 253_402_300_799;

/// What this host has shown, and for which group, to explain refusals.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) key: Fingerprint,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) group: Arc<str>,
}

/// An instant as people read it.
fn date(time: UnixTime) -> String {
    let since = Duration::from_secs(time.as_secs().min(LAST));
    format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// What is wrong with this host's own certificate at this instant, and what to do.
pub(super) fn own_fault(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    match validity(certificate, now).err()? {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("its certificate ends at {}: see `ftship keygen --rotate`", date(not_after)))
        }
        CertificateError::NotValidYetContext { not_before, .. } => Some(format!(
            "its certificate begins at {}, and this host's clock says {}: set the clock",
            date(not_before),
            date(now)
        )),
        other => Some(format!("its certificate: {other}")),
    }
}

/// The other side's certificate has expired. A clock in the future says that of every certificate.
fn expired(shown: &Shown, time: UnixTime, not_after: UnixTime) -> String {
    let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY;
    let own = match validity(&shown.certificate, time) {
        Err(CertificateError::ExpiredContext { .. }) => ", and so did this host's own",
        _ => "",
    };
    format!(
        "its certificate expired {days} days ago{own}, by this host's clock, which says {}: set the clock if that is wrong; \
         if it is right: there, ftship keygen {} --rotate",
        date(time),
        shown.group
    )
}

/// The other side says that this host's certificate has expired, or is not valid yet: TLS has one word for both.
fn not_taken(shown: &Shown, now: UnixTime) -> String {
    let Shown { key, certificate, group } = shown;
    match validity(certificate, now) {
        Err(CertificateError::ExpiredContext { not_after, .. }) => {
            format!(
                "this host's certificate ({key}) has expired, at {}: ftship keygen {group} --rotate",
                date(not_after)
            )
        }
        Err(CertificateError::NotValidYetContext { not_before, .. }) => format!(
            "this host's certificate ({key}) begins at {}, and this host's clock says {}: set the clock",
            date(not_before),
            date(now)
        ),
        _ => format!(
            "this host's certificate ({key}) is not valid by the other side's clock, and is by this host's, which says {}: \
             set the clock that is wrong (`date -u` on both hosts)",
            date(now)
        ),
    }
}

/// The text for an error of a connection on which this host has shown `shown`.
pub(super) fn explain(error: &Error, shown: &Shown, now: UnixTime) -> String {
    let Shown { key: own, group, .. } = shown;
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<NotPinned>() {
                Some(NotPinned(key)) => format!(
                    "its key {key} is not pinned here; if it is the other host's: ftship pair {group} --fingerprint {key}"
                ),
                None => error.to_string(),
            }
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            expired(shown, *time, *not_after)
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => format!(
            "its certificate is not valid yet: it begins at {}, and this host's clock says {}: set the clock that is wrong \
             (`date -u` on both hosts)",
            date(*not_before),
            date(*time)
        ),
        Error::AlertReceived(AlertDescription::CertificateUnknown) => format!(
            "the other side has not pinned this host's key: there, ftship pair {group} --fingerprint {own}"
        ),
        Error::AlertReceived(AlertDescription::CertificateExpired) => not_taken(shown, now),
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the other side is no daemon of this version; does `ftship pair` run there?".into()
        }
        Error::NoCertificatesPresented => "it shows no key".into(),
        Error::NoApplicationProtocol => "it does not speak ftdm's protocol".into(),
        Error::InvalidMessage(detail) => {
            format!("what arrives is not TLS ({detail:?}): is tls = \"off\" there?")
        }
        Error::PeerIncompatible(detail) => format!("it does not speak TLS 1.3 as needed ({detail:?})"),
        Error::DecryptError => "a record was altered, repeated or made with another key".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(days: i64) -> UnixTime {
        let seconds = NOW.saturating_add_signed(days * DAY.cast_signed());
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// A certificate that is valid for a hundred days from `NOW` on.
    fn shown() -> Shown {
        let instant = |days| SystemTime::UNIX_EPOCH + Duration::from_secs(at(days).as_secs());
        let (text, _) = Identity::generate_for("vm1", instant(0), instant(100)).unwrap();
        let Identity { certificate, fingerprint: key, .. } = Identity::parse("vm1.key", &text).unwrap();
        Shown { key, certificate, group: Arc::from("vm1") }
    }

    fn refused_at(days: i64) -> String {
        explain(&Error::AlertReceived(AlertDescription::CertificateExpired), &shown(), at(days))
    }

    #[test]
    fn a_new_key_is_advised_only_where_the_old_one_has_expired() {
        let (early, valid, late) = (refused_at(-9000), refused_at(50), refused_at(101));
        assert!(early.contains("set the clock") && !early.contains("--rotate"), "{early}");
        assert!(early.contains("begins at 2027-01-15") && early.contains("clock says 2002-"), "{early}");
        assert!(valid.contains("the clock that is wrong") && !valid.contains("--rotate"), "{valid}");
        assert!(late.contains("has expired, at 2027-04-25") && late.contains("--rotate"), "{late}");
    }

    #[test]
    fn a_clock_in_the_future_is_named_before_a_new_key() {
        let expired = |days| {
            let context = CertificateError::ExpiredContext { time: at(days), not_after: at(40) };
            explain(&Error::InvalidCertificate(context), &shown(), at(days))
        };
        let (near, far) = (expired(43), expired(9000));
        assert!(near.contains("expired 3 days ago, by this host's clock"), "{near}");
        assert!(far.contains("so did this host's own") && far.contains("set the clock"), "{far}");
        let context = CertificateError::NotValidYetContext { time: at(0), not_before: at(3) };
        let early = explain(&Error::InvalidCertificate(context), &shown(), at(0));
        assert!(early.contains("not valid yet") && !early.contains("--rotate"), "{early}");
    }

    #[test]
    fn any_instant_can_be_named() {
        date(UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)));
        let own = |days| own_fault(&shown().certificate, at(days));
        assert_eq!(own(50), None);
        assert!(own(-1).unwrap().contains("set the clock") && own(101).unwrap().contains("--rotate"));
    }
}
