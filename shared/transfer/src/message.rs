use crate::timestamp::Timestamp;

/// Longest message that we send with a status, in characters. The admin's log shows at most 1,000 (PROTOCOL.md 2.6).
pub const MESSAGE_MAX: usize = 900;

/// Cuts a text to `limit` characters, ending in an ellipsis when something was lost.
pub fn clip(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `1 file`, `2 files`.
pub(crate) fn count_of(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// When held records are asked again, as the admin and support read it.
pub(crate) fn asked_again(held: u64, at: Timestamp) -> String {
    let are = if held == 1 { "is" } else { "are" };
    let records = count_of(held, "held record");
    format!("{records} {are} asked again at {}", at.for_admin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(clip("äöüß", 3), "äö…");
        assert_eq!(clip("äöü", 3), "äöü");
    }
}
