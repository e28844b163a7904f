//! What a host proves who it is with: an Ed25519 key, and a certificate that it has signed itself and that says how
//! long the key may be used.
//!
//! Always holds: a key never leaves its file but to sign; no key that is in use is overwritten by making one.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::fingerprint::Fingerprint;
use super::reason::own_fault;
use crate::store::small_file::{self, FileError, Secrecy};

/// Longest file of a key, in bytes.
const MAX_LEN: usize = 64 << 10;
/// A certificate counts from before its making, because the other host's clock may be behind.
const HEAD_START: Duration = Duration::from_secs(24 * 3600);

/// How long a key may be used unless somebody says otherwise, in days.
pub const DEFAULT_DAYS: u32 = 3650;

/// The files of a group's keys, beside its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The key and certificate that this host shows.
    pub key: PathBuf,
    /// Those that it is to show next.
    pub next: PathBuf,
    /// The keys that it trusts.
    pub pins: PathBuf,
}

impl KeyFiles {
    /// Those beside this configuration: `vm1.key`, `vm1.next-key` and `vm1.pins` beside `vm1.toml`.
    #[must_use]
    pub fn beside(configuration: &Path) -> Self {
        let named = |extension| configuration.with_extension(extension);
        Self { key: named("key"), next: named("next-key"), pins: named("pins") }
    }
}

/// A key and its certificate.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// What the other side has to trust.
    pub fingerprint: Fingerprint,
}

/// Why there is no key to use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// None was made.
    #[error("{path}: there is no key: make one with `ftship keygen`")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// One is there already.
    #[error("{path}: there is a key already{advice}")]
    Exists {
        /// The file.
        path: String,
        /// What to do.
        advice: &'static str,
    },
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it is no key with a certificate.
    #[error("{path}: not a key as `ftship keygen` makes it: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// No key could be made.
    #[error("making a key: {0}")]
    Generate(String),
}

impl Identity {
    /// Makes a key that may be used for so many days, and its text.
    ///
    /// # Errors
    /// When the system gives no randomness, or there is no such day.
    pub fn generate(name: &str, days: u32) -> Result<(String, Fingerprint), IdentityError> {
        let now = SystemTime::now();
        let lifetime = Duration::from_secs(u64::from(days) * 24 * 3600);
        Self::generate_for(name, now - HEAD_START, now + lifetime)
    }

    /// Makes a key that may be used between two instants, and its text.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_for(
        name: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<(String, Fingerprint), IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Generate(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, format!("ftdm {name}"));
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = from.into();
        params.not_after = until.into();
        let certificate = params.self_signed(&key).map_err(failed)?;
        let fingerprint =
            Fingerprint::of(certificate.der()).map_err(|error| IdentityError::Generate(error.to_string()))?;
        let text = format!("# {fingerprint}\n{}{}", key.serialize_pem(), certificate.pem());
        Ok((text, fingerprint))
    }

    /// Makes a key and keeps it in a file that is not there yet.
    ///
    /// # Errors
    /// When a file is there, or cannot be made.
    pub fn create(
        path: &Path,
        advice: &'static str,
        name: &str,
        days: u32,
    ) -> Result<Fingerprint, IdentityError> {
        let exists = || IdentityError::Exists { path: path.display().to_string(), advice };
        if path.exists() {
            return Err(exists());
        }
        let (text, fingerprint) = Self::generate(name, days)?;
        small_file::create(path, &text, Secrecy::Secret).map_err(|error| match error.source.kind() {
            std::io::ErrorKind::AlreadyExists => exists(),
            _ => error.into(),
        })?;
        Ok(fingerprint)
    }

    /// Reads a file that [`Self::create`] made.
    ///
    /// # Errors
    /// When it is not there, others may read it, or it holds no key and certificate.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let name = path.display().to_string();
        let text =
            small_file::read(path, MAX_LEN, Secrecy::Secret).map_err(|error| match error.source.kind() {
                std::io::ErrorKind::NotFound => IdentityError::Missing { path: name.clone() },
                _ => error.into(),
            })?;
        Self::parse(&name, &text)
    }

    pub(super) fn parse(path: &str, text: &str) -> Result<Self, IdentityError> {
        let malformed = |reason: String| IdentityError::Malformed { path: path.into(), reason };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| malformed(format!("private key: {error}")))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| malformed(format!("certificate: {error}")))?;
        let fingerprint = Fingerprint::of(&certificate).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { certificate, key, fingerprint })
    }

    /// Puts the next key in the place of the present one. Connections that stand go on.
    ///
    /// # Errors
    /// When there is no next one, or it cannot be used.
    pub fn activate(files: &KeyFiles) -> Result<Fingerprint, IdentityError> {
        let next = Self::load(&files.next)?;
        small_file::rename(&files.next, &files.key)?;
        Ok(next.fingerprint)
    }

    /// Why the certificate is not taken at an instant, if so, and what to do.
    #[must_use]
    pub fn fault_at(&self, at: SystemTime) -> Option<String> {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        own_fault(&self.certificate, UnixTime::since_unix_epoch(since_epoch))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeyFiles::beside(&folder.path().join("vm1.toml"));
        assert_eq!(files.key, folder.path().join("vm1.key"));
        let missing = Identity::load(&files.key).unwrap_err().to_string();
        assert!(missing.contains("vm1.key") && missing.contains("ftship keygen"), "{missing}");
        let made = Identity::create(&files.key, "", "vm1", 1).unwrap();
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::load(&files.key).unwrap().fingerprint, made);
        let again = Identity::create(&files.key, "; see --rotate", "vm1", 1).unwrap_err().to_string();
        assert!(again.contains("already; see --rotate"), "{again}");
        assert_eq!(Identity::load(&files.key).unwrap().fingerprint, made);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm1.key");
        Identity::create(&path, "", "vm1", 1).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let text = Identity::load(&path).unwrap_err().to_string();
        assert!(text.contains("0640") && text.contains("chmod go-rwx"), "{text}");
    }

    #[test]
    fn half_a_file_is_no_key() {
        let (text, _) = Identity::generate("vm1", 1).unwrap();
        for cut in [0, 60, text.find("BEGIN CERTIFICATE").unwrap(), text.len() - 60] {
            let error = Identity::parse("vm1.key", &text[..cut]).unwrap_err().to_string();
            assert!(error.contains("vm1.key: not a key"), "{error}");
        }
    }

    #[test]
    fn the_next_key_takes_the_place_of_the_present_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeyFiles::beside(&folder.path().join("vm1.toml"));
        let first = Identity::create(&files.key, "", "vm1", 1).unwrap();
        assert!(Identity::activate(&files).is_err());
        assert_eq!(Identity::load(&files.key).unwrap().fingerprint, first);
        let next = Identity::create(&files.next, "", "vm1", 1).unwrap();
        assert_eq!(Identity::activate(&files).unwrap(), next);
        assert_eq!(Identity::load(&files.key).unwrap().fingerprint, next);
        assert!(!files.next.exists());
    }

    #[test]
    fn the_end_of_a_certificate_is_known_beforehand() {
        let (text, _) = Identity::generate("vm1", 10).unwrap();
        let identity = Identity::parse("vm1.key", &text).unwrap();
        let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 3600);
        assert_eq!(identity.fault_at(in_days(0)), None);
        assert_eq!(identity.fault_at(in_days(9)), None);
        assert!(identity.fault_at(in_days(11)).is_some());
    }
}
