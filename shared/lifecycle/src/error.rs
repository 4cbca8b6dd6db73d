use landfall_tracking::Error as Tracking;

/// Why work on a transfer could not go on. Trying again later can help with each of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table or a queue.
    #[error(transparent)]
    Tracking(#[from] Tracking),
    /// The tenant's row is not there or can't be read, so nobody can speak to its site.
    #[error("find the tenant's installation")]
    NoTenant,
    /// The tenant's base URL is not admitted by the configuration any more.
    #[error("call the tenant's site: {0}")]
    NotAdmitted(#[from] landfall_platform::hosts::Refused),
    /// Others kept changing the transfer.
    #[error("write a transfer that others kept changing")]
    Raced,
    /// An event that was accepted can't be read any more.
    #[error("read a stored event: {0}")]
    Event(#[from] landfall_platform::connect::event::DecodeError),
    /// The transfer's messages want answers, and no function makes such a transfer yet: it is of a newer release.
    #[error("answer the messages of a transfer on Forge, which this release doesn't serve")]
    NotServed,
    /// Not even a client could be made.
    #[error("make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Error {
    /// Whether the cause lies outside of this piece of work and passes without it: an outage, a race, an answer that got
    /// lost, a tenant, a host or a key that the configuration has yet to admit. Such work is never poison.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Raced
                | Self::NoTenant
                | Self::NotAdmitted(_)
                | Self::Tracking(
                    Tracking::Conflict
                        | Tracking::Contended
                        | Tracking::Unknown
                        | Tracking::Unavailable(_)
                        | Tracking::Vault(_)
                )
        )
    }

    /// The code of an error that keeps a transfer's site from being called until a person has mended it; `docs/errors` explains it.
    pub(crate) const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoTenant | Self::NotAdmitted(_) => Some("LF-NO-SITE"),
            Self::Tracking(Tracking::Vault(_)) => Some("LF-VAULT"),
            _ => None,
        }
    }
}
