//! Which sink outside the tables records go to.

use futures_util::FutureExt as _;
use landfall_import::Import;
use landfall_import::declaration::SinkKind;
use landfall_import::ports::{Delivery, Finished, Piece, PieceTaken, Sink, SinkError, SinkOutcome};
use landfall_import::sink::http::HttpSink;
use landfall_import::sink::jira::JiraSink;
use landfall_import::sink::s3::{Bucket, S3Sink};
use landfall_lifecycle::Lifecycle;

use crate::Unfit;
use crate::ports::SiteOperations;

/// The sink of a processor that has none of its own compiled in. There is no value of it.
#[derive(Debug)]
pub enum NoSink {}

impl Sink for NoSink {
    async fn deliver(&self, _: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        match *self {}
    }
}

/// A bucket that records can be staged in, and read back from.
pub trait StageBucket: Bucket + Clone + Send + 'static {}

impl<B: Bucket + Clone + Send + 'static> StageBucket for B {}

/// A target outside the tables.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Outside<K, B> {
    Http(HttpSink),
    S3(S3Sink<B>),
    Jira,
    Custom(K),
}

impl<K: Sink, B: StageBucket> Outside<K, B> {
    /// The one that is configured; none for the records table.
    pub(crate) fn configured(
        lifecycle: &Lifecycle,
        bucket: Option<B>,
        custom: Option<K>,
    ) -> Result<Option<Self>, Unfit> {
        let configuration = lifecycle.configuration();
        let declared = &configuration.import.sink;
        match (declared.kind, custom) {
            (SinkKind::Custom, Some(sink)) => Ok(Some(Self::Custom(sink))),
            (SinkKind::Custom, None) => Err(Unfit::NoSink),
            (_, Some(_)) => Err(Unfit::AnotherSink),
            (SinkKind::Dynamodb, None) => Ok(None),
            (SinkKind::Http, None) => {
                let secret = configuration.environment.sink_secret.as_ref();
                let secret = secret.ok_or(Unfit::NoSecret)?;
                let clock = lifecycle.clock().clone();
                Ok(Some(Self::Http(HttpSink::new(declared, secret, clock)?)))
            }
            (SinkKind::Jira, None) => Ok(Some(Self::Jira)),
            (SinkKind::S3, None) => {
                let prefix = declared.prefix.as_deref().unwrap_or_default();
                let bucket = bucket.ok_or(Unfit::NoBucket)?;
                Ok(Some(Self::S3(S3Sink::new(bucket, prefix))))
            }
        }
    }

    /// The sink of a file.
    pub(crate) fn of<'a>(
        &'a self,
        import: &'a Import,
        operations: SiteOperations<'a, B>,
    ) -> FileSink<'a, K, B> {
        match self {
            Self::Http(sink) => FileSink::Http(sink),
            Self::S3(sink) => FileSink::S3(sink),
            Self::Jira => {
                let declared = import.jira.as_ref();
                let declared = declared
                    .unwrap_or_else(|| unreachable!("an import without it is refused at start-up"));
                FileSink::Jira(JiraSink::new(declared, operations))
            }
            Self::Custom(sink) => FileSink::Custom(sink),
        }
    }
}

/// The sink of one file.
pub(crate) enum FileSink<'a, K, B> {
    Http(&'a HttpSink),
    S3(&'a S3Sink<B>),
    Jira(JiraSink<'a, SiteOperations<'a, B>>),
    Custom(&'a K),
}

// Boxed where the futures are large, or nobody knows how large: the compiler has a limit to how deep they nest.
impl<K: Sink, B: StageBucket> Sink for FileSink<'_, K, B> {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Vec<SinkOutcome>, SinkError> {
        match self {
            Self::Http(sink) => sink.deliver(delivery).await,
            Self::S3(sink) => sink.deliver(delivery).boxed().await,
            Self::Jira(sink) => sink.deliver(delivery).boxed().await,
            Self::Custom(sink) => sink.deliver(delivery).boxed().await,
        }
    }

    fn piece_bytes(&self) -> usize {
        match self {
            Self::Http(sink) => sink.piece_bytes(),
            Self::S3(sink) => sink.piece_bytes(),
            Self::Jira(sink) => sink.piece_bytes(),
            Self::Custom(sink) => sink.piece_bytes(),
        }
    }

    async fn deliver_piece(&self, piece: &Piece<'_>) -> Result<PieceTaken, SinkError> {
        match self {
            Self::Http(sink) => sink.deliver_piece(piece).await,
            Self::S3(sink) => sink.deliver_piece(piece).boxed().await,
            Self::Jira(sink) => sink.deliver_piece(piece).await,
            Self::Custom(sink) => sink.deliver_piece(piece).boxed().await,
        }
    }

    fn hears_the_end(&self) -> bool {
        match self {
            Self::Http(sink) => sink.hears_the_end(),
            Self::S3(sink) => sink.hears_the_end(),
            Self::Jira(sink) => sink.hears_the_end(),
            Self::Custom(sink) => sink.hears_the_end(),
        }
    }

    async fn finish(&self, finished: &Finished<'_>) -> Result<(), SinkError> {
        match self {
            Self::Http(sink) => sink.finish(finished).await,
            Self::S3(sink) => sink.finish(finished).boxed().await,
            Self::Jira(sink) => sink.finish(finished).await,
            Self::Custom(sink) => sink.finish(finished).boxed().await,
        }
    }
}
