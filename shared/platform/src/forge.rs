//! The Forge flavour of the platform (PROTOCOL 7).

pub mod client;
pub mod event;
pub mod keys;
#[cfg(any(test, fuzzing))]
pub(crate) mod signer;
pub mod token;
