use std::io::{Read as _, Write as _};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::future::try_join_all;
use landfall_transfer::clocks::platform;
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::{Actor, Entry, Taken, What};
use landfall_transfer::{
    ChainId, Clocks, Counts, Digest, FileOutcome, FileTotals, Input, Manifest, Measure, TenantId,
    Timestamp, Transfer, TransferId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answers::{FileMessage, apply_all, is_applied};
use crate::error::Error;
use crate::events::Recorded;
use crate::exceptions::{Exception, put_exceptions, put_recounted};
use crate::item::{Item, Reader, Value, instant, number, text};
use crate::keys;
use crate::records::{Landed, put_landed};
use crate::store::{Store, dedupe_expires, history_expires};
use crate::table::{Key, Returning, Write, WriteError};
use crate::timeline::alone;
use crate::transfers::Stored;

/// A file that the platform announced or listed.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// The verified tenant.
    pub tenant: TenantId,
    /// Its transfer.
    pub transfer: TransferId,
    /// The platform's key for it.
    pub s3_key: String,
    /// The label that the server app gave, if any.
    pub label: Option<String>,
    /// The event that announced it, as JSON without the plan's name; none when the platform's list showed it.
    pub event: Option<String>,
    /// The event's message id or its digest.
    pub message_id: Option<String>,
    /// When it was first seen.
    pub received_at: Timestamp,
}

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Stored, and not yet taken up.
    Announced,
    /// Taken up; being imported, or about to be.
    Open,
    /// Its import has ended.
    Ended,
    /// Its transfer was stopped before it ended.
    Fenced,
    /// Its transfer was over before it was taken up.
    Dropped,
}

impl FileState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "ANNOUNCED",
            Self::Open => "OPEN",
            Self::Ended => "ENDED",
            Self::Fenced => "FENCED",
            Self::Dropped => "DROPPED",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        [
            Self::Announced,
            Self::Open,
            Self::Ended,
            Self::Fenced,
            Self::Dropped,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            Error::unreadable(
                "a file's row",
                format!("state {text} is not known to this release"),
            )
        })
    }
}

/// A file's row.
#[derive(Clone, Debug)]
pub struct File {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its transfer.
    pub transfer: TransferId,
    /// The platform's key for it.
    pub s3_key: String,
    /// The label that the server app gave, if any.
    pub label: Option<String>,
    /// The event that announced it, as JSON.
    pub event: Option<String>,
    /// When it was first seen.
    pub received_at: Timestamp,
    /// When a worker first took it up.
    pub taken_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Where it stands.
    pub state: FileState,
    /// The fencing token: only its newest holder may write.
    pub fence: u64,
    /// Until when a worker holds it.
    pub leased_until: Option<Timestamp>,
    /// When a sweep looks at it; none when nothing is owed to it any more.
    pub due_at: Option<Timestamp>,
    /// Times it was taken up since something was last committed or given back in order.
    pub attempts: u64,
    /// Where to go on, as the import wrote it.
    pub checkpoint: Option<String>,
    /// When it may be taken up for its second pass, once the first has ended with records held.
    pub again_at: Option<Timestamp>,
    /// Its records so far.
    pub counts: Counts,
    /// How it ended.
    pub outcome: Option<FileOutcome>,
    /// What it measures, where it was read to its last byte.
    pub measure: Measure,
    /// What it declares, when it is a manifest that could be used.
    pub manifest: Option<Manifest>,
    /// The message that wants an answer for it, once that was counted for its transfer.
    pub message: Option<FileMessage>,
}

/// How a file ends.
#[derive(Clone, Debug)]
pub struct Ending {
    /// One way or the other.
    pub outcome: FileOutcome,
    /// All its records.
    pub counts: Counts,
    /// What it measures, as far as that is known.
    pub measure: Measure,
    /// What it declares, when it is a manifest that can be used.
    pub manifest: Option<Manifest>,
}

impl Ending {
    /// Of a file of which nothing else is known.
    pub fn new(outcome: FileOutcome, counts: Counts) -> Self {
        Self {
            outcome,
            counts,
            measure: Measure::default(),
            manifest: None,
        }
    }
}

/// The right to write for a file, until it is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) tenant: TenantId,
    pub(crate) transfer: TransferId,
    pub(crate) chain: ChainId,
    pub(crate) s3_key: String,
    owner: String,
    pub(crate) fence: u64,
    /// Whether its transfer counts messages of files, and with an end whether one can be answered.
    has_messages: bool,
}

impl Lease {
    /// The fencing token.
    pub const fn fence(&self) -> u64 {
        self.fence
    }

    /// The chain whose records are written.
    pub const fn chain(&self) -> &ChainId {
        &self.chain
    }
}

/// What taking a file up found.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Claimed(Box<Claimed>),
    /// Another worker has it until then.
    Held(Timestamp),
    /// It is read once more, but not before that instant. Nothing was written.
    Waits {
        /// When it may be taken up.
        until: Timestamp,
        /// Its records, as they count until then.
        counts: Counts,
    },
    /// It has ended, or was fenced off; this is its row.
    Ended(Box<File>),
    /// Its transfer takes no work any more.
    Over,
    /// Neither its row nor its transfer is known.
    Unknown,
}

/// A file's row, and its transfer's, which was read when the first was known to be there.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file's.
    pub file: File,
    /// Its transfer's.
    pub transfer: Transfer,
}

/// A file that was taken up.
#[derive(Debug)]
pub struct Claimed {
    /// The right to write for it.
    pub lease: Lease,
    /// Its row, as it stands now.
    pub file: File,
    /// Its transfer, as it stands now.
    pub transfer: Transfer,
}

/// One batch: everything in it is written, or nothing.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where to go on after it.
    pub checkpoint: String,
    /// The file's records up to there; while it is read for the second time, those of the first.
    pub counts: Counts,
    /// Which reading of the file it belongs to.
    pub pass: Pass,
    /// Records that land in the records table with it.
    pub landed: Vec<Landed>,
    /// The file's label; empty when the server app gave none.
    pub label: String,
    /// Records that don't arrive, in the order of the file.
    pub exceptions: Vec<Exception>,
    /// Until when the lease now holds.
    pub leased_until: Timestamp,
}

/// Which reading of a file a commit belongs to. A file that was read to its end with records held is read twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The first, and for most files the only one.
    First,
    /// The first, and it ends with this commit: another follows.
    FirstEnds {
        /// Before this instant the file isn't taken up.
        again_at: Timestamp,
        /// When the sweeper looks for it, should its message be missing.
        due: Timestamp,
    },
    /// The second. What it finds is kept beside what the first found.
    Second,
    /// The second, and it ends with this commit: its counts and exceptions are the file's from now on.
    SecondEnds,
}

impl Pass {
    const fn is_second(self) -> bool {
        matches!(self, Self::Second | Self::SecondEnds)
    }
}

/// Where a compressed file can be entered again; what it says is the reader's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPoint {
    /// Stored bytes of the file before it.
    pub stored: u64,
    /// What the reader needs to know, as text.
    pub state: String,
    /// What the following bytes refer to: packed content of the file, up to some 32 KB.
    pub window: Vec<u8>,
}

/// Attributes of a file's row that say when a worker took it up first, and which function that was.
pub(crate) const TAKEN: [&str; 2] = ["taken_at", "taken_by"];

/// Likewise of its end.
pub(crate) const ENDED: [&str; 2] = ["ended_at", "ended_by"];

/// Largest manifest that is stored, packed, in bytes; an item holds 400 KB (AWS DynamoDB limits). 10,000 labels that count
/// themselves take a tenth of it.
pub const PACKED_MANIFEST_MAX: usize = 300_000;

/// Largest manifest that is unpacked, in bytes: 10,000 labels of 1 KB.
const MANIFEST_MAX: u64 = 16 * 1024 * 1024;

/// A manifest as it is stored. [`Error::Refused`] when it is larger than [`PACKED_MANIFEST_MAX`].
pub fn pack_manifest(manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer
        .write_all(encode(manifest)?.as_bytes())
        .and_then(|()| packer.finish())
        .map_err(|error| Error::unreadable("a manifest", error))
        .and_then(|packed| {
            if packed.len() > PACKED_MANIFEST_MAX {
                return Err(Error::Refused(format!(
                    "a manifest of {} packed bytes",
                    packed.len()
                )));
            }
            Ok(packed)
        })
}

fn unpack_manifest(packed: &[u8]) -> Result<Manifest, Error> {
    let unreadable = || Error::unreadable("a file's row", "its manifest is not what was stored");
    let mut json = String::new();
    GzDecoder::new(packed)
        .take(MANIFEST_MAX)
        .read_to_string(&mut json)
        .map_err(|_| unreadable())?;
    serde_json::from_str(&json).map_err(|_| unreadable())
}

/// Times that a write is repeated when another was faster, before the message is left to its next delivery.
pub(crate) const RACES_MAX: u32 = 12;

/// Most writes of one transaction (AWS DynamoDB limits).
const TRANSACTION_WRITES: usize = 100;

/// Rows of files that a look for an open one reads first: some 4 read units.
const LOOKED_AT_FIRST: usize = 16;

/// Updates under way at once when a transfer's files are fenced off.
const FENCED_AT_ONCE: usize = 25;

impl Store {
    /// Stores a file once. Until it is taken up, the sweeper finds it when `grace` has passed, because its message may be missing.
    pub async fn announce(&self, file: &NewFile, grace: Duration) -> Result<Recorded, Error> {
        let key = keys::file(&file.tenant, &file.transfer, &file.s3_key);
        let mut item = Item::new();
        let mut set = |name: &'static str, value| item.insert(name.into(), value);
        set("kind", text("file"));
        set("v", number(1));
        // Whose it is says its key; a row of more than a kilobyte costs twice as much, each time.
        if let Some(label) = &file.label {
            set("label", text(label));
        }
        if let Some(event) = &file.event {
            set("event", text(event));
        }
        if let Some(message_id) = &file.message_id {
            set("message_id", text(message_id));
        }
        set("state", text(FileState::Announced.as_str()));
        set("fence", number(0));
        set("attempts", number(0));
        set("received_at", instant(file.received_at));
        set("expires_at", dedupe_expires(file.received_at));
        set("due_shard", text(keys::due_shard(&key)));
        set("due_at", instant(file.received_at + grace));
        self.put_once(key, item).await
    }

    /// Finds a file's row, or stores it as [`Store::announce`] does where it is missing: a put that is refused costs as much as
    /// one that isn't, and a read a tenth of it. Returns what was found.
    pub async fn find_or_announce(
        &self,
        file: &NewFile,
        grace: Duration,
    ) -> Result<Option<File>, Error> {
        // Nobody takes a row away, so one that was found is still there; one that wasn't may be by now, and is put if it isn't.
        let found = self
            .file(&file.tenant, &file.transfer, &file.s3_key)
            .await?;
        if found.is_none() || is_planted(SeededBug::DuplicateOverwrites) {
            self.announce(file, grace).await?;
        }
        Ok(found)
    }

    /// Reads a file's row.
    pub async fn file(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
    ) -> Result<Option<File>, Error> {
        let key = keys::file(tenant, transfer, s3_key);
        let item = self.table.get(&key, true).await?;
        item.map(|item| read_file(&key, &item)).transpose()
    }

    /// Reads the rows of all files of a transfer.
    pub async fn files(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
    ) -> Result<Vec<File>, Error> {
        let rows = self
            .rows_with_keys(&keys::transfer(tenant, transfer), keys::FILE)
            .await?;
        rows.iter().map(|(key, row)| read_file(key, row)).collect()
    }

    /// Whether any file of a transfer is still to be worked on. It is looked for behind the file of that key first, in growing steps: whether files are worked on
    /// in the order of their keys or in none, where many are left one is soon found.
    pub async fn has_open_file(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        beside: &str,
    ) -> Result<bool, Error> {
        let beside = keys::file(tenant, id, beside);
        let mut limit = LOOKED_AT_FIRST;
        for begin in [Some(&beside), None] {
            let mut after = begin.cloned();
            loop {
                let page = self
                    .table
                    .query(&beside.partition, keys::FILE, after, Some(limit))
                    .await?;
                for (_, row) in &page.rows {
                    let state = Reader::new(row, "a file's row").text("state")?;
                    if matches!(
                        FileState::parse(state)?,
                        FileState::Announced | FileState::Open
                    ) {
                        return Ok(true);
                    }
                }
                limit *= 2;
                // From the beginning on no further than to where the first look began.
                let is_behind = |key: &Key| begin.is_some() || *key < beside;
                after = page.next.filter(is_behind);
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Takes a file up for `lease`, with a new fencing token, if its transfer is open and nobody holds it.
    ///
    /// Only the file's row is written. That its transfer is open must be read when that row is known to be there already: then whoever
    /// stops the transfer does so after the read, finds the row when it fences the files, and moves the token on.
    pub async fn claim(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        s3_key: &str,
        owner: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Claim, Error> {
        for race in 0..RACES_MAX {
            let Some(file) = self.file(tenant, id, s3_key).await? else {
                return Ok(Claim::Unknown);
            };
            let Some(Stored { transfer, .. }) = self.transfer(tenant, id).await? else {
                return Ok(Claim::Unknown);
            };
            match self.claim_once(&file, transfer, owner, lease, now).await {
                Err(Error::Conflict | Error::Contended) => self.pause(race).await,
                outcome => return outcome,
            }
        }
        Err(Error::Contended)
    }

    /// Takes a file up as [`Store::claim`] does whose row was read just now, and its transfer after it: they are read again only if
    /// the file's row has changed since.
    pub async fn claim_found(
        &self,
        found: &Found,
        owner: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Claim, Error> {
        let Found { file, transfer } = found;
        match self
            .claim_once(file, transfer.clone(), owner, lease, now)
            .await
        {
            Err(Error::Conflict | Error::Contended) => self.pause(0).await,
            outcome => return outcome,
        }
        self.claim(
            &file.tenant,
            &file.transfer,
            &file.s3_key,
            owner,
            lease,
            now,
        )
        .await
    }

    async fn claim_once(
        &self,
        file: &File,
        transfer: Transfer,
        owner: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Claim, Error> {
        if !transfer.is_open() && !is_planted(SeededBug::StoppedTransferTakenUp) {
            return Ok(Claim::Over);
        }
        match file.state {
            FileState::Announced => {}
            FileState::Open => {
                if let Some(until) = file.leased_until.filter(|until| *until > now) {
                    return Ok(Claim::Held(until));
                }
                if let Some(until) = file.again_at.filter(|until| *until > now) {
                    let counts = file.counts;
                    return Ok(Claim::Waits { until, counts });
                }
            }
            FileState::Ended | FileState::Fenced | FileState::Dropped => {
                return Ok(Claim::Ended(Box::new(file.clone())));
            }
        }
        let claimed = self.take_up(file, transfer, owner, now + lease, now);
        Ok(Claim::Claimed(Box::new(claimed.await?)))
    }

    async fn take_up(
        &self,
        file: &File,
        transfer: Transfer,
        owner: &str,
        leased_until: Timestamp,
        now: Timestamp,
    ) -> Result<Claimed, Error> {
        let key = keys::file(&file.tenant, &file.transfer, &file.s3_key);
        let shard = keys::due_shard(&key);
        let taken = Write::update(key)
            .only_if("state", text(file.state.as_str()))
            .only_if("fence", number(file.fence));
        // A worker whose lease has run out may still commit until the token moves on: whoever takes over goes on from there.
        let taken = match &file.checkpoint {
            Some(checkpoint) => taken.only_if("checkpoint", text(checkpoint)),
            None => taken.only_if("attempts", number(file.attempts)),
        };
        // Where the row is due before the lease ends it stays so: a sweep that finds the file held looks again when its lease
        // ends, and most files have ended before. To move an entry of the index is to write it twice.
        let due_at = file
            .due_at
            .filter(|due| *due > now)
            .map_or(leased_until, |due| due.min(leased_until));
        let taken = taken
            .set("state", text(FileState::Open.as_str()))
            .set("fence", number(file.fence + 1))
            .set("lease_owner", text(owner))
            .set("leased_until", instant(leased_until))
            .add("attempts", 1)
            .set("due_shard", text(shard))
            .set("due_at", instant(due_at));
        let first = file.state == FileState::Announced;
        match (first, file.leased_until) {
            (true, _) => {
                self.write(shown(taken, TAKEN, now, self.actor())).await?;
            }
            // Whoever had it neither ended nor gave it back.
            (_, Some(_)) => {
                let taken_over = What::FileTaken {
                    file: file.s3_key.clone(),
                    fence: file.fence + 1,
                    attempt: file.attempts + 1,
                    how: Taken::TakenOver,
                };
                let entry = Entry::new(now, self.actor(), taken_over);
                let told = alone(&file.tenant, &file.transfer, &entry)?;
                self.transact(vec![taken, told]).await?;
            }
            // A next slice is told by what it commits.
            _ => self.write(taken).await?,
        }
        Ok(Claimed {
            lease: Lease {
                tenant: file.tenant.clone(),
                transfer: file.transfer.clone(),
                chain: transfer.chain(),
                s3_key: file.s3_key.clone(),
                owner: owner.to_owned(),
                fence: file.fence + 1,
                has_messages: transfer.messages.is_some(),
            },
            file: File {
                state: FileState::Open,
                fence: file.fence + 1,
                attempts: file.attempts + 1,
                leased_until: Some(leased_until),
                due_at: Some(due_at),
                taken_at: file.taken_at.or(first.then_some(now)),
                ..file.clone()
            },
            transfer,
        })
    }

    /// Writes a batch's records, exceptions and checkpoint together, under the fencing token.
    /// [`Error::Conflict`]: the file was taken over or its transfer stopped; nothing was written and nothing may be.
    pub async fn commit(
        &self,
        lease: &Lease,
        commit: &Commit,
        now: Timestamp,
    ) -> Result<(), Error> {
        let checkpointed = fenced(lease)
            .set("checkpoint", text(&commit.checkpoint))
            .set("attempts", number(0))
            .set("counts", text(encode(&commit.counts)?))
            .set("leased_until", instant(commit.leased_until));
        let checkpointed = match commit.pass {
            Pass::FirstEnds { again_at, due } => checkpointed
                .set("again_at", instant(again_at))
                .set("due_at", instant(due)),
            Pass::First | Pass::Second | Pass::SecondEnds => checkpointed,
        };
        let mut writes = vec![checkpointed];
        writes.extend(put_batch(lease, commit, now)?);
        if writes.len() == 1 {
            // Outside of a transaction it costs half as much.
            return self.write(writes.remove(0)).await;
        }
        if is_planted(SeededBug::CheckpointBeforeRecords) {
            self.write(writes.remove(0)).await?;
        }
        for race in 0..RACES_MAX {
            match self.transact(writes.clone()).await {
                Err(Error::Contended) => self.pause(race).await,
                outcome => return outcome,
            }
        }
        Err(Error::Contended)
    }

    /// Writes a file's last batch as [`Store::commit`] does, and its end as [`Store::end`] does, at once.
    /// Returns whether the file has ended; if not, the batch is written, and what is left is to end the file: all of it was too much for one
    /// transaction, or its transfer takes no answer any more.
    pub async fn commit_end(
        &self,
        lease: &Lease,
        commit: &Commit,
        ending: &Ending,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<bool, Error> {
        let batch = put_batch(lease, commit, now)?;
        // A try that comes too late for the transfer's version is paid for with all its rows: records aren't tried twice.
        let tries = if lease.has_messages && !batch.is_empty() {
            1
        } else {
            RACES_MAX
        };
        for race in 0..tries {
            let Some(decided) = self.decided(lease, ending, now, clocks).await? else {
                break;
            };
            if 1 + decided.len() + batch.len() > TRANSACTION_WRITES {
                break;
            }
            let is_apart = is_planted(SeededBug::EndedInTwoWrites) && !decided.is_empty()
                || is_planted(SeededBug::CheckpointBeforeRecords) && !batch.is_empty();
            let mut writes = vec![self.ended(fenced(lease), ending, now)?];
            writes.extend(decided);
            writes.extend(batch.iter().cloned());
            if is_apart {
                self.write(writes.remove(0)).await?;
            }
            match self.write_end(writes).await {
                Ok(()) => return Ok(true),
                // The file was lost, or its end is ours and its answer was; or the transfer alone has changed.
                Err(Error::Conflict) => {
                    if self.has_ended(lease).await? {
                        return Ok(true);
                    }
                    self.holds(lease).await?;
                }
                Err(Error::Contended) => {}
                Err(Error::Unknown) if self.has_ended(lease).await.unwrap_or(false) => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
            self.pause(race).await;
        }
        // What was delivered counts whether the file can end or not, as long as it isn't fenced off.
        self.commit(lease, commit, now).await?;
        Ok(false)
    }

    /// Whether the file has ended under this lease. Nobody else ends it under its token.
    async fn has_ended(&self, lease: &Lease) -> Result<bool, Error> {
        let file = self.file(&lease.tenant, &lease.transfer, &lease.s3_key);
        let is_ours = |file: File| file.state == FileState::Ended && file.fence == lease.fence;
        Ok(file.await?.is_some_and(is_ours))
    }

    /// An end's writes: alone, where there is one, which costs half as much.
    async fn write_end(&self, mut writes: Vec<Write>) -> Result<(), Error> {
        match writes.len() {
            1 => self.write(writes.remove(0)).await,
            _ => self.transact(writes).await,
        }
    }

    /// Keeps the place where a compressed file can be entered again, in place of the one before, and renews the lease, both or neither.
    /// [`Error::Conflict`] as for [`Store::commit`].
    pub async fn keep_restart_point(
        &self,
        lease: &Lease,
        point: &RestartPoint,
        leased_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let item = Item::from([
            ("stored".into(), number(point.stored)),
            ("state".into(), text(&point.state)),
            ("window".into(), Value::Bytes(point.window.clone())),
            // It holds some of the file's content, and nobody reads on after the platform has given the transfer up.
            (
                "expires_at".into(),
                number((now + platform::LIFE).as_seconds()),
            ),
        ]);
        let key = keys::restart_point(&lease.tenant, &lease.transfer, &lease.s3_key);
        let renewed = fenced(lease).set("leased_until", instant(leased_until));
        self.transact(vec![renewed, Write::put(key, item)]).await
    }

    /// The place that was kept last.
    pub async fn restart_point(&self, lease: &Lease) -> Result<Option<RestartPoint>, Error> {
        let key = keys::restart_point(&lease.tenant, &lease.transfer, &lease.s3_key);
        let Some(item) = self.table.get(&key, true).await? else {
            return Ok(None);
        };
        let reader = Reader::new(&item, "a restart point");
        Ok(Some(RestartPoint {
            stored: reader.number("stored")?,
            state: reader.text("state")?.to_owned(),
            window: reader.bytes("window").unwrap_or_default().to_vec(),
        }))
    }

    /// Whether the lease's fencing token is still the newest, as a read tells. [`Error::Conflict`] as for [`Store::commit`].
    pub async fn holds(&self, lease: &Lease) -> Result<(), Error> {
        let file = self
            .file(&lease.tenant, &lease.transfer, &lease.s3_key)
            .await?;
        match file {
            Some(file) if file.state == FileState::Open && file.fence == lease.fence => Ok(()),
            _ => Err(Error::Conflict),
        }
    }

    /// Writes that the lease holds longer. [`Error::Conflict`] as for [`Store::commit`].
    pub async fn renew(&self, lease: &Lease, leased_until: Timestamp) -> Result<(), Error> {
        let renewed = fenced(lease).set("leased_until", instant(leased_until));
        self.write(renewed).await
    }

    /// Gives a file back before it has ended, to be taken up again; the sweeper looks for it at `due`. `forgiven` says
    /// that the reason lies elsewhere (a busy platform, the end of a slice), so that the attempt doesn't count.
    pub async fn release(
        &self,
        lease: &Lease,
        due: Timestamp,
        forgiven: bool,
    ) -> Result<(), Error> {
        let released = fenced(lease)
            .set("due_at", instant(due))
            .remove("lease_owner")
            .remove("leased_until");
        let released = if forgiven {
            released.set("attempts", number(0))
        } else {
            released
        };
        self.write(released).await
    }

    /// Sees to it that the sweeper looks for a file that waits for its second pass at `due`, and not before.
    pub async fn put_off(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
        again_at: Timestamp,
        due: Timestamp,
    ) -> Result<(), Error> {
        let put_off = Write::update(keys::file(tenant, transfer, s3_key))
            .only_if("state", text(FileState::Open.as_str()))
            .only_if("again_at", instant(again_at))
            .set("due_at", instant(due));
        match self.write(put_off).await {
            // It is over; there is nothing to wait for.
            Ok(()) | Err(Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A worker that was fenced off says that it has stopped, so that nobody waits for its lease to run out.
    pub async fn stopped(&self, lease: &Lease) -> Result<(), Error> {
        let stopped = Write::update(keys::file(&lease.tenant, &lease.transfer, &lease.s3_key))
            .only_if("lease_owner", text(&lease.owner))
            .only_if("state", text(FileState::Fenced.as_str()))
            .remove("lease_owner")
            .remove("leased_until");
        match self.write(stopped).await {
            // Somebody else holds it now; there is nothing of ours to give back.
            Ok(()) | Err(Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends a file. Returns whether it is ended by this lease; if not, the lease was lost, or a transfer that would answer its message takes none any more.
    pub async fn end(
        &self,
        lease: &Lease,
        ending: &Ending,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<bool, Error> {
        for race in 0..RACES_MAX {
            let Some(decided) = self.decided(lease, ending, now, clocks).await? else {
                return Ok(false);
            };
            let mut writes = vec![self.ended(fenced(lease), ending, now)?];
            writes.extend(decided);
            if is_planted(SeededBug::EndedInTwoWrites) && writes.len() > 1 {
                self.write(writes.remove(0)).await?;
            }
            match self.write_end(writes).await {
                Ok(()) => return Ok(true),
                Err(Error::Conflict) => {
                    if self.has_ended(lease).await? {
                        return Ok(true);
                    }
                    match self.holds(lease).await {
                        Ok(()) => {}
                        Err(Error::Conflict) => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
                Err(Error::Contended) => {}
                Err(error) => return Err(error),
            }
            self.pause(race).await;
        }
        Err(Error::Contended)
    }

    /// What a file's end writes of its transfer: that its message, where it has one, is decided, over the version that was read. None where the transfer takes that no more.
    async fn decided(
        &self,
        lease: &Lease,
        ending: &Ending,
        now: Timestamp,
        clocks: &Clocks,
    ) -> Result<Option<Vec<Write>>, Error> {
        if !lease.has_messages {
            return Ok(Some(Vec::new()));
        }
        let Some(stored) = self.transfer(&lease.tenant, &lease.transfer).await? else {
            return Ok(None);
        };
        if !stored.transfer.is_open() {
            return Ok(None);
        }
        // Read after the transfer: whoever counts the message in between makes this write fail.
        let file = self
            .file(&lease.tenant, &lease.transfer, &lease.s3_key)
            .await?;
        let inputs = if file.is_some_and(|file| file.message.is_some()) {
            let applied = is_applied(&ending.outcome, ending.counts);
            vec![Input::MessageDecided { applied }]
        } else {
            Vec::new()
        };
        // Also where there is none yet: who counts it must find the file ended, or this write fails.
        let (transfer, told) = apply_all(&stored.transfer, inputs, now, clocks);
        let (transfer_write, next) = Self::over(&stored, transfer, clocks)?;
        let mut writes = vec![transfer_write];
        writes.extend(told.writes(&next, self.actor())?);
        Ok(Some(writes))
    }

    /// The update of a file's row by its end. From then on it is history, and shorter: nobody goes on from it.
    fn ended(&self, row: Write, ending: &Ending, now: Timestamp) -> Result<Write, Error> {
        let mut ended = shown(row, ENDED, now, self.actor())
            .set("state", text(FileState::Ended.as_str()))
            .set("outcome", text(encode(&ending.outcome)?))
            .set("counts", text(encode(&ending.counts)?))
            .set("attempts", number(0))
            .set("expires_at", history_expires(now))
            .remove("event")
            .remove("checkpoint")
            .remove("lease_owner")
            .remove("leased_until")
            .remove("due_shard")
            .remove("due_at");
        if let Some(bytes) = ending.measure.bytes {
            ended = ended.set("bytes", number(bytes));
        }
        if let Some(sha256) = &ending.measure.sha256 {
            ended = ended.set("sha256", text(sha256.as_str()));
        }
        if let Some(manifest) = &ending.manifest {
            ended = ended.set("manifest", Value::Bytes(pack_manifest(manifest)?));
        }
        Ok(ended)
    }

    /// Moves the fencing token of every unfinished file on, so that no worker can commit for this transfer any more. A file whose message isn't counted yet is left as it is: it is
    /// announced, and nobody can claim it for a transfer that isn't open.
    /// Repeating it changes nothing. The transfer must have left [`landfall_transfer::Phase::Open`] before.
    pub async fn fence_files(
        &self,
        tenant: &TenantId,
        id: &TransferId,
        now: Timestamp,
    ) -> Result<(FileTotals, Option<Timestamp>), Error> {
        let files = self.files(tenant, id).await?;
        let mut fenced = Vec::with_capacity(files.len());
        for some in files.chunks(FENCED_AT_ONCE) {
            fenced.extend(try_join_all(some.iter().map(|file| self.fence(file.clone()))).await?);
        }
        let leases = fenced
            .iter()
            .filter(|file| file.state == FileState::Fenced)
            .filter_map(|file| file.leased_until);
        let leased_until = leases.filter(|until| *until > now).max();
        Ok((totals(&fenced), leased_until))
    }

    async fn fence(&self, mut file: File) -> Result<File, Error> {
        let key = keys::file(&file.tenant, &file.transfer, &file.s3_key);
        for race in 0..RACES_MAX {
            let next = match file.state {
                // Its row stays due: whoever takes it up answers its message.
                FileState::Announced if file.has_uncounted_message() => return Ok(file),
                FileState::Announced => FileState::Dropped,
                FileState::Open => FileState::Fenced,
                FileState::Ended | FileState::Fenced | FileState::Dropped => return Ok(file),
            };
            let fenced = Write::update(key.clone())
                .only_if("state", text(file.state.as_str()))
                .only_if("fence", number(file.fence))
                .set("state", text(next.as_str()))
                .add("fence", 1)
                .remove("due_shard")
                .remove("due_at");
            match self.table.write(fenced, Returning::Row).await {
                // The row as it was written: a batch may have been committed since it was read.
                Ok(row) => return read_file(&key, &row),
                Err(WriteError::ConditionFailed(Some(row))) => file = read_file(&key, &row)?,
                Err(WriteError::ConditionFailed(None)) => return Ok(file),
                Err(WriteError::Failed(Error::Contended)) => self.pause(race).await,
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    /// A file whose transfer is over, or was unknown all along, needs nobody any more.
    pub async fn drop_file(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
    ) -> Result<(), Error> {
        let dropped = Write::update(keys::file(tenant, transfer, s3_key))
            .only_if("state", text(FileState::Announced.as_str()))
            .set("state", text(FileState::Dropped.as_str()))
            .remove("due_shard")
            .remove("due_at");
        match self.write(dropped).await {
            Ok(()) | Err(Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An update of the file's row that holds only while the lease does.
fn fenced(lease: &Lease) -> Write {
    let open = Write::update(keys::file(&lease.tenant, &lease.transfer, &lease.s3_key))
        .only_if("state", text(FileState::Open.as_str()));
    if is_planted(SeededBug::FenceIgnored) {
        return open;
    }
    open.only_if("fence", number(lease.fence))
}

/// Marks in a file's row what its timeline tells of: when, and by whom, unless that was the processor, as it nearly always is.
fn shown(row: Write, [at, by]: [&'static str; 2], now: Timestamp, actor: Actor) -> Write {
    let row = row.set(at, instant(now));
    match actor {
        Actor::Processor => row,
        _ => row.set(by, text(actor.as_str())),
    }
}

/// What a batch writes beside its file's row.
fn put_batch(lease: &Lease, commit: &Commit, now: Timestamp) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    if commit.pass == Pass::SecondEnds {
        writes.push(put_recounted(lease, now));
    }
    for landed in &commit.landed {
        writes.push(put_landed(&lease.tenant, &lease.chain, landed));
    }
    writes.extend(put_exceptions(
        lease,
        &commit.label,
        &commit.exceptions,
        commit.pass.is_second(),
        now,
    )?);
    Ok(writes)
}

/// What the rows of a transfer's files add up to.
pub fn totals(files: &[File]) -> FileTotals {
    let mut totals = FileTotals::default();
    let mut failed: Vec<(Option<Timestamp>, &str)> = Vec::new();
    for file in files {
        let newest = |known: Option<Timestamp>, at| known.max(at);
        totals.last_received_at = newest(totals.last_received_at, Some(file.received_at));
        match file.state {
            FileState::Announced | FileState::Dropped => {
                totals.late += 1;
                continue;
            }
            FileState::Open if file.counts == Counts::default() => {}
            FileState::Open => {
                totals.in_flight.insert(file.s3_key.clone(), file.counts);
            }
            FileState::Ended => {
                totals.ended += 1;
                totals.counts += file.counts;
            }
            FileState::Fenced => totals.counts += file.counts,
        }
        totals.known += 1;
        totals.manifest |= file.manifest.is_some();
        totals.last_moved_at = newest(totals.last_moved_at, file.taken_at.max(file.ended_at));
        match &file.outcome {
            Some(FileOutcome::Unreadable { reason }) => failed.push((file.ended_at, reason)),
            Some(FileOutcome::Poisoned { reason }) => {
                totals.poisoned += 1;
                failed.push((file.ended_at, reason));
            }
            Some(FileOutcome::Imported | FileOutcome::Stopped) | None => {}
        }
    }
    totals.failed = failed.len() as u64;
    totals.first_problem = failed.iter().min().map(|(_, reason)| (*reason).to_owned());
    totals
}

pub(crate) fn read_file(key: &Key, item: &Item) -> Result<File, Error> {
    let reader = Reader::new(item, "a file's row");
    let (tenant, transfer, s3_key) = keys::read_file(key)
        .ok_or_else(|| Error::unreadable("a file's row", "its key is no file's"))?;
    Ok(File {
        tenant,
        transfer,
        s3_key,
        label: reader.optional_text("label").map(str::to_owned),
        event: reader.optional_text("event").map(str::to_owned),
        received_at: reader.optional_instant("received_at").unwrap_or_default(),
        taken_at: reader.optional_instant(TAKEN[0]),
        ended_at: reader.optional_instant(ENDED[0]),
        state: FileState::parse(reader.text("state")?)?,
        fence: reader.number("fence")?,
        leased_until: reader.optional_instant("leased_until"),
        due_at: reader.optional_instant("due_at"),
        attempts: reader.number("attempts")?,
        checkpoint: reader.optional_text("checkpoint").map(str::to_owned),
        again_at: reader.optional_instant("again_at"),
        counts: decode(reader.optional_text("counts"))?.unwrap_or_default(),
        outcome: decode(reader.optional_text("outcome"))?,
        measure: Measure {
            bytes: reader
                .optional_number("bytes")
                .and_then(|bytes| u64::try_from(bytes).ok()),
            sha256: reader.optional_text("sha256").and_then(Digest::new),
        },
        manifest: reader.bytes("manifest").map(unpack_manifest).transpose()?,
        message: FileMessage::read(&reader)?,
    })
}

fn encode(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::unreadable("a file's row", error))
}

fn decode<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, Error> {
    text.map(|text| {
        serde_json::from_str(text).map_err(|error| Error::unreadable("a file's row", error))
    })
    .transpose()
}
