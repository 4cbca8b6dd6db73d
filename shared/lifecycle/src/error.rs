use landfall_platform::connect::client::CallError;
use landfall_tracking::Error as Tracking;

use crate::platform::NoProductApi;

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
    /// No token of the installation is good for long enough. One comes only with a call of the platform's (PROTOCOL.md 7.5).
    #[error("call the platform for an installation on Forge whose token has ended")]
    NoToken,
    /// The platform did not simply take the answer to a message.
    #[error("answer the message of a file: {0}")]
    NotAnswered(#[from] CallError),
    /// A product's own API, without which the import can't go on, can't be called for the installation.
    #[error("call the product's API for an installation on Forge: {0}")]
    NoProductApi(#[from] NoProductApi),
    /// The tenant is an installation on Forge, and the configuration has no `[forge]`.
    #[error("call the platform for an installation on Forge without [forge] in landfall.toml")]
    NotConfigured,
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
                | Self::NotAnswered(_)
                | Self::Tracking(
                    Tracking::Conflict
                        | Tracking::Contended
                        | Tracking::Unknown
                        | Tracking::Unavailable(_)
                )
        ) || self.code().is_some()
    }

    /// The code of an error that keeps a transfer's site from being called, until a person has mended it or, of a token or a product's address, the platform has sent one; `docs/errors`
    /// explains it.
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoTenant | Self::NotAdmitted(_) | Self::NotConfigured => Some("LF-NO-SITE"),
            Self::NoToken => Some("LF-NO-TOKEN"),
            Self::NoProductApi(_) => Some("LF-NO-PRODUCT-API"),
            Self::Tracking(Tracking::Vault(_)) => Some("LF-VAULT"),
            _ => None,
        }
    }
}
