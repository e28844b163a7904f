//! What a path does to a connection that only people can fix: it takes small packets and drops full ones.
//!
//! A tunnel or a VPN in between with a smaller MTU, and something that drops the messages which would tell (ICMP): then
//! each connection is made, both sides greet, and nothing else ever arrives.

use std::time::Duration;

use ftdm::ioctl::Sending;

/// What a connection's beginning takes, keys and greetings; more was never acknowledged.
const BEGINNING: u64 = 16 << 10;
/// The kernel's first wait before it sends again, on a path of some length or a busy host; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// Less than this passes wherever IP does.
const SMALL: u64 = 512;
/// The other side says something once a second.
const LATELY: Duration = Duration::from_secs(2);

/// Whether a connection, of which `sent` bytes were given to the socket, looks like that: its beginning was acknowledged,
/// the other side is heard, and what waits was sent without an answer for most of the time-out, and twice at least. A link that was
/// cut is not heard.
pub(super) fn drops_full_packets(sent: u64, sending: &Sending, timeout: Duration) -> bool {
    let Sending { acknowledged, retries, heard, segment: _ } = *sending;
    let patience = (timeout * 7 / 10).as_millis() / FIRST_WAIT.as_millis();
    let enough = u128::from(retries) >= u128::from((patience + 1).ilog2().max(2));
    enough && heard <= LATELY && acknowledged <= BEGINNING && sent >= acknowledged.saturating_add(SMALL)
}

/// What is said of it.
pub(super) fn advice(sending: &Sending) -> String {
    format!(
        "small messages pass, and packets of full size do not ({} bytes of data each): does the path have a smaller MTU \
         than this host's network device? Try `ping -M do -s SIZE` to the peer, and see `ip link set mtu`",
        sending.segment
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_seen(sent: u64, acknowledged: u64, retries: u8, timeout_ms: u64) -> bool {
        let sending = Sending { acknowledged, segment: 1448, retries, heard: Duration::from_millis(900) };
        let timeout = Duration::from_millis(timeout_ms);
        let silent = Sending { heard: Duration::from_secs(4), ..sending };
        assert!(!drops_full_packets(sent, &silent, timeout), "the link was cut");
        drops_full_packets(sent, &sending, timeout)
    }

    #[test]
    fn only_a_beginning_that_came_through_and_packets_that_never_did_are_meant() {
        assert!(is_seen(300_000, 2_400, 3, 5000));
        assert!(is_seen(4_000, 2_400, 3, 5000));
        assert!(!is_seen(300_000, 2_400, 2, 5000), "not long enough");
        assert!(!is_seen(300_000, 200_000, 9, 5000), "full ones came through");
        assert!(!is_seen(2_600, 2_400, 9, 5000), "nothing but a small one waits");
    }

    #[test]
    fn it_is_seen_before_the_peer_counts_as_silent() {
        for timeout in [500, 1000, 2000, 5000, 30_000, 300_000] {
            let retries = (0..=u8::MAX).find(|retries| is_seen(300_000, 0, *retries, timeout)).unwrap();
            let takes = FIRST_WAIT.as_millis() * ((1 << retries) - 1);
            assert!(
                takes < u128::from(timeout) || retries == 2,
                "{retries} tries take {takes} of {timeout} ms"
            );
        }
    }
}
