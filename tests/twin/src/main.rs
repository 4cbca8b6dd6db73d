//! The program `landfall-twin`: the platform's twin, and the generator of exports.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use landfall_twin::{
    AuthorKeys, EXAMPLE_FORGE_APP, Format, Generated, Options, Product, Shape, Twin, fresh_seed,
    write_to,
};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A twin of Atlassian's App Migration Platform, Connect and Forge.
#[derive(Parser)]
#[command(name = "landfall-twin", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until Ctrl-C; prints one line of JSON with the URLs when ready.
    Serve(Serve),
    /// Write a realistic export of any size.
    Generate(Generate),
}

#[derive(Args)]
struct Serve {
    /// Platform, key server and control API; port 0 takes a free one.
    #[arg(long, env = "LANDFALL_TWIN_LISTEN", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// The object store of the signed URLs.
    #[arg(
        long,
        env = "LANDFALL_TWIN_STORE_LISTEN",
        default_value = "127.0.0.1:9101"
    )]
    store_listen: SocketAddr,
    /// The key in the app's descriptor.
    #[arg(
        long,
        env = "LANDFALL_TWIN_APP_KEY",
        default_value = "com.example.vault.cloud"
    )]
    app_key: String,
    /// The ARI of the Forge app.
    #[arg(
        long,
        env = "LANDFALL_TWIN_FORGE_APP",
        default_value = EXAMPLE_FORGE_APP
    )]
    forge_app: String,
    /// Same seed, same ids, contents and faults; without one each start is another run.
    #[arg(long, env = "LANDFALL_TWIN_SEED")]
    seed: Option<u64>,
    /// URL under which the app reaches --listen, when it isn't that address.
    #[arg(long, env = "LANDFALL_TWIN_PUBLIC_URL")]
    public_url: Option<String>,
    /// URL under which the app reaches --store-listen.
    #[arg(long, env = "LANDFALL_TWIN_PUBLIC_STORE_URL")]
    public_store_url: Option<String>,
}

#[derive(Args)]
struct Generate {
    /// NDJSON, or one JSON array.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Number of records.
    #[arg(long, conflicts_with = "bytes")]
    records: Option<u64>,
    /// Size before compression, rounded up to a whole record.
    #[arg(long)]
    bytes: Option<u64>,
    /// Exact size of one record.
    #[arg(long, default_value_t = 300)]
    record_bytes: u64,
    /// Compress.
    #[arg(long)]
    gzip: bool,
    /// Same seed, same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Id of the first record.
    #[arg(long, default_value_t = 10_000)]
    first_id: u64,
    /// Records that can't be read.
    #[arg(long, default_value_t = 0)]
    bad_records: u64,
    /// Records whose author has no mapping.
    #[arg(long, default_value_t = 0)]
    missing_mappings: u64,
    /// How authors are named.
    #[arg(long, value_enum, default_value_t)]
    author_keys: AuthorKeys,
    /// Whose ids.
    #[arg(long, value_enum, default_value_t)]
    product: Product,
    /// File to write; standard output without it.
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(arguments) => serve(arguments),
        Command::Generate(arguments) => generate(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader of the pipe left: nothing to report, as with any filter.
            let quiet = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
            if quiet {
                return ExitCode::SUCCESS;
            }
            let _ = writeln!(std::io::stderr(), "landfall-twin: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(arguments: Serve) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // Before the ready line: whoever reads it may stop us at once.
    let stop = stop_signal().context("listen for signals")?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let (app_key, forge_app) = (arguments.app_key.clone(), arguments.forge_app.clone());
    let twin = Twin::start(Options {
        listen: arguments.listen,
        store_listen: arguments.store_listen,
        app_key: arguments.app_key,
        forge_app: arguments.forge_app,
        seed,
        public_url: arguments.public_url,
        public_store_url: arguments.public_store_url,
    })
    .await?;
    let ready = serde_json::json!({
        "url": twin.url(),
        "store_url": twin.store_url(),
        "install_key_server": format!("{}/install-keys", twin.url()),
        "forge_key_set": format!("{}/.well-known/jwks.json", twin.url()),
        "forge_api": format!("{}/app/migration/forge/v1", twin.url()),
        "app_key": app_key,
        "forge_app": forge_app,
        "seed": seed,
    });
    let mut output = std::io::stdout();
    writeln!(output, "{ready}")?;
    output.flush()?;
    stop.await;
    Ok(())
}

/// Listens for Ctrl-C and, where it exists, for SIGTERM, from the call on; the future ends with the first.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn generate(arguments: &Generate) -> anyhow::Result<()> {
    let records = match (arguments.records, arguments.bytes) {
        (Some(records), _) => records,
        (None, Some(bytes)) => bytes.div_ceil(arguments.record_bytes.max(1)),
        (None, None) => 100,
    };
    let generated = Generated::new(Shape {
        format: arguments.format,
        records,
        record_bytes: arguments.record_bytes,
        seed: arguments.seed,
        first_id: arguments.first_id,
        bad_records: arguments.bad_records,
        missing_mappings: arguments.missing_mappings,
        author_keys: arguments.author_keys,
        product: arguments.product,
    })
    .context("generate such a file")?;
    match &arguments.output {
        Some(path) => {
            let file = std::fs::File::create(path)
                .with_context(|| format!("create {}", path.display()))?;
            write_to(&generated, arguments.gzip, &mut BufWriter::new(file))?;
        }
        None => write_to(&generated, arguments.gzip, &mut std::io::stdout().lock())?,
    }
    Ok(())
}
