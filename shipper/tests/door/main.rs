//! Attacks on a daemon's door, over real sockets: each is turned away with a line of the log that says why, and the
//! connection that stands does not notice.
//!
//! Each test uses a loopback address of its own for what it does wrong, so that it finds its lines in the log.

mod hosts;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use ftship::link::tls::identity::Identity;
use ftship::link::tls::pins::Pins;
use hosts::{AGES, Backup, Link, PATIENCE, Place, from, logged, pair, wait_logged};

/// Something in between that passes on, or spoils, what a client says.
struct Between {
    address: SocketAddr,
    /// What the client said, once the connection has ended.
    said: mpsc::Receiver<Vec<u8>>,
}

/// Passes on the first connection; `spoil` sees each piece of what the client says, with its place in the stream, and
/// says whether to go on.
fn between(to: SocketAddr, spoil: impl Fn(usize, &mut [u8]) -> bool + Send + 'static) -> Between {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, said) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(to).unwrap();
        let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            let goes_on = spoil(all.len(), &mut buffer[..n]);
            all.extend_from_slice(&buffer[..n]);
            if !goes_on || server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
        let _ = sender.send(all);
    });
    Between { address, said }
}

/// A pair of hosts, the backup's door, and a link that stands.
fn standing() -> (Place, Place, Backup, Link) {
    let (primary, backup) = pair();
    let served = Backup::at(&backup);
    let mut link = Link::connect(&primary, backup.address).unwrap();
    link.ask(100).unwrap();
    (primary, backup, served, link)
}

/// Everything that the other side says until it ends the connection, by an end or by a reset.
fn heard(mut stream: &TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the connection was not ended: {error}"),
        }
    }
}

#[test]
fn frames_large_and_small_come_through() {
    let (_primary, _backup, served, mut link) = standing();
    for len in [0, 1, 16_384, 65_000, 60_000, 3] {
        link.ask(len).unwrap();
    }
    assert_eq!(served.admitted(), 1);
}

#[test]
fn a_key_that_is_not_pinned_is_refused_by_name_on_both_sides() {
    let (primary, backup, served, mut link) = standing();
    let stranger = Place::new();
    stranger.trust(&backup);
    let error = Link::connect(&stranger, backup.address).and_then(|mut link| link.ask(1)).unwrap_err();
    let own = stranger.key().to_string();
    assert!(error.to_string().contains(&format!("pair vm1 --fingerprint {own}")), "{error}");
    assert!(wait_logged(&own).contains("is not pinned here"));
    // And a server that is not the one: the client does not even greet.
    let error = Link::connect(&primary, {
        let other = Place::new();
        other.trust(&primary);
        let served = Backup::at(&other);
        let address = other.address;
        std::thread::spawn(move || {
            std::thread::sleep(AGES);
            drop((served, other));
        });
        address
    });
    assert!(error.err().unwrap().to_string().contains("is not pinned here"));
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 1);
}

#[test]
fn a_pinned_key_whose_time_is_over_or_has_not_come_is_refused() {
    let (_primary, backup, served, mut link) = standing();
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    for (from, until, here, there) in [
        (now - day * 40, now - day * 3, "expired 3 days ago", "keygen vm1 --rotate"),
        (now + day * 3, now + day * 40, "not valid yet", "this host's clock says"),
    ] {
        let late = Place::new();
        late.show(&Identity::generate_for("vm1", from, until).unwrap().0);
        late.trust(&backup);
        backup.trust(&late);
        // Keys are read again after a second.
        std::thread::sleep(Duration::from_millis(1100));
        let error = Link::connect(&late, backup.address).and_then(|mut link| link.ask(1)).unwrap_err();
        assert!(error.to_string().contains(there), "{error}");
        wait_logged(here);
        // The other way round: a client looks at a server's certificate likewise.
        let served = Backup::at(&late);
        let error = Link::connect(&backup_as_client(&backup), late.address).err().unwrap();
        assert!(error.to_string().contains(here), "{error}");
        assert_eq!(served.admitted(), 0);
        std::thread::sleep(Duration::from_secs(5));
    }
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 1);
}

/// A host with the backup's keys, on another port.
fn backup_as_client(backup: &Place) -> Place {
    let place = Place::new();
    place.show(&std::fs::read_to_string(backup.files().key).unwrap());
    for (key, note) in Pins::load(&backup.files().pins).unwrap().iter() {
        Pins::add(&place.files().pins, *key, note).unwrap();
    }
    place
}

#[test]
fn a_key_that_is_forgotten_is_refused_at_the_next_connection_and_a_new_one_taken() {
    let (primary, backup, served, mut link) = standing();
    let old = primary.key();
    let next = Identity::create(&primary.files().next, "", "vm1", 10).unwrap();
    Pins::add(&backup.files().pins, next, "next").unwrap();
    Identity::activate(&primary.files()).unwrap();
    link.ask(1).unwrap();
    drop(link);
    Pins::remove(&backup.files().pins, &old).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let mut link = Link::connect(&primary, backup.address).unwrap();
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 2);
}

#[test]
fn an_older_version_is_refused() {
    let (_primary, backup, served, mut link) = standing();
    let mut stream = from("127.0.9.1", backup.address).unwrap();
    // TLS 1.2, ECDHE-ECDSA-AES128-GCM-SHA256, as a client says that knows nothing newer.
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 29][..], &[0, 13, 0, 6, 0, 4, 4, 3, 8, 7], &[0, 11, 0, 2, 1, 0]].concat();
    let mut hello = vec![3, 3];
    hello.extend([5; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let len = u8::try_from(hello.len()).unwrap();
    let record = [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len][..], &hello].concat();
    stream.write_all(&record).unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(heard(&stream), [0x15, 3, 3, 0, 2, 2, 70]);
    assert!(wait_logged("127.0.9.1").contains("does not speak TLS 1.3"));
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 1);
}

#[test]
fn plaintext_is_refused() {
    let (_primary, backup, served, mut link) = standing();
    let mut stream = from("127.0.9.2", backup.address).unwrap();
    stream.write_all(b"FTDM\x01\x00\x01\x00").unwrap();
    stream.write_all(&[0; 200]).unwrap();
    let answer = heard(&stream);
    assert!(!answer.windows(4).any(|part| part == b"FTDM"));
    assert!(wait_logged("127.0.9.2").contains("is not TLS"));
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 1);
}

#[test]
fn what_was_recorded_of_a_session_is_worth_nothing() {
    let (primary, backup) = pair();
    let served = Backup::at(&backup);
    let tap = between(backup.address, |_, _| true);
    let mut tapped = Link::connect(&primary, tap.address).unwrap();
    tapped.ask(5000).unwrap();
    drop(tapped);
    let recorded = tap.said.recv_timeout(AGES).unwrap();
    wait_logged("cut off");
    let mut link = Link::connect(&primary, backup.address).unwrap();
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 2);
    let mut stream = from("127.0.9.3", backup.address).unwrap();
    // The other side ends it in the middle.
    let _ = stream.write_all(&recorded);
    heard(&stream);
    assert!(wait_logged("127.0.9.3").contains("altered, repeated or made with another key"));
    // Cut at any place it comes to nothing either.
    for at in [1, 5, 43, 200, recorded.len() / 2] {
        let mut stream = from("127.0.9.4", backup.address).unwrap();
        let _ = stream.write_all(&recorded[..at.min(recorded.len())]);
        let _ = stream.shutdown(Shutdown::Write);
        heard(&stream);
    }
    assert!(wait_logged("127.0.9.4").contains("ended in the handshake"));
    link.ask(1).unwrap();
    assert_eq!(served.admitted(), 2);
}

#[test]
fn a_byte_that_was_altered_on_the_way_ends_the_connection() {
    let (primary, backup) = pair();
    let _served = Backup::at(&backup);
    // Behind the handshake, within the frame that is sent: 60,000 bytes.
    let tap = between(backup.address, |at, piece| {
        if let Some(byte) = 20_000usize.checked_sub(at).and_then(|place| piece.get_mut(place)) {
            *byte ^= 1;
        }
        true
    });
    let mut link = Link::connect(&primary, tap.address).unwrap();
    let error = link.ask(60_000).unwrap_err();
    assert!(!error.to_string().is_empty());
    wait_logged("a record was altered");
}

#[test]
fn an_end_that_was_not_announced_is_no_end_of_file() {
    let (primary, backup) = pair();
    let _served = Backup::at(&backup);
    let tap = between(backup.address, |at, _| at < 20_000);
    let mut link = Link::connect(&primary, tap.address).unwrap();
    link.ask(1000).unwrap();
    let error = link.ask(60_000).unwrap_err();
    assert!(error.to_string().contains("cut off") || error.kind() != ErrorKind::UnexpectedEof, "{error}");
    wait_logged("cut off");
}

#[test]
fn who_speaks_slowly_is_not_waited_for() {
    let (_primary, backup, served, mut link) = standing();
    let mut stream = from("127.0.9.5", backup.address).unwrap();
    let begun = Instant::now();
    // A record of 16 KiB, of which a byte comes now and then.
    stream.write_all(&[0x16, 3, 1, 0x40, 0]).unwrap();
    while stream.write_all(&[1]).is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        link.ask(100).unwrap();
        assert!(begun.elapsed() < AGES, "it is waited for");
    }
    assert!(begun.elapsed() >= PATIENCE);
    assert!(wait_logged("127.0.9.5").contains("in time"));
    assert_eq!(served.admitted(), 1);
}

#[test]
fn a_scanner_costs_one_line() {
    let (_primary, backup, served, mut link) = standing();
    let probes: [&[u8]; 6] = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00\x00\x00\x54\xffSMB",
        b"SSH-2.0-scanner\r\n",
        &[0xff; 3000],
        b"\x16\x03\x01\xff\xff\x01",
        b"",
    ];
    for probe in probes.iter().cycle().take(18) {
        let mut stream = from("127.0.9.6", backup.address).unwrap();
        let _ = stream.write_all(probe);
        let _ = stream.shutdown(Shutdown::Write);
        heard(&stream);
        link.ask(100).unwrap();
    }
    wait_logged("127.0.9.6");
    assert!(logged("127.0.9.6").len() <= 2, "{:?}", logged("127.0.9.6"));
    assert_eq!(served.admitted(), 1);
}

#[test]
fn a_thousand_connections_keep_nobody_out() {
    let (primary, backup, served, mut link) = standing();
    let mut crowd = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..1000 {
        let mut stream = from(&format!("127.0.10.{}", n % 4), backup.address).unwrap();
        // Half of a greeting: it stays in its handshake.
        let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1]);
        crowd.push(stream);
        if n % 10 == 0 {
            slowest = slowest.max(link.ask(1000).unwrap());
        }
    }
    // The peer comes anew, though nobody of the crowd has gone.
    let begun = Instant::now();
    drop(link);
    let mut link = Link::connect(&primary, backup.address).unwrap();
    link.ask(1000).unwrap();
    assert!(begun.elapsed() < PATIENCE * 4, "{:?}", begun.elapsed());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(served.admitted(), 2);
    // One line for an address, or two where the reason changed.
    let lines = logged("127.0.10.");
    assert!((1..=16).contains(&lines.len()), "{lines:?}");
}
