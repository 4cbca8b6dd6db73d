//! Sinks outside the ledger. The `DynamoDB` sink is none of them: there the commit itself writes the records ([`crate::Target::Ledger`]).

pub mod http;
pub mod jira;
pub mod s3;
