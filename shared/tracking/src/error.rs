/// What a call to the table or a queue can end with, by what it means for a retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A condition did not hold: somebody else was faster. Read again and decide again.
    #[error("write what another has changed meanwhile")]
    Conflict,
    /// Other transactions had the same item in hand. Nothing was written; the same call may succeed at once.
    #[error("write while another transaction held the item")]
    Contended,
    /// Sent, and no answer came: it may have happened. Read before deciding.
    #[error("learn whether the call took effect")]
    Unknown,
    /// Throttled, refused for now, or never sent: nothing happened. Trying later can help.
    #[error("reach the service: {0}")]
    Unavailable(String),
    /// The service refuses the call as such; trying again can't help.
    #[error("make a call that the service accepts: {0}")]
    Refused(String),
    /// The key of the vault may not or can't be used as it is configured: a person has to mend it. It says nothing about the secrets that are sealed with it, which are as
    /// they were.
    #[error("use the vault's key (LF-VAULT): {0}")]
    Vault(String),
    /// A row or message that this release can't read. It is left as it is.
    #[error("read {what}: {problem}")]
    Unreadable {
        /// Which row or message, without its content.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Whether the same call may help without reading first.
    pub const fn may_repeat(&self) -> bool {
        matches!(self, Self::Contended | Self::Unavailable(_))
    }

    pub(crate) fn unreadable(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            what: what.into(),
            problem: format!("{problem}"),
        }
    }
}
