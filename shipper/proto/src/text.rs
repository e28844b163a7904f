//! Text of others: what a peer, or a program, says for people.
//!
//! Always holds: such text is one line, and commands no terminal: it goes into logs, onto terminals and to the
//! service manager, where a line break begins a command of its own.

/// The text with a space in place of each character that breaks the line, controls a terminal or turns the direction
/// of writing. It is never longer than before.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { ' ' } else { c }).collect()
}

fn is_control(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_breaks_a_line_or_commands_a_terminal() {
        let said =
            "a\nWATCHDOG=trigger\r\n\u{1b}[2J\u{9b}2J\0\u{7f}\u{85}\u{2028}\u{2029}\u{202e}b ä€\u{fffd}";
        let line = one_line(said);
        assert_eq!(line, "a WATCHDOG=trigger   [2J 2J      b ä€\u{fffd}");
        assert!(line.len() <= said.len());
        assert_eq!(one_line(&line), line);
    }
}
