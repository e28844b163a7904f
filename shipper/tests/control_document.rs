//! The manual's page about the control socket says what the daemon takes and answers.

use ftship::control::{Request, Response};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/reference/control-socket.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The JSON of a column, with values in place of the manual's letters.
fn examples(column: usize) -> Vec<String> {
    let page = page();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').nth(column));
    let json = cells.map(|cell| cell.trim().trim_matches('`').replace(": N", ": 7").replace(": T", ": 7"));
    json.filter(|cell| cell.starts_with('{') || cell.starts_with('"')).collect()
}

/// The words of an enum, from the error that names them all.
fn words(error: &str) -> Vec<String> {
    let (_, listed) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
    let words = listed.split(',').filter_map(|word| word.split('`').nth(1));
    words.map(str::to_owned).collect()
}

#[test]
fn every_request_is_on_the_page_and_no_other() {
    let examples: Vec<String> = examples(0).into_iter().filter(|json| json.contains("\"verb\"")).collect();
    for json in &examples {
        Request::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    }
    let known = words(&Request::parse(b"{\"verb\": \"none\"}").unwrap_err());
    assert!(known.len() > 9, "{known:?}");
    for verb in known {
        let named = format!("{{\"verb\": \"{verb}\"");
        assert!(examples.iter().any(|json| json.starts_with(&named)), "the page has no `{verb}`");
    }
}

#[test]
fn every_answer_is_on_the_page_and_no_other() {
    let name = |json: &String| json.trim_start_matches('{').split('"').nth(1).map(str::to_owned);
    let mut named: Vec<String> = examples(1).iter().filter_map(name).collect();
    named.extend(examples(0).iter().filter(|json| !json.contains("\"verb\"")).filter_map(name));
    let known = words(&Response::parse("{\"none\": 1}").unwrap_err());
    assert!(known.len() > 9, "{known:?}");
    for answer in &known {
        assert!(named.contains(answer), "the page has no `{answer}`");
    }
    for answer in &named {
        assert!(known.contains(answer), "the page has `{answer}`, which is no answer");
    }
}
