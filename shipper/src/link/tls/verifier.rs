//! Who is let in: whoever proves to have a key that is pinned here, within the time that its certificate names.
//!
//! Always holds: no name and no authority counts; the same rule on both sides; what is refused names the key.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};

use super::fingerprint::Fingerprint;
use super::pins::Pins;

/// Why signatures of older versions are never looked at.
const OLD_VERSION: PeerIncompatible = PeerIncompatible::SupportedVersionsExtensionRequired;

/// A key that is not pinned.
#[derive(Debug, thiserror::Error)]
#[error("the key {0} is not pinned here")]
pub(super) struct NotPinned(pub(super) Fingerprint);

/// Whose keys are taken.
#[derive(Debug)]
pub(super) enum Trust {
    /// Of those that are pinned.
    Pinned(Pins),
    /// Of anybody, to show it to a person.
    Anybody,
}

/// Checks what the other side shows.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { trust, provider })
    }

    fn check(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let key = Fingerprint::of(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if let Trust::Pinned(pins) = &self.trust
            && !pins.trusts(&key)
        {
            let error = OtherError(Arc::new(NotPinned(key)));
            return Err(Error::InvalidCertificate(CertificateError::Other(error)));
        }
        validity(certificate, now).map_err(Error::InvalidCertificate)
    }
}

/// Whether a certificate that signed itself may be used at this instant.
pub(super) fn validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    check_validity(certificate, now).map_err(refusal)
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), webpki::Error> {
    let anchor = webpki::anchor_from_trusted_cert(certificate)?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let usage = webpki::KeyUsage::client_auth();
    webpki::EndEntityCert::try_from(certificate)?
        .verify_for_usage(algorithms.all, &[anchor], &[], now, usage, None, None)
        .map(|_| ())
}

fn refusal(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        _ => CertificateError::BadEncoding,
    }
}

/// What both of rustls's traits ask of signatures, in the same words.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(OLD_VERSION.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}
