//! What the key servers of all flavours share: the ids of keys, how long one is used, and why there is none.

use std::fmt;

/// How long a fetched key is used, in seconds.
pub(crate) const KEY_LIFE: i64 = 3_600;

/// How long a fetched key is still used when the server can't be asked, in seconds.
pub(crate) const STALE_LIFE: i64 = 24 * 3_600;

/// How long an id that the server doesn't know is not asked for again, in seconds.
pub(crate) const UNKNOWN_LIFE: i64 = 60;

/// The id of a key, in a form that is safe as the last segment of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Takes 1 to 128 letters, digits and `-_.`, a letter or digit first; anything else is no key id.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() <= 128
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        fits.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The server doesn't know the id: the token is not the platform's. Trying again within a minute can't help.
    #[error("no key of this id")]
    NotFound,
    /// The server can't be asked now. Trying again can help.
    #[error("key server unavailable: {reason}")]
    Unavailable {
        /// Why, without a URL.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_word_is_a_key_id() {
        assert!(KeyId::parse("0e50fccb-239d-4991-a5db-dc850ba3f236").is_some());
        for text in [
            "",
            "..",
            ".",
            "a/b",
            "a%2Fb",
            "a?b",
            "a#b",
            "http://x",
            "a\nb",
            "é",
            &"a".repeat(129),
        ] {
            assert!(KeyId::parse(text).is_none(), "{text:?}");
        }
    }
}
