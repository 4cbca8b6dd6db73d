//! The one digest that this project takes: SHA-256.

use aws_lc_rs::digest::{SHA256, digest};

/// Lowercase hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}
