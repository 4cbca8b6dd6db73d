//! What became of a transfer, signed; and all of its records that did not arrive.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use landfall_lifecycle::Error;
use landfall_tracking::{Exception, ExceptionOutcome, ExceptionRow, File, FileState};
use landfall_transfer::{
    ChainId, Counts, FileOutcome, Phase, SettledBy, TenantId, Timestamp, Transfer, TransferId,
};
use serde::Serialize;

use crate::Sweeper;

/// The form of a receipt; further fields may come within it.
const VERSION: u32 = 1;

/// The most bytes of exceptions in one answer; Lambda's answers have 6 MB at most, and a row that begins below it has a megabyte or two.
const PAGE_BYTES: usize = 3_000_000;

/// What became of a transfer and of every record of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    version: u32,
    /// The app's key.
    app: String,
    tenant: TenantId,
    transfer: TransferId,
    /// The first attempt's id.
    chain: ChainId,
    phase: &'static str,
    /// The verdict, or the platform's word where it decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// What the admin read.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at_ms: Option<i64>,
    /// Records of all files.
    records: Records,
    files: Vec<ReceiptFile>,
    /// Of a staged transfer, whose records are stored and not yet in the target when the platform has its verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<Staged>,
    /// Of a later phase: the staged transfer whose records it imports.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase_of: Option<TransferId>,
    exceptions: Exceptions,
    /// What doesn't balance, in words; nothing where everything does.
    differences: Vec<String>,
    issued_at_ms: i64,
}

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Records {
    read: u64,
    applied: u64,
    unchanged: u64,
    held: u64,
    rejected: u64,
}

impl From<Counts> for Records {
    fn from(counts: Counts) -> Self {
        Self {
            read: counts.read,
            applied: counts.applied,
            unchanged: counts.unchanged,
            held: counts.held,
            rejected: counts.rejected,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ReceiptFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    file: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    records: Records,
}

/// What becomes of the records of a staged transfer after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Staged {
    /// `awaited`, `under_way`, `over`; `none` where nothing follows.
    second_phase: &'static str,
    /// The newest phase, which has a receipt of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferId>,
    /// How that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// Its records; those that earlier phases have applied count as unchanged.
    records: Records,
}

/// The exceptions, of which the receipt names the number and the digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Exceptions {
    held: u64,
    rejected: u64,
    /// SHA-256 of all their lines, each with a line feed, in hexadecimal.
    sha256: String,
}

/// A receipt as JSON Web Signature, flattened (RFC 7515, 7.2.2; Ed25519 as in RFC 8037). `payload` is the receipt in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedReceipt {
    payload: String,
    protected: String,
    signature: String,
}

/// Some of a transfer's exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExceptionLines {
    /// A JSON object each, without a line feed. Written one a line, they have the digest that the receipt names.
    pub lines: Vec<String>,
    /// What to ask for next; none when these were the last.
    pub next: Option<String>,
}

/// A line of the exceptions.
#[derive(Serialize)]
struct Line<'row> {
    label: &'row str,
    file: &'row str,
    record: u64,
    outcome: ExceptionOutcome,
    key: Option<&'row str>,
    namespace: Option<&'row str>,
    reason: &'row str,
}

impl Sweeper {
    /// Says what became of a transfer, signed. A transfer that was never seen has none.
    pub async fn receipt(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Option<SignedReceipt>, Error> {
        let store = self.lifecycle.store();
        let Some(stored) = store.transfer(tenant, transfer).await? else {
            return Ok(None);
        };
        let files = store.files(tenant, transfer).await?;
        let exceptions = self.count_exceptions(tenant, transfer).await?;
        let configuration = self.lifecycle.configuration();
        let app = &configuration.app.key;
        let now = self.lifecycle.now();
        let mut receipt = Receipt::of(app, &stored.transfer, &files, exceptions, now);
        if stored.transfer.is_staged() {
            receipt.staged = Some(self.staged(&stored.transfer).await?);
        }
        let key = &configuration.secret_key;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let protected = format!(
            r#"{{"alg":"EdDSA","typ":"landfall-receipt+json","jwk":{{"kty":"OKP","crv":"Ed25519","x":"{}"}}}}"#,
            encode(key.receipt_key())
        );
        let receipt = serde_json::to_vec(&receipt).expect("numbers and strings always serialise");
        let (protected, payload) = (encode(protected.as_bytes()), encode(&receipt));
        let signature = key.sign_receipt(format!("{protected}.{payload}").as_bytes());
        Ok(Some(SignedReceipt {
            payload,
            protected,
            signature: encode(&signature),
        }))
    }

    async fn staged(&self, transfer: &Transfer) -> Result<Staged, Error> {
        let (tenant, clocks) = (&transfer.tenant, &self.lifecycle.configuration().clocks);
        let Some(last) = self.lifecycle.last_phase(tenant, &transfer.id).await? else {
            let awaited = !transfer.is_settled() || transfer.due_at(clocks).is_some();
            return Ok(Staged {
                second_phase: if awaited { "awaited" } else { "none" },
                transfer: None,
                status: None,
                records: Records::default(),
            });
        };
        let files = self
            .lifecycle
            .store()
            .files(tenant, &last.transfer.id)
            .await?;
        let status = match &last.transfer.phase {
            Phase::Settled(settled) => settled.status.clone(),
            _ => None,
        };
        Ok(Staged {
            second_phase: if last.transfer.is_settled() {
                "over"
            } else {
                "under_way"
            },
            transfer: Some(last.transfer.id),
            status,
            records: total(&files).into(),
        })
    }

    /// Records of a transfer that did not arrive, some at a time.
    pub async fn exceptions(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        after: Option<&str>,
    ) -> Result<ExceptionLines, Error> {
        let store = self.lifecycle.store();
        let page = store.exceptions(tenant, transfer, after).await?;
        let (mut lines, mut bytes, mut next) = (Vec::new(), 0, page.next);
        let last = page.rows.len();
        for (number, row) in page.rows.into_iter().enumerate() {
            for line in lines_of(&row) {
                bytes += line.len();
                lines.push(line);
            }
            if bytes > PAGE_BYTES || number + 1 == last {
                if number + 1 < last {
                    next = Some(row.place);
                }
                break;
            }
        }
        Ok(ExceptionLines { lines, next })
    }

    async fn count_exceptions(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Exceptions, Error> {
        let (mut held, mut rejected) = (0, 0);
        let mut digest = Context::new(&SHA256);
        let mut after: Option<String> = None;
        loop {
            let store = self.lifecycle.store();
            let page = store.exceptions(tenant, transfer, after.as_deref()).await?;
            for row in &page.rows {
                for line in lines_of(row) {
                    digest.update(line.as_bytes());
                    digest.update(b"\n");
                }
                let is_held = |exception: &&Exception| exception.outcome == ExceptionOutcome::Held;
                let of_row = row.exceptions.iter().filter(is_held).count() as u64;
                held += of_row;
                rejected += row.exceptions.len() as u64 - of_row;
            }
            after = page.next;
            if after.is_none() {
                let sha256 = hex::encode(digest.finish());
                return Ok(Exceptions {
                    held,
                    rejected,
                    sha256,
                });
            }
        }
    }
}

fn lines_of(row: &ExceptionRow) -> impl Iterator<Item = String> + '_ {
    row.exceptions.iter().map(|exception| {
        let line = Line {
            label: &row.label,
            file: &row.s3_key,
            record: exception.record,
            outcome: exception.outcome,
            key: exception.key.as_deref(),
            namespace: exception.namespace.as_deref(),
            reason: &exception.reason,
        };
        serde_json::to_string(&line).expect("numbers and strings always serialise")
    })
}

/// Records of all files.
fn total(files: &[File]) -> Counts {
    files
        .iter()
        .fold(Counts::default(), |total, file| total + file.counts)
}

impl Receipt {
    fn of(
        app: &str,
        transfer: &Transfer,
        files: &[File],
        exceptions: Exceptions,
        now: Timestamp,
    ) -> Self {
        let (verdict, settled) = match &transfer.phase {
            Phase::Settling(settlement) => (Some(&settlement.verdict), None),
            Phase::Settled(settled) => (settled.verdict.as_ref(), Some(settled)),
            _ => (None, None),
        };
        let status = settled
            .and_then(|settled| settled.status.clone())
            .or_else(|| verdict.map(|verdict| verdict.status.as_str().to_owned()));
        let settled_by = settled.map(|settled| match settled.by {
            SettledBy::App => "app",
            SettledBy::Platform => "platform",
            SettledBy::Rerun(_) => "re-run",
        });
        let total = total(files);
        let mut receipt = Self {
            version: VERSION,
            app: app.to_owned(),
            tenant: transfer.tenant.clone(),
            transfer: transfer.id.clone(),
            chain: transfer.chain(),
            phase: transfer.phase.as_str(),
            status,
            cause: verdict.map(|verdict| verdict.cause.as_str()),
            message: verdict.map(|verdict| verdict.message.clone()),
            settled_by,
            settled_at_ms: settled.map(|settled| settled.at.as_millis()),
            records: total.into(),
            files: files.iter().map(ReceiptFile::of).collect(),
            staged: None,
            phase_of: transfer.is_later_phase().then(|| transfer.id.first_phase()),
            exceptions,
            differences: Vec::new(),
            issued_at_ms: now.as_millis(),
        };
        receipt.compare(total, transfer.work.counts);
        receipt
    }

    /// Notes what doesn't balance.
    fn compare(&mut self, files: Counts, transfer: Counts) {
        let mut differ = |holds: bool, what: String| {
            if !holds {
                self.differences.push(what);
            }
        };
        differ(
            files.balances(),
            format!("of {} records read, not each has one outcome", files.read),
        );
        // Files that are still under way are counted for their transfer when they end.
        let over = matches!(self.phase, "SETTLING" | "SETTLED");
        differ(
            !over || files == transfer,
            format!("the transfer counts {transfer}, its files {files}"),
        );
        let Exceptions { held, rejected, .. } = &self.exceptions;
        differ(
            (files.held, files.rejected) == (*held, *rejected),
            format!(
                "{held} held and {rejected} rejected records are listed, the files count {files}"
            ),
        );
    }
}

impl ReceiptFile {
    fn of(file: &File) -> Self {
        let (outcome, reason) = match (&file.state, &file.outcome) {
            (FileState::Ended, Some(FileOutcome::Imported)) => ("imported", None),
            (FileState::Ended, Some(FileOutcome::Unreadable { reason })) => {
                ("unreadable", Some(reason.clone()))
            }
            (FileState::Ended, Some(FileOutcome::Poisoned { reason })) => {
                ("poison", Some(reason.clone()))
            }
            (FileState::Ended | FileState::Fenced, _) => ("stopped", None),
            (FileState::Dropped, _) => ("dropped", None),
            (FileState::Announced | FileState::Open, _) => ("open", None),
        };
        Self {
            label: file.label.clone(),
            file: file.s3_key.clone(),
            outcome,
            reason,
            records: file.counts.into(),
        }
    }
}
