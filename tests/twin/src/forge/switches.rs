//! The readings of what is undocumented about Forge.

use serde::{Deserialize, Serialize};

use crate::switches::choices;

choices! {
    /// How an invocation token names the installation (PROTOCOL 7.5).
    FitClaims {
        /// `app.installationId` and `app.apiBaseUrl`.
        #[default]
        InstallationId,
        /// Both forms.
        Both,
        /// Only `app.installation` with its `contexts`, as apps for several products have it.
        Contexts,
    }
}
choices! {
    /// How a migration event lies in the body of its request (D1).
    Envelope {
        /// It is the body.
        #[default]
        TopLevel,
        /// Under `event`.
        Event,
        /// Under `payload`.
        Payload,
    }
}
choices! {
    /// How the end of an export is told (PROTOCOL 7.2, 7.6).
    ExportCompleted {
        /// By the event `completed:export_phase`.
        #[default]
        Explicit,
        /// Not at all: the platform assumes it when no upload has come for a while.
        Implicit,
    }
}
choices! {
    /// What the 15 minutes for an answer count from (D7).
    Window {
        /// From the transfer's last upload or last successful answer.
        #[default]
        PerTransfer,
        /// From the upload of each message.
        PerMessage,
        /// As per transfer, but not before the export is complete.
        AfterExport,
    }
}
choices! {
    /// What becomes of a transfer whose window has passed (D12).
    ExpiredState {
        /// It is `TIMED_OUT`.
        #[default]
        TimedOut,
        /// It is `FAILED`.
        Failed,
    }
}
choices! {
    /// What a message that failed does to its transfer (D8).
    FailedMessage {
        /// `FAILED` once all messages are answered and the export is complete.
        #[default]
        AtEnd,
        /// `FAILED` at once.
        AtOnce,
        /// As at the end, but `INCOMPLETE` when other messages succeeded.
        IncompleteAtEnd,
    }
}
