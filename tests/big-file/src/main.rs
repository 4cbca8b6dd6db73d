//! A file of many gigabytes goes from the twin's store to an HTTP sink. Its signed URL expires every two minutes of the platform's clock, the
//! connection is cut every 50 MB, and the worker is killed with SIGKILL once a minute of its own, which may both run faster than the machine's. In the end the sink must have
//! the file's very content with its ids replaced, no worker may have used more than 96 MiB, and less than 3 % may have been read again.
//!
//! The file is never stored: any byte of it is computed from a seed. The worker is a process of its own with the engine, the platform's REST
//! client, the downloads and the HTTP sink as they are deployed; only its checkpoint is a file instead of a row. On Linux.

mod big_file;
mod receiver;
mod supervisor;
mod table;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Imports a big file from the twin's store to an HTTP sink while URLs expire, connections are cut and the worker is killed; then
/// checks what came of it, and ends with 1 where something does not hold.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    run: supervisor::Run,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// What is killed; reads its task from standard input.
    #[command(hide = true)]
    Worker,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Worker) => worker::work().await.map(|()| ExitCode::SUCCESS),
        None => arguments.run.run().await,
    }
}
