//! What went wrong in a TLS connection, for people: what it means here, and what to do.

use rustls::{AlertDescription, CertificateError, Error};

use super::fingerprint::Fingerprint;
use super::verifier::NotPinned;

/// The text for an error of a connection of `group`, on which this host has shown the key `shown`.
pub(super) fn explain(error: &Error, shown: &Fingerprint, group: &str) -> String {
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
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!(
                "its certificate expired {days} days ago by this host's clock: there, ftship keygen {group} --rotate"
            )
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet by this host's clock: is one of the clocks wrong?".into()
        }
        Error::AlertReceived(AlertDescription::CertificateUnknown) => format!(
            "the other side has not pinned this host's key: there, ftship pair {group} --fingerprint {shown}"
        ),
        Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
            "this host's certificate ({shown}) is not valid by the other side's clock: ftship keygen {group} --rotate"
        ),
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
