//! The Connect flavour of the platform (PROTOCOL 3 to 5).

pub mod client;
pub mod event;
pub mod install_keys;
pub mod lifecycle;
pub mod qsh;
pub mod token;
