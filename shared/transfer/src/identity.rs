use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the identity as the platform spelt it.
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }

            /// The identity as the platform spelt it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

identity! {
    /// Who the data belongs to: the `clientKey` of the verified token (PROTOCOL.md 4.1) on Connect, the ARI of the verified installation (7.5) on Forge; never
    /// of a body.
    TenantId
}
identity! {
    /// One listener's app migration inside one run of a plan (PROTOCOL.md 2.1). A re-run gets a new one.
    TransferId
}
identity! {
    /// All attempts of one migration: the id of the first transfer, `originalTransferId ?? transferId` (PROTOCOL.md 10).
    ChainId
}

/// Which of the platform's two protocols a tenant speaks: its events, its REST API, and who settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// The app settles a transfer itself, within 14 days (PROTOCOL.md 2).
    Connect,
    /// The platform settles it by the answers to its messages, one every 15 minutes (PROTOCOL.md 7).
    Forge,
}

/// What the ARI of every installation on Forge begins with (PROTOCOL.md 7.5).
const INSTALLATION: &str = "ari:cloud:ecosystem::installation/";

impl TenantId {
    /// The flavour, which a tenant has for ever: an installation's ARI is no `clientKey`, and intake takes none that looks like one. So whatever
    /// carries the tenant (a row, a message) says how it is to be read, and no body has to.
    pub fn flavour(&self) -> Flavour {
        if self.0.starts_with(INSTALLATION) {
            Flavour::Forge
        } else {
            Flavour::Connect
        }
    }
}

/// What stands between the id of a transfer and the number of a later phase. No id of the platform's that is taken in has one
/// (`landfall_platform::event::is_identity`), so none can name a later phase of another transfer.
const PHASE: char = '+';

impl TransferId {
    /// The id under which a later phase of this transfer is known, the second of which is `number` 2. The phases of a staged transfer are counted from its own.
    #[must_use]
    pub fn phase(&self, number: u32) -> Self {
        Self(format!("{}{PHASE}{number}", self.first_phase().as_str()))
    }

    /// The number of the phase, 1 for an id of the platform's.
    pub fn phase_number(&self) -> u32 {
        self.0
            .split_once(PHASE)
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or(1)
    }

    /// The id of the transfer whose later phase this is; the same for an id of the platform's.
    #[must_use]
    pub fn first_phase(&self) -> Self {
        match self.0.split_once(PHASE) {
            Some((first, _)) => Self(first.to_owned()),
            None => self.clone(),
        }
    }

    /// Whether it is a later phase: nothing of it is known to the platform.
    pub fn is_later_phase(&self) -> bool {
        self.0.contains(PHASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_phase_is_named_after_the_transfer_and_leads_back_to_it() {
        let first = TransferId::new("e4166374-2345");
        assert_eq!((first.phase_number(), first.is_later_phase()), (1, false));
        let second = first.phase(2);
        assert_eq!(second.as_str(), "e4166374-2345+2");
        assert_eq!((second.phase_number(), second.is_later_phase()), (2, true));
        assert_eq!(second.first_phase(), first);
        assert_eq!(second.phase(3), first.phase(3));
    }

    #[test]
    fn a_tenant_is_of_forge_by_the_ari_of_its_installation_and_of_connect_by_anything_else() {
        let flavour = |id: &str| TenantId::new(id).flavour();
        assert_eq!(
            flavour("ari:cloud:ecosystem::installation/2f8c"),
            Flavour::Forge
        );
        for key in [
            "7f0c1e1a-client-key",
            "unknown-7f0c",
            "ari:cloud:jira::site/2f8c",
            "",
        ] {
            assert_eq!(flavour(key), Flavour::Connect, "{key}");
        }
    }
}
