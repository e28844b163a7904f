//! Sessions that live so long that their keys are used up.

use std::os::unix::net::UnixStream;

use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedCipherSuite, Tls13CipherSuite,
};

use super::super::identity::Identity;
use super::super::verifier::{Trust, Verifier};
use super::*;

/// Records that a key may seal here. Outside of tests it is 2^24 and more: 256 GiB, which a busy volume has in an hour.
const LIMIT: u64 = 16;

/// Both ends, before the handshake.
fn sessions() -> (Session, Session) {
    let SupportedCipherSuite::Tls13(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let common = CipherSuiteCommon { confidentiality_limit: LIMIT, ..suite.common };
    let suite: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite { common, ..*suite }));
    let cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
    let provider = Arc::new(CryptoProvider { cipher_suites, ..default_provider() });
    let identity = Identity::parse("vm1.key", &Identity::generate("vm1", 1).unwrap().0).unwrap();
    let verifier = Verifier::new(Trust::Anybody, Arc::clone(&provider));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .unwrap();
    server.alpn_protocols = vec![b"test".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .unwrap();
    client.alpn_protocols = vec![b"test".to_vec()];
    let name = ServerName::try_from("backup").unwrap();
    let Identity { certificate, fingerprint: key, .. } = identity;
    let shown = Arc::new(Shown { key, certificate, group: Arc::from("vm1") });
    let session = |connection| Session::new(connection, Arc::clone(&shown));
    (
        session(ClientConnection::new(Arc::new(client), name).unwrap().into()),
        session(ServerConnection::new(Arc::new(server)).unwrap().into()),
    )
}

/// Sends `len` bytes from one end to the other and looks whether they are the same there.
fn pass(from: (&mut Session, &mut UnixStream), to: (&mut Session, &mut UnixStream), len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (mut taken, mut arrived) = (0, Vec::new());
    let mut buffer = [0; 4096];
    let mut turns = 0;
    while arrived.len() < len {
        turns += 1;
        assert!(turns < 10_000, "stuck: {taken} of {len} bytes were taken, {} arrived", arrived.len());
        match from.0.write_vectored(from.1, &[IoSlice::new(&bytes[taken..])]) {
            Ok(n) => taken += n,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        from.0.flush(from.1).unwrap();
        loop {
            match to.0.read(to.1, &mut buffer) {
                Ok(n) => arrived.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("after {} of {len} bytes: {error}", arrived.len()),
            }
        }
    }
    assert!(arrived == bytes, "other bytes than were sent");
}

#[test]
fn a_session_outlives_its_keys_in_both_directions() {
    let (mut client, mut server) = sessions();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    while !client.shake(&mut near).unwrap() | !server.shake(&mut far).unwrap() {}
    // A hundred records of 16 KiB each way at once, then as many small ones, each answered.
    pass((&mut client, &mut near), (&mut server, &mut far), 100 << 14);
    pass((&mut server, &mut far), (&mut client, &mut near), 100 << 14);
    for len in 1..100 {
        pass((&mut client, &mut near), (&mut server, &mut far), len);
        pass((&mut server, &mut far), (&mut client, &mut near), 1);
    }
    // And one end that only listens.
    pass((&mut client, &mut near), (&mut server, &mut far), 200 << 14);
}
