//! One event of the platform, whichever flavour delivered it.

use std::borrow::Cow;

use serde_json::Value;

use crate::digest::sha256_hex;

pub(crate) mod fields;

/// Longest identity that we take as part of a key, in bytes. The platform's are UUIDs of 36 (PROTOCOL 3.4).
pub const IDENTITY_MAX: usize = 128;

/// Longest label that we keep as it is, in bytes (OPEN-QUESTIONS C2).
pub const LABEL_MAX: usize = 1024;

/// Why a body is no event. Sending it again can't help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not JSON in UTF-8.
    #[error("the body is not JSON")]
    NotJson,
    /// A known type lacks a field that it can't do without.
    #[error("{event_type} without {field}")]
    MissingField {
        /// The platform's word for the event.
        event_type: String,
        /// The missing field.
        field: &'static str,
    },
    /// A field that we need can't be used: not a string, too long, or with characters that no identity has.
    #[error("{event_type} with an unusable {field}")]
    InvalidField {
        /// The platform's word for the event.
        event_type: String,
        /// The field.
        field: &'static str,
    },
}

/// What the server's listener failed with. Obfuscated by the platform, but still the customer's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The exception's class.
    pub exception_type: Option<String>,
    /// Its stack trace.
    pub stack_trace: Option<String>,
}

/// What happened (PROTOCOL 3.3 and 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server's listener was started.
    ListenerTriggered,
    /// One exported file is complete in the platform's storage.
    AppDataUploaded {
        /// Names the file at the platform.
        s3_key: String,
        /// Free text of the server app; at most [`LABEL_MAX`] bytes.
        label: Option<String>,
    },
    /// The server's listener ended with an exception.
    ListenerErrored {
        /// With what, when the event says so itself: Forge's does, for Connect's the platform has to be asked.
        error: Option<ServerError>,
    },
    /// The export phase is complete: no file will follow. Only Forge says so.
    ExportPhaseCompleted,
    /// The admin or Support cancelled; the app has 60 minutes to settle.
    CancellationRequested,
    /// The platform recorded that the transfer is settled.
    Settled {
        /// The platform's word for how, when it said so (OPEN-QUESTIONS A10).
        status: Option<String>,
    },
    /// A type that we don't know; empty when the event names none. Stored, acknowledged and skipped.
    Unknown(String),
}

impl Kind {
    /// Its name in our rows and logs: Connect's word, and one like it for what only Forge has.
    pub fn event_type(&self) -> &str {
        match self {
            Self::ListenerTriggered => "listener-triggered",
            Self::AppDataUploaded { .. } => "app-data-uploaded",
            Self::ListenerErrored { .. } => "listener-errored",
            Self::ExportPhaseCompleted => "export-phase-completed",
            Self::CancellationRequested => "transfer-cancellation-requested",
            Self::Settled { .. } => "transfer-settled",
            Self::Unknown(name) => name,
        }
    }

    /// Whether the type is one that we act on.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

/// An event, checked as far as a body alone can be. Who sent it is the token's business, not the body's.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// The transfer that it happened to. Always there when the kind is known.
    pub transfer_id: Option<String>,
    /// In a re-run, the first transfer of the chain (PROTOCOL 10).
    pub original_transfer_id: Option<String>,
    /// The delivery's identity, fit to be a key. Equal for every repetition of the same event.
    pub message_id: String,
    /// Whether the platform gave no usable `messageId`, so that [`Self::message_id`] is a digest.
    pub message_id_is_digest: bool,
    /// When the migration was created, in milliseconds since the Unix epoch.
    pub created_at_ms: Option<i64>,
    /// Tenants that the body names: the Jira and the Confluence client key, those that are known. A claim, not a proof.
    pub client_keys: Vec<String>,
    /// One run of a plan.
    pub migration_id: Option<String>,
    /// The pair of server and cloud site.
    pub migration_scope_id: Option<String>,
    /// The site's address as the event has it; for support, never for calls.
    pub cloud_url: Option<String>,
    /// The whole body but for the plan's name, which may hold personal data.
    pub raw: Value,
}

impl Event {
    /// The platform's own `messageId`, by which a Forge message is answered (PROTOCOL 7.6). Absent when it gave none that we can use: the
    /// digest that stands in for it means nothing to the platform.
    pub fn platform_message_id(&self) -> Option<&str> {
        (!self.message_id_is_digest).then_some(self.message_id.as_str())
    }
}

/// Whether a text may become part of a key and of a URL's path: 1 to [`IDENTITY_MAX`] letters, digits and `-_.:~`, a letter or digit first.
///
/// The first character rules out `.` and `..`, which a URL would resolve.
pub fn is_identity(text: &str) -> bool {
    text.len() <= IDENTITY_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:~".contains(&byte))
}

/// A label of at most [`LABEL_MAX`] bytes. A longer one keeps its beginning, its end (where a suffix tells the format) and a digest of the
/// whole between them, so that two long labels stay two.
pub fn bounded_label(label: &str) -> Cow<'_, str> {
    const TAIL: usize = 128;
    const DIGEST: usize = 32;
    if label.len() <= LABEL_MAX {
        return Cow::Borrowed(label);
    }
    let digest = sha256_hex(label.as_bytes());
    let marks = "…".len() * 2;
    let head = &label[..label.floor_char_boundary(LABEL_MAX - TAIL - DIGEST - marks)];
    let tail = &label[label.ceil_char_boundary(label.len() - TAIL)..];
    Cow::Owned(format!("{head}…{}…{tail}", &digest[..DIGEST]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_safe_in_a_key_and_in_a_path() {
        assert!(is_identity("0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001"));
        assert!(is_identity("jira:7f0c2f7e"));
        for unsafe_text in [
            "",
            ".",
            "..",
            "a/b",
            "a#b",
            // A later phase of a transfer is named so, by us alone.
            landfall_transfer::TransferId::new("a").phase(2).as_str(),
            "a b",
            "é",
            "-a",
            &"a".repeat(129),
        ] {
            assert!(!is_identity(unsafe_text), "{unsafe_text:?}");
        }
    }

    #[test]
    fn a_long_label_is_cut_and_stays_different_from_its_neighbour() {
        let one = format!("{}-0001-of-0002.json.gz", "ä".repeat(2_000));
        let other = format!("b{}-0001-of-0002.json.gz", "ä".repeat(2_000));
        let (one, other) = (bounded_label(&one), bounded_label(&other));
        assert!(one.len() <= LABEL_MAX && other.len() <= LABEL_MAX);
        assert!(one.ends_with("-0001-of-0002.json.gz"));
        assert_ne!(one, other);
        assert_eq!(bounded_label("attachments"), "attachments");
    }
}
