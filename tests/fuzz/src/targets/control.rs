//! Lines on the control socket, a client's and a daemon's, and beats to the watchdog.

use ftship::control::{LINE_LIMIT, Request, Response};
use ftship::standby::watchdog::{GOODBYE, beat_of, phase_of};

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target {
    name: "control",
    run,
    seeds,
    max_len: 4096,
    words: &[
        "{\"verb\":",
        "\"status\"",
        "\"checkpoint\"",
        "\"promote\"",
        "\"full-sync\"",
        "\"wait\":",
        "true",
        "false",
        "null",
        "\"quiesced\":",
        "\"staged\":",
        "\"epoch\":",
        "\"commit\"",
        "{\"promoted\":{\"epoch\":",
        "\"started\"",
        "{\"refused\":{\"reason\":",
        "{\"failed\":",
        "\"epochs\":",
        "\"primary\":",
        "\"backup\":",
        "1e999",
        "-1",
        "18446744073709551616",
        "\\u0000",
        "\\ud800",
        "[[[[[[[[",
        "}",
        ",",
        "\n",
    ],
};

/// Memory for a line of `len` bytes.
fn bound(len: usize) -> usize {
    (16 << 10) + 16 * len
}

fn run(data: &[u8]) -> Verdict {
    // The sockets' readers hand out no longer line.
    let line = &data[..data.len().min(LINE_LIMIT)];
    for beat in data.iter().take(256) {
        let phase = phase_of(*beat);
        assert!(phase.is_none_or(|phase| beat_of(phase) == *beat && *beat != GOODBYE));
    }
    let request = request(line);
    match std::str::from_utf8(line) {
        Ok(text) => request.or(response(text)),
        Err(_) => request,
    }
}

fn request(line: &[u8]) -> Verdict {
    match within(bound(line.len()), || Request::parse(line)) {
        Ok(request) => {
            let again = Request::parse(json(&request).as_bytes());
            assert_eq!(format!("{again:?}"), format!("Ok({request:?})"));
            Verdict::Accepted
        }
        Err(reason) => {
            explains(&reason, &["not a request: "]);
            // The refusal must reach the client whole.
            let answer = json(&Response::Refused { reason });
            assert!(answer.len() < LINE_LIMIT, "an answer of {} bytes", answer.len());
            Verdict::Refused
        }
    }
}

fn response(line: &str) -> Verdict {
    match within(bound(line.len()), || Response::parse(line)) {
        Ok(response) => {
            let again = Response::parse(&json(&response));
            assert_eq!(format!("{again:?}"), format!("Ok({response:?})"));
            if let Response::Status(status) = &response {
                assert!(!ftship::control::text::status(status).is_empty());
            }
            Verdict::Accepted
        }
        Err(reason) => {
            explains(&reason, &["not an answer: "]);
            Verdict::Refused
        }
    }
}

fn json(line: &impl serde::Serialize) -> String {
    serde_json::to_string(line).unwrap_or_else(|error| panic!("cannot be written: {error}"))
}

fn seeds() -> Vec<Seed> {
    let status = Response::Status(Box::new(ftship::control::Status {
        reason: Some("why".into()),
        primary: Some(Default::default()),
        backup: Some(Default::default()),
        ..Default::default()
    }));
    let requests = [
        ("status", Request::Status),
        ("checkpoint", Request::Checkpoint { wait: true, staged: true, quiesced: false }),
        ("commit", Request::Commit { epoch: 9 }),
        ("promote", Request::Promote { epoch: Some(9), force: true, token: Some(7) }),
        ("switch", Request::Switch { stall: true }),
        ("demote", Request::Demote),
        ("discard-mine", Request::DiscardMine),
        ("full-sync", Request::FullSync),
    ];
    let responses = [
        ("to-status", status),
        ("to-checkpoint", Response::Checkpoint { epoch: 9 }),
        ("started", Response::Started),
        ("refused", Response::Refused { reason: "this side is a backup".into() }),
    ];
    let requests = requests.iter().map(|(name, request)| ((*name).to_owned(), json(request).into()));
    let responses = responses.iter().map(|(name, response)| ((*name).to_owned(), json(response).into()));
    requests.chain(responses).collect()
}
