use serde::{Deserialize, Serialize};

/// How many bytes a file has as it was uploaded, so compressed if it is, and their SHA-256; each as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The digest of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

impl Measure {
    /// Whether nothing is known.
    pub const fn is_unknown(&self) -> bool {
        self.bytes.is_none() && self.sha256.is_none()
    }

    /// How a file differs from what the manifest says of it, if it does. What isn't known doesn't differ, and of another length the digest
    /// says nothing more.
    pub(crate) fn difference(&self, declared: &Self) -> Option<String> {
        if let (Some(found), Some(declared)) = (self.bytes, declared.bytes)
            && found != declared
        {
            return Some(format!("{found} bytes, the manifest says {declared}"));
        }
        match (&self.sha256, &declared.sha256) {
            (Some(found), Some(declared)) if found.first() != declared.first() => Some(format!(
                "SHA-256 {}…, the manifest says {}…",
                found.first(),
                declared.first()
            )),
            _ => None,
        }
    }
}

/// A SHA-256 in lower-case hexadecimal digits.
///
/// Of what a manifest says only the first digits are kept, so that 10,000 of them fit into one stored item. They are compared: other
/// bytes have the same ones once in 2⁶⁴.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Digits of a whole one.
    const DIGITS: usize = 64;

    /// Digits that are kept of what a manifest says, compared and shown.
    const FIRST: usize = 16;

    /// Takes a whole digest; `None` unless it has 64 lower-case hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == Self::DIGITS && text.bytes().all(is_digit)).then_some(Self(text))
    }

    /// Its digits, as many as are known.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits that are compared.
    fn first(&self) -> &str {
        self.0.get(..Self::FIRST).unwrap_or(&self.0)
    }

    /// With the digits only that are compared.
    pub(crate) fn shortened(&self) -> Self {
        Self(self.first().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(bytes: Option<u64>, sha256: Option<&str>) -> Measure {
        let sha256 = sha256.map(|begins| Digest::new(format!("{begins:0<64}")).unwrap());
        Measure { bytes, sha256 }
    }

    #[test]
    fn a_digest_is_64_lower_case_hexadecimal_digits() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::new(&*digits).unwrap().as_str(), digits);
        for text in [
            "",
            &digits[1..],
            &format!("{digits}0"),
            &digits.to_uppercase(),
            &digits.replace('f', "g"),
            &digits.replace("ef", "é"),
        ] {
            assert_eq!(Digest::new(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_differs_by_its_length_or_else_by_its_digest() {
        let found = measure(Some(3), Some("aa"));
        let difference = |bytes, sha256| found.difference(&measure(bytes, sha256));
        assert_eq!(difference(Some(3), Some("aa")), None);
        let length = Some("3 bytes, the manifest says 4".to_owned());
        assert_eq!(difference(Some(4), Some("aa")), length);
        assert_eq!(difference(Some(4), Some("ab")), length);
        let digest = "SHA-256 aa00000000000000…, the manifest says ab00000000000000…";
        for bytes in [Some(3), None] {
            assert_eq!(difference(bytes, Some("ab")), Some(digest.to_owned()));
        }
    }

    #[test]
    fn what_is_not_known_does_not_differ() {
        let unknown = measure(None, None);
        let whole = measure(Some(3), Some("aa"));
        assert!(unknown.is_unknown() && !whole.is_unknown());
        for (found, declared) in [
            (&unknown, &whole),
            (&whole, &unknown),
            (&measure(Some(3), None), &measure(None, Some("aa"))),
            (&measure(Some(3), None), &whole),
        ] {
            assert_eq!(found.difference(declared), None);
        }
    }

    #[test]
    fn a_shortened_digest_is_compared_by_the_digits_that_are_left() {
        let declared = |begins| Measure {
            sha256: measure(None, Some(begins))
                .sha256
                .map(|digest| digest.shortened()),
            ..Measure::default()
        };
        let found = measure(Some(3), Some("0123456789abcdef7"));
        assert_eq!(found.difference(&declared("0123456789abcdef8")), None);
        assert!(found.difference(&declared("0123456789abcdee7")).is_some());
    }
}
