//! The transport's protection: TLS 1.3, both sides proving to have a key that the other has pinned.
//!
//! Always holds: nothing older than TLS 1.3 is compiled in, nothing is resumed and no early data taken, so nothing
//! that was recorded counts again; keys are read anew for connections that begin, so that no daemon has to be
//! restarted to change them.

pub mod fingerprint;
pub mod identity;
pub mod pairing;
pub mod pins;
mod reason;
pub(crate) mod session;
mod verifier;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use identity::{Identity, IdentityError, KeyFiles};
use pins::{PinError, Pins};
use reason::Shown;
use session::Session;
use verifier::{Trust, Verifier};

/// What two daemons say that they speak.
const PROTOCOL: &[u8] = b"ftdm/1";
/// What `ftship pair` says: no daemon takes it for another daemon.
const PAIRING: &[u8] = b"ftdm-pair/1";

/// Keys that were read so long ago are read anew for a connection.
const KEYS_AGE: Duration = Duration::from_secs(1);
/// So long before a certificate ends it is said.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why no connection can be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This host has no key to show.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is not known whom to trust.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The key and the certificate cannot be used.
    #[error("{path}: {source}")]
    Unusable {
        /// The key's file.
        path: String,
        /// Why.
        source: rustls::Error,
    },
}

/// This host's key and those that it trusts, for the connections of one group.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: KeyFiles,
    loaded: Option<(Duration, Ends)>,
}

/// How connections begin, in both directions.
#[derive(Clone, Debug)]
struct Ends {
    shown: Arc<Shown>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Those beside a configuration, which have to be there.
    ///
    /// # Errors
    /// When there is no key, or a file cannot be used.
    pub(crate) fn open(configuration: &Path) -> Result<Self, TlsError> {
        let files = KeyFiles::beside(configuration);
        let identity = Identity::load(&files.key)?;
        log::info!("this host's key is {}", identity.fingerprint);
        let now = SystemTime::now();
        if let Some(fault) = identity.fault_at(now).or_else(|| identity.fault_at(now + WARN_BEFORE)) {
            let path = files.key.display();
            log::warn!("{path}: {fault}");
        }
        if Pins::load(&files.pins)?.iter().next().is_none() {
            log::warn!("{}: no key is trusted: see `ftship pair`", files.pins.display());
        }
        Ok(Self { files, loaded: None })
    }

    /// For a connection that somebody else began.
    ///
    /// # Errors
    /// When the keys cannot be read.
    pub(crate) fn server(&mut self, now: Duration) -> Result<Session, TlsError> {
        let ends = self.ends(now)?;
        let connection = ServerConnection::new(ends.server).map_err(|error| self.unusable(error))?;
        Ok(Session::new(connection.into(), ends.shown))
    }

    /// For a connection that this host begins.
    ///
    /// # Errors
    /// When the keys cannot be read.
    pub(crate) fn client(&mut self, now: Duration, peer: IpAddr) -> Result<Session, TlsError> {
        let ends = self.ends(now)?;
        let connection = ClientConnection::new(ends.client, ServerName::from(peer))
            .map_err(|error| self.unusable(error))?;
        Ok(Session::new(connection.into(), ends.shown))
    }

    fn ends(&mut self, now: Duration) -> Result<Ends, TlsError> {
        if let Some((at, ends)) = &self.loaded
            && now < *at + KEYS_AGE
        {
            return Ok(ends.clone());
        }
        let identity = Identity::load(&self.files.key)?;
        let trust = Trust::Pinned(Pins::load(&self.files.pins)?);
        let ends = Ends::new(&self.files, &identity, trust, &[PROTOCOL], &[PROTOCOL])
            .map_err(|error| self.unusable(error))?;
        self.loaded = Some((now, ends.clone()));
        Ok(ends)
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        TlsError::Unusable { path: self.files.key.display().to_string(), source }
    }
}

impl Ends {
    fn new(
        files: &KeyFiles,
        identity: &Identity,
        trust: Trust,
        served: &[&[u8]],
        asked: &[&[u8]],
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let protocols = |names: &[&[u8]]| names.iter().map(|name| name.to_vec()).collect::<Vec<_>>();
        let chain = || vec![identity.certificate.clone()];
        let verifier = Verifier::new(trust, Arc::clone(&provider));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(chain(), identity.key.clone_key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = protocols(served);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain(), identity.key.clone_key())?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = protocols(asked);
        let group = files.key.file_stem().unwrap_or_default().to_string_lossy();
        let shown = Shown {
            key: identity.fingerprint,
            certificate: identity.certificate.clone(),
            group: Arc::from(group.as_ref()),
        };
        Ok(Self { shown: Arc::new(shown), server: Arc::new(server), client: Arc::new(client) })
    }
}
