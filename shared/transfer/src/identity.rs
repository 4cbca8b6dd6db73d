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
    /// Who the data belongs to: the `clientKey` of the verified token (PROTOCOL.md 4.1), never of a body.
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
