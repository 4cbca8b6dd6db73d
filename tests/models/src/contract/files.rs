use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use landfall_tracking::{
    Claim, Claimed, Commit, Ending, Error, Exception, ExceptionOutcome, FileState, Found, Item,
    Key, Landed, Lease, NewFile, Pass, RecordKey, Recorded, RestartPoint, Returning, Store, Told,
    Value, Write, totals,
};
use landfall_transfer::timeline::{Taken, What};
use landfall_transfer::{
    Clocks, Counts, Declared, Digest, FileOutcome, FileTotals, Input, Manifest, Measure, Transfer,
    TransferId,
};

use super::{GRACE, LEASE, NOW, Subject, Timestamp, expires, id, instant, later, tenant, text};

pub(super) fn upload(s3_key: &str) -> NewFile {
    NewFile {
        tenant: tenant(),
        transfer: id(),
        s3_key: s3_key.to_owned(),
        label: Some("issues.ndjson".to_owned()),
        event: Some("{}".to_owned()),
        message_id: Some("m-1".to_owned()),
        received_at: NOW,
    }
}

impl Subject {
    async fn announce(&self, s3_key: &str) {
        let announced = self.store.announce(&upload(s3_key), GRACE).await.unwrap();
        assert_eq!(announced, Recorded::New);
    }

    /// An open transfer with one announced file.
    async fn prepare(&self) {
        self.open_transfer().await;
        self.announce("k").await;
    }

    /// The same where the platform decides by the answers to messages.
    async fn prepare_with_messages(&self) {
        let transfer = Transfer::first_seen(tenant(), id(), None, None, NOW).with_messages();
        let (nothing, clocks) = (Told::nothing(), Clocks::default());
        let created = self.store.create(&transfer, &nothing, &clocks).await;
        created.unwrap();
        self.announce("k").await;
    }

    async fn claim(&self, s3_key: &str, owner: &str, now: Timestamp) -> Claim {
        claim(&self.store, s3_key, owner, now).await
    }

    pub(super) async fn claimed(&self, s3_key: &str, owner: &str, now: Timestamp) -> Claimed {
        claimed(self.claim(s3_key, owner, now).await)
    }

    async fn file(&self, s3_key: &str) -> landfall_tracking::File {
        let file = self.store.file(&tenant(), &id(), s3_key).await.unwrap();
        file.unwrap()
    }

    /// What the rows of the transfer's files add up to.
    async fn totals(&self) -> FileTotals {
        totals(&self.store.files(&tenant(), &id()).await.unwrap())
    }

    async fn ends(&self, lease: &Lease, counts: Counts) -> bool {
        end(&self.store, lease, counts).await
    }

    /// A file's row and then its transfer's.
    async fn found(&self, s3_key: &str) -> Found {
        let file = self.file(s3_key).await;
        let stored = self.store.transfer(&tenant(), &id()).await.unwrap();
        let transfer = stored.unwrap().transfer;
        Found { file, transfer }
    }

    async fn fence(&self, now: Timestamp) -> (FileTotals, Option<Timestamp>) {
        fence(&self.store, now).await
    }

    /// How many of these records have arrived.
    async fn arrived(&self, lease: &Lease, keys: &[&str]) -> usize {
        let keys: Vec<RecordKey> = keys.iter().copied().map(record).collect();
        self.store
            .known_records(&tenant(), lease.chain(), &keys)
            .await
            .unwrap()
            .len()
    }
}

async fn claim(store: &Store, s3_key: &str, owner: &str, now: Timestamp) -> Claim {
    store
        .claim(&tenant(), &id(), s3_key, owner, LEASE, now)
        .await
        .unwrap()
}

#[track_caller]
fn claimed(claim: Claim) -> Claimed {
    match claim {
        Claim::Claimed(claimed) => *claimed,
        other => panic!("not claimed: {other:?}"),
    }
}

async fn end(store: &Store, lease: &Lease, counts: Counts) -> bool {
    let (ending, clocks) = (
        Ending::new(FileOutcome::Imported, counts),
        Clocks::default(),
    );
    let ended = store.end(lease, &ending, NOW, &clocks).await;
    ended.unwrap()
}

async fn fence(store: &Store, now: Timestamp) -> (FileTotals, Option<Timestamp>) {
    store.fence_files(&tenant(), &id(), now).await.unwrap()
}

fn record(key: &str) -> RecordKey {
    RecordKey {
        label: "issues".to_owned(),
        key: key.to_owned(),
    }
}

const fn applied(records: u64) -> Counts {
    Counts {
        read: records,
        applied: records,
        unchanged: 0,
        held: 0,
        rejected: 0,
    }
}

fn batch(records: u64, keys: &[&str]) -> Commit {
    Commit {
        checkpoint: format!("{{\"records\":{records}}}"),
        counts: applied(records),
        landed: keys
            .iter()
            .map(|key| Landed {
                key: record(key),
                content_hash: format!("hash of {key}"),
                record: "{}".to_owned(),
            })
            .collect(),
        pass: Pass::First,
        label: "issues.ndjson".to_owned(),
        exceptions: Vec::new(),
        leased_until: later(120),
    }
}

#[track_caller]
fn assert_conflict(outcome: Result<(), Error>) {
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
}

#[track_caller]
fn assert_absent(row: &Item, names: &[&str]) {
    for name in names {
        assert_eq!(row.get(*name), None, "{name}");
    }
}

// Announcing.

pub(super) async fn an_upload_is_stored_as_announced_and_due_when_its_grace_is_over(
    subject: &Subject,
) {
    subject.prepare().await;
    let file = subject.file("k").await;
    assert_eq!((file.tenant, file.transfer), (tenant(), id()));
    assert_eq!(
        (file.s3_key.as_str(), file.label.as_deref()),
        ("k", Some("issues.ndjson"))
    );
    assert_eq!(file.event.as_deref(), Some("{}"));
    assert_eq!((file.state, file.fence), (FileState::Announced, 0));
    assert_eq!((file.attempts, file.leased_until), (0, None));
    assert_eq!((file.received_at, file.counts), (NOW, Counts::default()));
    assert_eq!((file.checkpoint, file.outcome), (None, None));
    let row = subject.file_row("k").await;
    assert_eq!(
        (&row["message_id"], &row["v"]),
        (&text("m-1"), &Value::Number(1))
    );
    assert_eq!(row["expires_at"], expires(NOW, 30));
    assert_eq!(subject.due_files(later(119)).await, [""; 0]);
    assert_eq!(subject.due_files(later(120)).await, ["k"]);
}

pub(super) async fn an_upload_that_is_announced_twice_is_one_file_as_it_was_first(
    subject: &Subject,
) {
    subject.prepare().await;
    let before = subject.file_row("k").await;
    let again = NewFile {
        label: Some("other.ndjson".to_owned()),
        event: None,
        received_at: later(60),
        ..upload("k")
    };
    let announced = subject.store.announce(&again, Duration::ZERO).await;
    assert_eq!(announced.unwrap(), Recorded::Duplicate);
    assert_eq!(subject.file_row("k").await, before);
}

pub(super) async fn an_upload_whose_row_is_there_is_found_and_not_put(subject: &Subject) {
    subject.prepare().await;
    let before = subject.file_row("k").await;
    let watched = subject.meddled(|_| async { panic!("a row that is there was put") }.boxed());
    let found = watched.find_or_announce(&upload("k"), Duration::ZERO).await;
    let found = found.unwrap().unwrap();
    assert_eq!((&*found.s3_key, found.state), ("k", FileState::Announced));
    assert_eq!(subject.file_row("k").await, before);
}

pub(super) async fn an_upload_of_which_only_the_message_survived_makes_its_row_once(
    subject: &Subject,
) {
    let found = subject.store.find_or_announce(&upload("k"), GRACE).await;
    assert!(found.unwrap().is_none());
    let made = subject.file_row("k").await;
    subject.announce("other").await;
    let mut other = subject.file_row("other").await;
    other.insert("due_shard".into(), made["due_shard"].clone());
    assert_eq!(made, other, "as if it had been announced");
    // Intake's put may come between the look and the put.
    let slower = subject.meddled(|subject| async move { subject.announce("late").await }.boxed());
    let late = upload("late");
    let found = slower.find_or_announce(&late, Duration::ZERO).await;
    assert!(found.unwrap().is_none());
    assert_eq!(subject.due_files(later(119)).await, [""; 0]);
}

pub(super) async fn a_file_that_was_found_announced_is_taken_up_as_it_stands_by_now(
    subject: &Subject,
) {
    subject.prepare().await;
    let store = &subject.store;
    let found = subject.found("k").await;
    let take = async |store: &Store| {
        let claim = store.claim_found(&found, "a", LEASE, NOW);
        claim.await.unwrap()
    };
    let taken = claimed(take(store).await);
    assert_eq!((taken.lease.fence(), taken.file.attempts), (1, 1));
    // What has become of it since is seen.
    let held = take(store).await;
    assert!(matches!(held, Claim::Held(until) if until == NOW + LEASE));
    assert!(subject.ends(&taken.lease, Counts::default()).await);
    assert!(matches!(take(store).await, Claim::Ended(_)));
    subject.stop().await;
    assert!(matches!(take(store).await, Claim::Over));
}

pub(super) async fn a_file_that_was_found_is_not_taken_up_once_its_transfer_has_been_stopped_and_its_files_fenced_off(
    subject: &Subject,
) {
    subject.prepare().await;
    let found = subject.found("k").await;
    subject.stop().await;
    subject.fence(NOW).await;
    let claim = subject.store.claim_found(&found, "a", LEASE, NOW).await;
    assert!(matches!(claim.unwrap(), Claim::Over));
    assert_eq!(subject.file("k").await.state, FileState::Dropped);
}

pub(super) async fn an_upload_that_is_announced_again_after_it_was_taken_up_changes_nothing(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let announced = subject.store.announce(&upload("k"), Duration::ZERO).await;
    assert_eq!(announced.unwrap(), Recorded::Duplicate);
    let commit = batch(1, &["x"]);
    subject
        .store
        .commit(&taken.lease, &commit, NOW)
        .await
        .unwrap();
    assert_eq!(subject.totals().await.known, 1);
}

// Taking up.

pub(super) async fn of_two_workers_one_takes_the_file_and_it_is_counted_once(subject: &Subject) {
    subject.prepare().await;
    let (one, other) = join(subject.claim("k", "a", NOW), subject.claim("k", "b", NOW)).await;
    let won = [&one, &other]
        .iter()
        .filter(|claim| matches!(claim, Claim::Claimed(_)))
        .count();
    assert_eq!(won, 1, "{one:?} {other:?}");
    assert_eq!(subject.totals().await.known, 1);
}

pub(super) async fn a_file_that_is_taken_up_is_held_and_due_when_its_lease_runs_out(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "worker a", later(5)).await;
    assert_eq!(taken.lease.fence(), 1);
    let row = subject.file_row("k").await;
    assert_eq!(
        (&row["state"], &row["fence"]),
        (&text("OPEN"), &Value::Number(1))
    );
    assert_eq!(row["lease_owner"], text("worker a"));
    assert_eq!(row["leased_until"], instant(later(95)));
    assert_eq!(row["attempts"], Value::Number(1));
    assert_eq!(subject.due_files(later(94)).await, [""; 0]);
    assert_eq!(subject.due_files(later(95)).await, ["k"]);
    // What the claim returned is what lies there.
    assert_eq!(
        format!("{:?}", taken.file),
        format!("{:?}", subject.file("k").await)
    );
    assert_eq!(taken.transfer, subject.transfer().await);
    assert_eq!(subject.totals().await.known, 1);
    assert_eq!(*taken.lease.chain(), taken.transfer.chain());
}

pub(super) async fn a_file_that_is_taken_up_stays_due_when_it_was_if_its_lease_ends_later(
    subject: &Subject,
) {
    subject.open_transfer().await;
    let early = Duration::from_mins(1);
    let announced = subject.store.announce(&upload("k"), early).await;
    assert_eq!(announced.unwrap(), Recorded::New);
    let taken = subject.claimed("k", "a", later(5)).await;
    assert_eq!(taken.file.due_at, Some(later(60)));
    assert_eq!(subject.file_row("k").await["due_at"], instant(later(60)));
    // Whoever takes it over finds it due already, and spares the sweep another look.
    let taken = subject.claimed("k", "b", later(95)).await;
    assert_eq!(taken.file.due_at, Some(later(95) + LEASE));
    let row = subject.file_row("k").await;
    assert_eq!(row["due_at"], instant(later(95) + LEASE));
}

pub(super) async fn a_file_that_is_moved_on_while_it_is_taken_up_is_due_when_its_lease_ends_at_the_latest(
    subject: &Subject,
) {
    subject.open_transfer().await;
    let announced = subject.store.announce(&upload("k"), Duration::ZERO).await;
    assert_eq!(announced.unwrap(), Recorded::New);
    let slower = subject.meddled(|subject| {
        async move {
            let row = subject.due_rows(NOW).await.remove(0);
            let file = subject.file("k").await;
            let moved = subject.store.postpone_file(&row, &file, later(10_000));
            assert!(moved.await.unwrap());
        }
        .boxed()
    });
    claimed(claim(&slower, "k", "a", NOW).await);
    assert_eq!(subject.due_files(later(90)).await, ["k"]);
}

pub(super) async fn a_file_that_is_taken_up_while_a_sweep_looks_at_it_is_not_moved_behind_its_lease(
    subject: &Subject,
) {
    subject.open_transfer().await;
    let early = Duration::from_mins(1);
    let announced = subject.store.announce(&upload("k"), early).await;
    assert_eq!(announced.unwrap(), Recorded::New);
    let row = subject.due_rows(later(60)).await.remove(0);
    let read = subject.file("k").await;
    // The worker's clock is behind the sweep's, so that it leaves the row due when it was.
    subject.claimed("k", "a", later(59)).await;
    let late = subject.store.postpone_file(&row, &read, later(10_000));
    assert!(!late.await.unwrap());
    assert_eq!(subject.file_row("k").await["due_at"], instant(later(60)));
    // A sweep that sees the lease moves the row to its end.
    let read = subject.file("k").await;
    let moved = subject.store.postpone_file(&row, &read, later(149));
    assert!(moved.await.unwrap());
    assert_eq!(subject.file_row("k").await["due_at"], instant(later(149)));
}

pub(super) async fn a_file_is_taken_over_only_when_its_lease_has_run_out(subject: &Subject) {
    subject.prepare().await;
    subject.claimed("k", "a", NOW).await;
    let early = subject.claim("k", "b", later(89)).await;
    assert!(matches!(early, Claim::Held(until) if until == NOW + LEASE));
    subject.claimed("k", "b", later(90)).await;
}

pub(super) async fn the_timeline_tells_who_took_a_file_up_first_and_who_took_it_over(
    subject: &Subject,
) {
    subject.prepare().await;
    let first = subject.claimed("k", "a", NOW).await;
    subject
        .store
        .release(&first.lease, later(10), true)
        .await
        .unwrap();
    subject.claimed("k", "b", later(10)).await;
    subject.claimed("k", "c", later(10) + LEASE).await;
    let told: Vec<_> = subject
        .store
        .timeline(&tenant(), &id())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry.what {
            What::FileTaken {
                fence,
                attempt,
                how,
                ..
            } => Some((how, fence, attempt)),
            _ => None,
        })
        .collect();
    // The slice in between is told by what it commits.
    assert_eq!(told, [(Taken::First, 1, 1), (Taken::TakenOver, 3, 2)]);
}

pub(super) async fn a_takeover_has_a_newer_token_and_counts_an_attempt_and_leaves_the_transfer_alone(
    subject: &Subject,
) {
    subject.prepare().await;
    let first = subject.claimed("k", "a", NOW).await;
    let version = transfer_version(subject).await;
    let second = subject.claimed("k", "b", later(90)).await;
    assert_eq!((first.lease.fence(), second.lease.fence()), (1, 2));
    assert_eq!((first.file.attempts, second.file.attempts), (1, 2));
    assert_eq!(second.transfer, first.transfer);
    assert_eq!(transfer_version(subject).await, version);
    let row = subject.file_row("k").await;
    assert_eq!(
        (&row["fence"], &row["attempts"]),
        (&Value::Number(2), &Value::Number(2))
    );
    assert_eq!(row["lease_owner"], text("b"));
}

async fn transfer_version(subject: &Subject) -> Value {
    let row = subject.row("TRANSFER#tenant#transfer-1", "STATE").await;
    row.unwrap()["version"].clone()
}

pub(super) async fn a_file_that_the_index_had_lost_is_in_it_again_when_it_is_taken_up(
    subject: &Subject,
) {
    subject.prepare().await;
    let key = Key::new("TRANSFER#tenant#transfer-1", "FILE#k");
    let lost = Write::update(key).remove("due_shard").remove("due_at");
    let written = subject.table.write(lost, Returning::Nothing).await;
    written.unwrap();
    assert_eq!(subject.due_files(later(10_000)).await, [""; 0]);
    subject.claimed("k", "a", NOW).await;
    assert_eq!(subject.due_files(later(90)).await, ["k"]);
}

pub(super) async fn a_file_or_transfer_that_is_not_there_can_not_be_taken_up(subject: &Subject) {
    subject.announce("k").await;
    let without_transfer = subject.claim("k", "a", NOW).await;
    assert!(matches!(without_transfer, Claim::Unknown));
    subject.open_transfer().await;
    let without_file = subject.claim("other", "a", NOW).await;
    assert!(matches!(without_file, Claim::Unknown));
    subject.claimed("k", "a", NOW).await;
}

pub(super) async fn of_two_workers_that_take_over_at_once_the_slower_gets_nothing(
    subject: &Subject,
) {
    subject.prepare().await;
    subject.claimed("k", "a", NOW).await;
    let slower = subject
        .meddled(|subject| async move { drop(subject.claimed("k", "b", later(90)).await) }.boxed());
    let claim = claim(&slower, "k", "c", later(90)).await;
    assert!(
        matches!(claim, Claim::Held(until) if until == later(180)),
        "{claim:?}"
    );
    assert_eq!(subject.file_row("k").await["lease_owner"], text("b"));
    assert_eq!(subject.file("k").await.fence, 2);
}

pub(super) async fn a_file_that_is_dropped_while_it_is_taken_up_stays_dropped(subject: &Subject) {
    subject.prepare().await;
    let slower = subject.meddled(|subject| {
        async move {
            let dropped = subject.store.drop_file(&tenant(), &id(), "k").await;
            dropped.unwrap();
        }
        .boxed()
    });
    let claim = claim(&slower, "k", "a", NOW).await;
    assert!(matches!(claim, Claim::Ended(_)), "{claim:?}");
    assert_eq!(subject.file("k").await.state, FileState::Dropped);
    assert_eq!(subject.totals().await.known, 0);
}

pub(super) async fn taking_a_file_up_and_ending_it_leaves_its_transfer_alone(subject: &Subject) {
    subject.prepare().await;
    let before = subject.transfer().await;
    let taken = subject.claimed("k", "a", NOW).await;
    assert_eq!(taken.transfer, before);
    assert!(subject.ends(&taken.lease, applied(2)).await);
    assert_eq!(subject.transfer().await, before);
}

pub(super) async fn a_file_that_is_taken_up_while_its_transfer_is_stopped_is_fenced_off(
    subject: &Subject,
) {
    subject.prepare().await;
    let slower = subject.meddled(|subject| async move { subject.stop().await }.boxed());
    let taken = claimed(claim(&slower, "k", "a", NOW).await);
    // Whoever has stopped it finds the file.
    let (totals, leased_until) = subject.fence(later(1)).await;
    assert_eq!((totals.known, leased_until), (1, Some(NOW + LEASE)));
    let commit = batch(1, &["x"]);
    assert_conflict(subject.store.commit(&taken.lease, &commit, later(2)).await);
}

pub(super) async fn a_file_is_not_taken_up_once_its_transfer_is_fenced(subject: &Subject) {
    subject.prepare().await;
    let slower = subject.meddled(|subject| {
        async move {
            subject.stop().await;
            subject.fence(later(1)).await;
        }
        .boxed()
    });
    let claim = claim(&slower, "k", "a", NOW).await;
    assert!(matches!(claim, Claim::Over), "{claim:?}");
    assert_eq!(subject.file("k").await.state, FileState::Dropped);
}

pub(super) async fn a_batch_that_is_committed_while_its_file_is_taken_over_is_gone_on_from(
    subject: &Subject,
) {
    for before in 0..3 {
        let s3_key = format!("k{before}");
        if before == 0 {
            subject.open_transfer().await;
        }
        subject.announce(&s3_key).await;
        let late = subject.claimed(&s3_key, "a", NOW).await.lease;
        for batches in 1..=before {
            let commit = Commit {
                leased_until: later(90),
                ..batch(batches, &[])
            };
            subject.store.commit(&late, &commit, NOW).await.unwrap();
        }
        let slower = subject.meddled(move |subject| {
            async move {
                let last = batch(before + 1, &["x"]);
                subject.store.commit(&late, &last, later(90)).await.unwrap();
            }
            .boxed()
        });
        // What was committed meanwhile has renewed the lease, too.
        let claim = claim(&slower, &s3_key, "b", later(90)).await;
        assert!(matches!(claim, Claim::Held(_)), "{claim:?}");
        let taken = claimed(claim_later(&slower, &s3_key).await);
        let checkpoint = format!("{{\"records\":{}}}", before + 1);
        assert_eq!(taken.file.checkpoint, Some(checkpoint));
    }
}

async fn claim_later(store: &Store, s3_key: &str) -> Claim {
    claim(store, s3_key, "b", later(200)).await
}

pub(super) async fn a_file_that_is_taken_over_while_its_transfer_is_stopped_is_fenced_off(
    subject: &Subject,
) {
    subject.prepare().await;
    subject.claimed("k", "a", NOW).await;
    let slower = subject.meddled(|subject| async move { subject.stop().await }.boxed());
    let taken = claimed(claim(&slower, "k", "b", later(90)).await);
    let (_, leased_until) = subject.fence(later(91)).await;
    assert_eq!(leased_until, Some(later(180)));
    let commit = batch(1, &["x"]);
    assert_conflict(subject.store.commit(&taken.lease, &commit, later(92)).await);
}

pub(super) async fn a_file_is_not_taken_over_once_its_transfer_is_fenced(subject: &Subject) {
    subject.prepare().await;
    subject.claimed("k", "a", NOW).await;
    let slower = subject.meddled(|subject| {
        async move {
            subject.stop().await;
            subject.fence(later(89)).await;
        }
        .boxed()
    });
    let claim = claim(&slower, "k", "b", later(90)).await;
    assert!(matches!(claim, Claim::Over), "{claim:?}");
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Fenced, 2));
}

// Committing.

pub(super) async fn a_batch_moves_records_exceptions_and_checkpoint_together(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let mut commit = batch(2, &["x", "y"]);
    commit.counts.rejected = 1;
    commit.exceptions.push(exception(3));
    subject
        .store
        .commit(&taken.lease, &commit, later(3))
        .await
        .unwrap();
    let file = subject.file("k").await;
    assert_eq!(
        (file.counts, file.checkpoint.as_deref()),
        (commit.counts, Some("{\"records\":2}"))
    );
    assert_eq!((file.attempts, file.leased_until), (0, Some(later(120))));
    assert_eq!((file.state, file.fence), (FileState::Open, 1));
    assert_eq!(subject.arrived(&taken.lease, &["x", "y", "z"]).await, 2);
    let exceptions = subject
        .rows("TRANSFER#tenant#transfer-1", "EXCEPTION#")
        .await;
    let [(key, row)] = exceptions.as_slice() else {
        panic!("{exceptions:?}")
    };
    assert_eq!(key.sort, "EXCEPTION#k#000000000003");
    let mut row = row.clone();
    let Some(Value::Bytes(packed)) = row.remove("packed") else {
        panic!("{row:?}")
    };
    assert_eq!(packed[..2], [0x1f, 0x8b], "gzip, which anybody can read");
    assert_eq!(
        row,
        Item::from([
            ("kind".into(), text("exceptions")),
            ("v".into(), Value::Number(1)),
            ("s3_key".into(), text("k")),
            ("label".into(), text("issues.ndjson")),
            ("first_record".into(), Value::Number(3)),
            ("count".into(), Value::Number(1)),
            ("at".into(), instant(later(3))),
            ("expires_at".into(), expires(later(3), 400)),
        ])
    );
    let page = subject.store.exceptions(&tenant(), &id(), None).await;
    let rows = page.unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((&*rows[0].s3_key, &*rows[0].label), ("k", "issues.ndjson"));
    assert_eq!(rows[0].exceptions, [exception(3)]);
}

pub(super) async fn a_file_whose_first_pass_has_ended_waits_for_its_second_and_is_due_behind_it(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let commit = Commit {
        pass: Pass::FirstEnds {
            again_at: later(900),
            due: later(1_000),
        },
        ..batch(2, &[])
    };
    let committed = subject.store.commit(&taken.lease, &commit, later(3)).await;
    committed.unwrap();
    assert_eq!(subject.file("k").await.again_at, Some(later(900)));
    assert_eq!(subject.due_files(later(999)).await, [""; 0]);
    assert_eq!(subject.due_files(later(1_000)).await, ["k"]);
    let early = subject.claim("k", "b", later(119)).await;
    assert!(matches!(early, Claim::Held(_)), "{early:?}");
    let row = subject.file_row("k").await;
    // Whoever comes when its lease has run out, too, changes nothing.
    let early = subject.claim("k", "b", later(899)).await;
    assert!(
        matches!(early, Claim::Waits { until, counts } if until == later(900) && counts == applied(2)),
        "{early:?}"
    );
    assert_eq!(subject.file_row("k").await, row);
    // A worker that didn't know the outcome of its commit gives it back for too short a time.
    let released = subject.store.release(&taken.lease, later(10), true).await;
    released.unwrap();
    for (again_at, due) in [(901, 10), (900, 1_000)] {
        let (tenant, id) = (tenant(), id());
        let put_off = subject
            .store
            .put_off(&tenant, &id, "k", later(again_at), later(1_000));
        put_off.await.unwrap();
        assert_eq!(subject.due_files(later(due - 1)).await, [""; 0]);
        assert_eq!(subject.due_files(later(due)).await, ["k"]);
    }
    subject.claimed("k", "b", later(900)).await;
}

pub(super) async fn the_exceptions_of_a_file_are_those_of_the_pass_that_counts(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    // A file whose key begins like the other's, and that is read once.
    let other = subject.lease_of("k#second").await;
    let commits = [
        (&other, Pass::First, 1),
        (&taken.lease, Pass::First, 3),
        (
            &taken.lease,
            Pass::FirstEnds {
                again_at: NOW,
                due: NOW,
            },
            9,
        ),
        (&taken.lease, Pass::Second, 3),
        (&taken.lease, Pass::SecondEnds, 5),
    ];
    let mut found = Vec::new();
    for (lease, pass, record) in commits {
        let commit = Commit {
            pass,
            exceptions: vec![exception(record)],
            ..batch(0, &[])
        };
        subject.store.commit(lease, &commit, NOW).await.unwrap();
        let (mut records, mut after) = (Vec::new(), None::<String>);
        loop {
            let (tenant, id) = (tenant(), id());
            let page = subject.store.exceptions(&tenant, &id, after.as_deref());
            let page = page.await.unwrap();
            let rows = page.rows.into_iter();
            records.extend(rows.flat_map(|row| row.exceptions).map(|one| one.record));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        found.push(records);
    }
    assert_eq!(
        found,
        [
            vec![1],
            vec![3, 1],
            vec![3, 9, 1],
            vec![3, 9, 1],
            vec![3, 5, 1]
        ]
    );
}

fn exception(record: u64) -> Exception {
    Exception {
        record,
        outcome: ExceptionOutcome::Rejected,
        key: Some(format!("key {record}")),
        namespace: Some("identity:user".to_owned()),
        reason: "no mapping".to_owned(),
    }
}

/// Texts that don't pack well.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + u8::try_from(state % 90).unwrap())
    };
    (0..length).map(|_| next()).collect()
}

pub(super) async fn exceptions_of_any_number_and_size_are_kept_and_read_back_in_their_order(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let exceptions: Vec<Exception> = (1..=600)
        .map(|record| Exception {
            reason: noise(record, 900),
            outcome: if record % 2 == 0 {
                ExceptionOutcome::Held
            } else {
                ExceptionOutcome::Rejected
            },
            ..exception(record)
        })
        .collect();
    for some in exceptions.chunks(500) {
        let commit = Commit {
            exceptions: some.to_vec(),
            ..batch(0, &[])
        };
        let committed = subject.store.commit(&taken.lease, &commit, NOW).await;
        committed.unwrap();
    }
    let rows = subject
        .rows("TRANSFER#tenant#transfer-1", "EXCEPTION#")
        .await;
    assert_eq!(rows.len(), 3, "the first 500 fill more than an item");
    let (mut read, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = subject
            .store
            .exceptions(&tenant(), &id(), after.as_deref())
            .await
            .unwrap();
        after = page.next;
        read.extend(page.rows.into_iter().flat_map(|row| row.exceptions));
        if after.is_none() {
            break;
        }
    }
    assert!(read == exceptions, "all, and in order");
}

pub(super) async fn a_lease_holds_until_the_file_is_taken_over_or_its_transfer_stopped(
    subject: &Subject,
) {
    subject.prepare().await;
    let first = subject.claimed("k", "a", NOW).await.lease;
    subject.store.holds(&first).await.unwrap();
    let second = subject.claimed("k", "b", later(90)).await.lease;
    assert_conflict(subject.store.holds(&first).await);
    subject.store.holds(&second).await.unwrap();
    subject.stop().await;
    subject.fence(later(91)).await;
    assert_conflict(subject.store.holds(&second).await);
}

pub(super) async fn a_worker_that_was_taken_over_keeps_no_exceptions(subject: &Subject) {
    subject.prepare().await;
    let old = subject.claimed("k", "a", NOW).await;
    subject.claimed("k", "b", later(90)).await;
    let commit = Commit {
        exceptions: vec![exception(1)],
        ..batch(0, &[])
    };
    assert_conflict(subject.store.commit(&old.lease, &commit, later(91)).await);
    let page = subject.store.exceptions(&tenant(), &id(), None).await;
    assert!(page.unwrap().rows.is_empty());
}

pub(super) async fn a_batch_that_is_committed_again_after_its_answer_was_lost_is_the_same_batch(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let commit = batch(2, &["x", "y"]);
    for _ in 0..2 {
        subject
            .store
            .commit(&taken.lease, &commit, NOW)
            .await
            .unwrap();
    }
    assert_eq!(subject.file("k").await.counts, applied(2));
    assert_eq!(subject.arrived(&taken.lease, &["x", "y"]).await, 2);
}

pub(super) async fn the_place_where_a_file_can_be_entered_again_is_kept_for_14_days_until_a_later_one_replaces_it(
    subject: &Subject,
) {
    subject.prepare().await;
    subject.announce("other").await;
    let taken = subject.claimed("k", "a", NOW).await;
    let other = subject.claimed("other", "a", NOW).await;
    let kept = async |lease: &Lease| subject.store.restart_point(lease).await.unwrap();
    assert_eq!(kept(&taken.lease).await, None);
    let point = |stored: u64| RestartPoint {
        stored,
        state: format!("state at {stored}"),
        window: vec![0, 0xff],
    };
    for stored in [7, 8] {
        let store = &subject.store;
        store
            .keep_restart_point(&taken.lease, &point(stored), later(90), NOW)
            .await
            .unwrap();
        assert_eq!(kept(&taken.lease).await, Some(point(stored)));
    }
    assert_eq!(kept(&other.lease).await, None);
    let key = Key::new("TRANSFER#tenant#transfer-1", "RESTART#k");
    let row = subject.table.get(&key, true).await.unwrap().unwrap();
    assert_eq!(row["expires_at"], expires(NOW, 14));
    assert_eq!(
        subject.store.files(&tenant(), &id()).await.unwrap().len(),
        2
    );
}

pub(super) async fn the_mappings_that_a_transfer_used_are_kept_with_its_history_and_read_in_order(
    subject: &Subject,
) {
    subject.prepare().await;
    let file = subject.claimed("k", "a", NOW).await.file;
    let store = &subject.store;
    // Two of them fill more than one page of a query, which has 1 MB.
    let large = |byte: u8| vec![byte; 300_000];
    for (place, byte) in [("3", 9), ("2", 2), ("1", 1), ("4", 4), ("3", 3)] {
        let kept = store.keep_mappings(&file, place, large(byte), NOW).await;
        kept.unwrap();
    }
    let (mut pieces, mut after) = (Vec::new(), None);
    loop {
        let page = store.kept_mappings(&tenant(), &id(), after).await.unwrap();
        pieces.extend(page.pieces);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pieces, [1, 2, 3, 4].map(large));
    let row = subject
        .row("TRANSFER#tenant#transfer-1", "MAPPINGS#k#1")
        .await;
    assert_eq!(row.unwrap()["expires_at"], expires(NOW, 400));
    assert_eq!(store.files(&tenant(), &id()).await.unwrap().len(), 1);
}

pub(super) async fn a_worker_that_was_taken_over_commits_nothing(subject: &Subject) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    let current = subject.claimed("k", "b", later(90)).await;
    let before = subject.file_row("k").await;
    let point = RestartPoint {
        stored: 9,
        state: String::new(),
        window: Vec::new(),
    };
    let kept = subject
        .store
        .keep_restart_point(&late.lease, &point, later(200), NOW);
    assert_conflict(kept.await);
    let found = subject.store.restart_point(&current.lease).await;
    assert_eq!(found.unwrap(), None);
    let commit = batch(1, &["x"]);
    assert_conflict(subject.store.commit(&late.lease, &commit, NOW).await);
    assert_eq!(subject.arrived(&late.lease, &["x"]).await, 0);
    assert_eq!(subject.file_row("k").await, before);
    let commit = batch(1, &["y"]);
    subject
        .store
        .commit(&current.lease, &commit, NOW)
        .await
        .unwrap();
    assert_eq!(subject.arrived(&current.lease, &["x", "y"]).await, 1);
}

pub(super) async fn a_worker_commits_nothing_for_a_file_that_has_ended(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    assert!(subject.ends(&taken.lease, applied(1)).await);
    let before = subject.file_row("k").await;
    let commit = batch(2, &["x"]);
    assert_conflict(subject.store.commit(&taken.lease, &commit, NOW).await);
    assert_eq!(subject.arrived(&taken.lease, &["x"]).await, 0);
    assert_eq!(subject.file_row("k").await, before);
}

// Holding and giving back.

pub(super) async fn a_lease_that_is_renewed_holds_longer(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    subject.store.renew(&taken.lease, later(300)).await.unwrap();
    let held = subject.claim("k", "b", later(299)).await;
    assert!(matches!(held, Claim::Held(until) if until == later(300)));
    assert_eq!(subject.claimed("k", "b", later(300)).await.lease.fence(), 2);
}

pub(super) async fn a_lease_that_was_lost_can_not_be_renewed(subject: &Subject) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    let current = subject.claimed("k", "b", later(90)).await;
    let before = subject.file_row("k").await;
    assert_conflict(subject.store.renew(&late.lease, later(900)).await);
    assert_eq!(subject.file_row("k").await, before);
    assert!(subject.ends(&current.lease, applied(1)).await);
    assert_conflict(subject.store.renew(&current.lease, later(900)).await);
    assert_absent(&subject.file_row("k").await, &["leased_until"]);
}

pub(super) async fn a_file_given_back_in_order_is_taken_up_again_without_an_attempt_counted(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let back = subject.store.release(&taken.lease, later(10), true).await;
    back.unwrap();
    assert_eq!(subject.file_row("k").await["attempts"], Value::Number(0));
    assert_eq!(subject.claimed("k", "b", later(1)).await.file.attempts, 1);
}

pub(super) async fn a_file_given_back_after_a_failure_keeps_its_attempts(subject: &Subject) {
    subject.prepare().await;
    for attempt in 1..=3 {
        let taken = subject.claimed("k", "a", NOW).await;
        assert_eq!(taken.file.attempts, attempt);
        let back = subject.store.release(&taken.lease, NOW, false).await;
        back.unwrap();
    }
}

pub(super) async fn a_file_given_back_is_free_at_once_and_due_when_it_was_said(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let back = subject.store.release(&taken.lease, later(30), true).await;
    back.unwrap();
    let row = subject.file_row("k").await;
    assert_absent(&row, &["lease_owner", "leased_until"]);
    assert_eq!(
        (&row["state"], &row["fence"]),
        (&text("OPEN"), &Value::Number(1))
    );
    assert_eq!(subject.due_files(later(29)).await, [""; 0]);
    assert_eq!(subject.due_files(later(30)).await, ["k"]);
    assert_eq!(subject.claimed("k", "b", later(1)).await.lease.fence(), 2);
}

pub(super) async fn a_file_that_was_lost_can_not_be_given_back(subject: &Subject) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    let current = subject.claimed("k", "b", later(90)).await;
    let before = subject.file_row("k").await;
    assert_conflict(subject.store.release(&late.lease, NOW, true).await);
    assert_eq!(subject.file_row("k").await, before);
    assert!(subject.ends(&current.lease, applied(1)).await);
    assert_conflict(subject.store.release(&current.lease, NOW, true).await);
    assert_absent(&subject.file_row("k").await, &["due_at"]);
}

// Ending.

pub(super) async fn a_file_ends_once_and_is_counted_once(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let (one, other) = join(
        subject.ends(&taken.lease, applied(2)),
        subject.ends(&taken.lease, applied(2)),
    )
    .await;
    assert!(
        one && other,
        "whose answer was lost is told that it has ended"
    );
    let totals = subject.totals().await;
    assert_eq!((totals.ended, totals.counts), (1, applied(2)));
    let again = subject.claim("k", "b", later(500)).await;
    assert!(matches!(again, Claim::Ended(_)));
}

pub(super) async fn a_file_that_has_ended_is_nobodys_and_nothing_is_due_for_it(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let (outcome, clocks) = (
        FileOutcome::Unreadable {
            reason: "no JSON".to_owned(),
        },
        Clocks::default(),
    );
    let ending = Ending::new(outcome.clone(), applied(3));
    let ended = subject.store.end(&taken.lease, &ending, later(4), &clocks);
    assert!(ended.await.unwrap());
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Ended, 1));
    assert_eq!((file.outcome, file.counts), (Some(outcome), applied(3)));
    assert_eq!((file.manifest, file.measure), (None, Measure::default()));
    let row = subject.file_row("k").await;
    assert_eq!(row["ended_at"], instant(later(4)));
    assert_absent(
        &row,
        &[
            "lease_owner",
            "leased_until",
            "due_at",
            "due_shard",
            "bytes",
            "sha256",
        ],
    );
    assert_eq!(subject.due_files(later(10_000)).await, [""; 0]);
}

async fn ends_with(store: &Store, lease: &Lease, commit: &Commit) -> Result<bool, Error> {
    let clocks = Clocks::default();
    let ending = Ending {
        measure: measure(),
        ..Ending::new(FileOutcome::Imported, commit.counts)
    };
    let ended = store.commit_end(lease, commit, &ending, later(4), &clocks);
    ended.await
}

pub(super) async fn a_file_ends_in_one_write_with_its_last_batch(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let last = Commit {
        exceptions: vec![exception(2)],
        ..batch(3, &["x"])
    };
    let no_other_write = |_| async { panic!("there is a second write") }.boxed();
    let store = subject.meddled_after(1, no_other_write);
    assert!(ends_with(&store, &taken.lease, &last).await.unwrap());
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Ended, 1));
    assert_eq!(file.outcome, Some(FileOutcome::Imported));
    assert_eq!((file.counts, file.measure), (last.counts, measure()));
    let row = subject.file_row("k").await;
    assert_eq!(
        (&row["attempts"], &row["ended_at"]),
        (&Value::Number(0), &instant(later(4)))
    );
    let over = ["lease_owner", "leased_until", "due_at", "due_shard"];
    assert_absent(&row, &over);
    assert_eq!(subject.arrived(&taken.lease, &["x"]).await, 1);
    let exceptions = subject.rows("TRANSFER#tenant#transfer-1", "EXCEPTION#");
    assert_eq!(exceptions.await.len(), 1);
    let totals = subject.totals().await;
    assert_eq!((totals.ended, totals.counts), (1, last.counts));
    let told = subject.store.timeline(&tenant(), &id()).await.unwrap();
    let ends = |what: &What| matches!(what, What::FileEnded { .. });
    assert_eq!(told.iter().filter(|entry| ends(&entry.what)).count(), 1);
    // Nobody ends it again.
    let before = subject.file_row("k").await;
    assert!(
        ends_with(&subject.store, &taken.lease, &last)
            .await
            .unwrap()
    );
    assert_eq!(subject.file_row("k").await, before);
    assert_eq!(subject.totals().await.ended, 1);
}

pub(super) async fn a_worker_that_was_taken_over_ends_nothing_with_its_last_batch(
    subject: &Subject,
) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await.lease;
    subject.claimed("k", "b", later(90)).await;
    let before = subject.file_row("k").await;
    let outcome = ends_with(&subject.store, &late, &batch(1, &["x"])).await;
    assert_conflict(outcome.map(drop));
    assert_eq!(subject.file_row("k").await, before);
    assert_eq!(subject.arrived(&late, &["x"]).await, 0);
    assert_eq!(subject.totals().await.ended, 0);
}

pub(super) async fn a_transfer_with_messages_that_changes_while_a_file_ends_with_its_last_batch_keeps_its_change(
    subject: &Subject,
) {
    subject.prepare_with_messages().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let slower = subject.meddled(|subject| {
        async move { subject.apply(Input::Reporting { percent: 7 }).await }.boxed()
    });
    let last = batch(1, &[]);
    assert!(ends_with(&slower, &taken.lease, &last).await.unwrap());
    assert_eq!(subject.transfer().await.last_percent, 7);
    assert_eq!(subject.totals().await.ended, 1);
    // Records are not sent twice for it: they are written alone, and the file ends in a write of its own.
    subject.announce("records").await;
    let lease = subject.claimed("records", "a", NOW).await.lease;
    let slower = subject.meddled(|subject| {
        async move { subject.apply(Input::Reporting { percent: 8 }).await }.boxed()
    });
    let last = batch(1, &["x"]);
    assert!(!ends_with(&slower, &lease, &last).await.unwrap());
    assert_eq!(subject.arrived(&lease, &["x"]).await, 1);
    assert!(subject.ends(&lease, last.counts).await);
    assert_eq!(subject.transfer().await.last_percent, 8);
    assert_eq!(subject.totals().await.ended, 2);
}

pub(super) async fn a_last_batch_ends_its_file_until_its_transfer_is_fenced(subject: &Subject) {
    subject.open_transfer().await;
    for key in ["stopped", "fenced"] {
        subject.announce(key).await;
    }
    let stopped = subject.claimed("stopped", "a", NOW).await.lease;
    let fenced = subject.claimed("fenced", "a", NOW).await.lease;
    let slower = subject.meddled(|subject| async move { subject.stop().await }.boxed());
    let last = batch(1, &["x"]);
    assert!(ends_with(&slower, &stopped, &last).await.unwrap());
    let slower =
        subject.meddled(|subject| async move { drop(subject.fence(later(1)).await) }.boxed());
    let last = batch(1, &["y"]);
    assert_conflict(ends_with(&slower, &fenced, &last).await.map(drop));
    assert_eq!(subject.arrived(&stopped, &["x", "y"]).await, 1);
    let totals = subject.totals().await;
    assert_eq!(
        (totals.known, totals.ended, totals.counts),
        (2, 1, applied(1))
    );
}

pub(super) async fn a_last_batch_is_kept_though_its_message_can_not_be_answered_any_more(
    subject: &Subject,
) {
    subject.prepare_with_messages().await;
    let lease = subject.claimed("k", "a", NOW).await.lease;
    subject.stop().await;
    let last = batch(1, &["x"]);
    assert!(!ends_with(&subject.store, &lease, &last).await.unwrap());
    let file = subject.file("k").await;
    assert_eq!((file.state, file.counts), (FileState::Open, last.counts));
    assert!(!subject.ends(&lease, last.counts).await);
    assert_eq!(subject.arrived(&lease, &["x"]).await, 1);
    let (totals, _) = subject.fence(later(1)).await;
    assert_eq!(totals.counts.read, 1, "what was delivered is counted");
}

pub(super) async fn a_last_batch_that_fills_a_transaction_is_written_before_the_file_ends(
    subject: &Subject,
) {
    subject.prepare_with_messages().await;
    let lease = subject.claimed("k", "a", NOW).await.lease;
    let keys: Vec<String> = (0..99).map(|number| format!("r{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    // Beside these are the file's row and the transfer's.
    let last = batch(99, &keys);
    assert!(!ends_with(&subject.store, &lease, &last).await.unwrap());
    assert_eq!(subject.file("k").await.state, FileState::Open);
    assert!(subject.ends(&lease, last.counts).await);
    assert_eq!(subject.arrived(&lease, &keys).await, 99);
    subject.announce("fits").await;
    let lease = subject.claimed("fits", "a", NOW).await.lease;
    let last = batch(98, &keys[..98]);
    assert!(ends_with(&subject.store, &lease, &last).await.unwrap());
}

/// A length that no number of 32 bits holds, and a digest.
fn measure() -> Measure {
    Measure {
        bytes: Some(25_000_000_001),
        sha256: Digest::new("0123456789abcdef".repeat(4)),
    }
}

pub(super) async fn what_a_file_measures_is_kept_as_far_as_it_is_known(subject: &Subject) {
    subject.open_transfer().await;
    let length_alone = Measure {
        sha256: None,
        ..measure()
    };
    for (key, measure) in [("k", measure()), ("l", length_alone)] {
        subject.announce(key).await;
        let taken = subject.claimed(key, "a", NOW).await;
        let ending = Ending {
            measure: measure.clone(),
            ..Ending::new(FileOutcome::Imported, applied(3))
        };
        let clocks = Clocks::default();
        let ended = subject.store.end(&taken.lease, &ending, NOW, &clocks);
        assert!(ended.await.unwrap());
        assert_eq!(subject.file(key).await.measure, measure);
        let row = subject.file_row(key).await;
        assert_eq!(row["bytes"], Value::Number(25_000_000_001));
        let sha256 = measure.sha256.map(|sha256| text(sha256.as_str()));
        assert_eq!(row.get("sha256"), sha256.as_ref());
    }
}

pub(super) async fn files_that_end_at_once_are_all_counted(subject: &Subject) {
    subject.open_transfer().await;
    let mut taken = Vec::new();
    for number in 0..8 {
        let key = format!("k-{number}");
        subject.announce(&key).await;
        taken.push(subject.claimed(&key, "a", NOW).await);
    }
    let ends = taken
        .iter()
        .map(|taken| subject.ends(&taken.lease, applied(1)));
    assert!(join_all(ends).await.into_iter().all(|ended| ended));
    let totals = subject.totals().await;
    assert_eq!((totals.ended, totals.counts), (8, applied(8)));
}

pub(super) async fn a_manifest_is_kept_with_the_file_that_ended(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let declared = Declared {
        records: Some(3),
        measure: measure(),
    };
    let manifest = Manifest::new(
        1,
        vec![
            ("a.ndjson".to_owned(), declared),
            ("b".to_owned(), Declared::default()),
        ],
    )
    .unwrap();
    let ending = Ending {
        manifest: Some(manifest.clone()),
        ..Ending::new(FileOutcome::Imported, Counts::default())
    };
    let clocks = Clocks::default();
    let ended = subject.store.end(&taken.lease, &ending, NOW, &clocks);
    assert!(ended.await.unwrap());
    assert_eq!(subject.file("k").await.manifest, Some(manifest));
}

pub(super) async fn a_transfer_with_messages_that_changes_while_a_file_ends_keeps_its_change(
    subject: &Subject,
) {
    subject.prepare_with_messages().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let slower = subject.meddled(|subject| {
        async move { subject.apply(Input::Reporting { percent: 7 }).await }.boxed()
    });
    assert!(end(&slower, &taken.lease, applied(2)).await);
    assert_eq!(subject.transfer().await.last_percent, 7);
    assert_eq!(subject.totals().await.counts, applied(2));
}

pub(super) async fn a_worker_that_was_taken_over_ends_nothing(subject: &Subject) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    let current = subject.claimed("k", "b", later(90)).await;
    let before = subject.file_row("k").await;
    assert!(!subject.ends(&late.lease, applied(9)).await);
    assert_eq!(subject.file_row("k").await, before);
    assert_eq!(subject.totals().await.ended, 0);
    assert!(subject.ends(&current.lease, applied(2)).await);
    assert_eq!(subject.totals().await.counts, applied(2));
}

pub(super) async fn a_worker_that_is_taken_over_while_it_ends_a_file_ends_nothing(
    subject: &Subject,
) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    let slower = subject
        .meddled(|subject| async move { drop(subject.claimed("k", "b", later(90)).await) }.boxed());
    assert!(!end(&slower, &late.lease, applied(9)).await);
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Open, 2));
    assert_eq!(subject.totals().await.ended, 0);
}

pub(super) async fn a_file_does_not_end_once_its_transfer_is_fenced(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let slower = subject.meddled(|subject| {
        async move {
            subject.stop().await;
            subject.fence(later(1)).await;
        }
        .boxed()
    });
    assert!(!end(&slower, &taken.lease, applied(9)).await);
    assert_eq!(subject.file("k").await.state, FileState::Fenced);
    assert_eq!(subject.totals().await.ended, 0);
}

// Stopping.

pub(super) async fn after_a_transfer_is_stopped_and_fenced_nothing_is_written_for_it(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let commit = batch(1, &["x"]);
    let committed = subject.store.commit(&taken.lease, &commit, NOW).await;
    committed.unwrap();
    subject.stop().await;
    let (totals, leased_until) = subject.fence(later(1)).await;
    assert_eq!(
        (totals.known, totals.ended, totals.counts),
        (1, 0, applied(1))
    );
    assert_eq!(
        leased_until,
        Some(later(120)),
        "its worker may still deliver to a partner's service"
    );

    let commit = batch(2, &["z"]);
    assert_conflict(subject.store.commit(&taken.lease, &commit, NOW).await);
    assert_conflict(subject.store.renew(&taken.lease, later(900)).await);
    assert_conflict(subject.store.release(&taken.lease, NOW, true).await);
    assert!(!subject.ends(&taken.lease, Counts::default()).await);
    let again = subject.claim("k", "b", later(500)).await;
    assert!(matches!(again, Claim::Over));
    assert_eq!(subject.arrived(&taken.lease, &["z"]).await, 0);

    subject.store.stopped(&taken.lease).await.unwrap();
    let (again, leased_until) = subject.fence(later(2)).await;
    assert_eq!((again, leased_until), (totals, None));
    assert_eq!(subject.file("k").await.state, FileState::Fenced);
}

pub(super) async fn fencing_drops_what_was_never_taken_up_and_counts_what_has_ended(
    subject: &Subject,
) {
    subject.open_transfer().await;
    for key in ["announced", "ended", "open"] {
        subject.announce(key).await;
    }
    let ended = subject.claimed("ended", "a", NOW).await;
    assert!(subject.ends(&ended.lease, applied(3)).await);
    let open = subject.claimed("open", "a", NOW).await;
    let commit = batch(2, &["x"]);
    let committed = subject.store.commit(&open.lease, &commit, NOW).await;
    committed.unwrap();
    subject.stop().await;
    let expected = FileTotals {
        known: 2,
        ended: 1,
        late: 1,
        counts: applied(5),
        last_received_at: Some(NOW),
        last_moved_at: Some(NOW),
        ..FileTotals::default()
    };
    for _ in 0..2 {
        let (totals, leased_until) = subject.fence(later(1)).await;
        assert_eq!((&totals, leased_until), (&expected, Some(later(120))));
    }
    assert_eq!(subject.file("announced").await.state, FileState::Dropped);
    assert_eq!(subject.file("ended").await.state, FileState::Ended);
    assert_eq!(subject.file("open").await.state, FileState::Fenced);
}

pub(super) async fn fencing_leaves_nothing_due_and_moves_the_token_on(subject: &Subject) {
    subject.prepare().await;
    subject.announce("never").await;
    subject.claimed("k", "a", NOW).await;
    subject.stop().await;
    for _ in 0..2 {
        subject.fence(later(1)).await;
        for (key, fence) in [("k", 2), ("never", 1)] {
            let row = subject.file_row(key).await;
            assert_absent(&row, &["due_at", "due_shard"]);
            assert_eq!(row["fence"], Value::Number(fence), "{key}");
        }
    }
    assert_eq!(subject.due_files(later(10_000)).await, [""; 0]);
    assert_eq!(subject.file_row("k").await["lease_owner"], text("a"));
}

pub(super) async fn fencing_counts_a_batch_that_is_committed_meanwhile(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    subject.stop().await;
    let slower = subject.meddled(move |subject| {
        async move {
            let commit = batch(2, &["x", "y"]);
            let committed = subject.store.commit(&taken.lease, &commit, NOW).await;
            committed.unwrap();
        }
        .boxed()
    });
    let (totals, leased_until) = fence(&slower, later(1)).await;
    assert_eq!((totals.known, totals.counts), (1, applied(2)));
    assert_eq!(leased_until, Some(later(120)));
}

pub(super) async fn fencing_leaves_a_file_that_ends_meanwhile_as_it_ended(subject: &Subject) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    // Still open: the file ends in the same instant in which its transfer is stopped.
    let slower = subject.meddled(move |subject| {
        async move { assert!(subject.ends(&taken.lease, applied(2)).await) }.boxed()
    });
    let (totals, leased_until) = fence(&slower, later(1)).await;
    assert_eq!(leased_until, None);
    assert_eq!(
        (totals.known, totals.ended, totals.counts),
        (1, 1, applied(2))
    );
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Ended, 1));
}

pub(super) async fn fencing_catches_a_file_that_is_taken_up_meanwhile(subject: &Subject) {
    subject.prepare().await;
    let slower = subject
        .meddled(|subject| async move { drop(subject.claimed("k", "a", NOW).await) }.boxed());
    let (totals, leased_until) = fence(&slower, later(1)).await;
    assert_eq!((totals.known, leased_until), (1, Some(later(90))));
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Fenced, 2));
}

pub(super) async fn fencing_catches_a_file_that_is_taken_over_meanwhile(subject: &Subject) {
    subject.prepare().await;
    subject.claimed("k", "a", NOW).await;
    let slower = subject
        .meddled(|subject| async move { drop(subject.claimed("k", "b", later(90)).await) }.boxed());
    let (_, leased_until) = fence(&slower, later(91)).await;
    assert_eq!(leased_until, Some(later(180)));
    let file = subject.file("k").await;
    assert_eq!((file.state, file.fence), (FileState::Fenced, 3));
}

pub(super) async fn fencing_names_the_last_lease_that_still_runs(subject: &Subject) {
    subject.open_transfer().await;
    for (key, at) in [("a", 0), ("b", 60), ("c", 30)] {
        subject.announce(key).await;
        subject.claimed(key, "worker", later(at)).await;
    }
    subject.announce("never").await;
    subject.stop().await;
    assert_eq!(subject.fence(later(60)).await.1, Some(later(150)));
    assert_eq!(subject.fence(later(149)).await.1, Some(later(150)));
    assert_eq!(subject.fence(later(150)).await.1, None, "it has run out");
}

pub(super) async fn a_worker_that_stopped_gives_its_lease_back_only_when_it_was_fenced_off(
    subject: &Subject,
) {
    subject.prepare().await;
    let taken = subject.claimed("k", "a", NOW).await;
    let before = subject.file_row("k").await;
    subject.store.stopped(&taken.lease).await.unwrap();
    assert_eq!(subject.file_row("k").await, before, "it is still open");
    subject.stop().await;
    subject.fence(later(1)).await;
    subject.store.stopped(&taken.lease).await.unwrap();
    let row = subject.file_row("k").await;
    assert_absent(&row, &["lease_owner", "leased_until"]);
    assert_eq!(row["state"], text("FENCED"));
    subject.store.stopped(&taken.lease).await.unwrap();
    assert_eq!(subject.file_row("k").await, row);
}

pub(super) async fn a_worker_that_stopped_leaves_a_later_workers_lease_alone(subject: &Subject) {
    subject.prepare().await;
    let late = subject.claimed("k", "a", NOW).await;
    subject.claimed("k", "b", later(90)).await;
    subject.stop().await;
    subject.fence(later(91)).await;
    let before = subject.file_row("k").await;
    subject.store.stopped(&late.lease).await.unwrap();
    assert_eq!(subject.file_row("k").await, before);
    assert_eq!(subject.fence(later(91)).await.1, Some(later(180)));
}

pub(super) async fn only_a_file_that_was_never_taken_up_is_dropped(subject: &Subject) {
    subject.prepare().await;
    subject.announce("taken").await;
    subject.claimed("taken", "a", NOW).await;
    for _ in 0..2 {
        for key in ["k", "taken"] {
            let dropped = subject.store.drop_file(&tenant(), &id(), key).await;
            dropped.unwrap();
        }
    }
    assert_eq!(subject.file("taken").await.state, FileState::Open);
    assert_eq!(subject.file("k").await.state, FileState::Dropped);
    assert_absent(&subject.file_row("k").await, &["due_at", "due_shard"]);
    assert_eq!(subject.due_files(later(10_000)).await, ["taken"]);
    let dropped = subject.claim("k", "a", NOW).await;
    assert!(matches!(dropped, Claim::Ended(_)));
}

pub(super) async fn dropping_a_file_that_is_not_there_makes_none(subject: &Subject) {
    let dropped = subject.store.drop_file(&tenant(), &id(), "k").await;
    dropped.unwrap();
    let file = subject.store.file(&tenant(), &id(), "k").await;
    assert!(file.unwrap().is_none());
}

pub(super) async fn all_files_of_a_transfer_are_listed_and_no_others(subject: &Subject) {
    subject.prepare().await;
    // The platform's keys are paths, and may hold what separates the parts of ours.
    let keys = ["folder/b.ndjson", "a#b", "a%23b", "ä"];
    for key in keys {
        subject.announce(key).await;
    }
    let other = NewFile {
        transfer: TransferId::new("transfer-10"),
        ..upload("other")
    };
    subject.store.announce(&other, GRACE).await.unwrap();
    let files = subject.store.files(&tenant(), &id()).await.unwrap();
    let mut listed: Vec<String> = files.into_iter().map(|file| file.s3_key).collect();
    listed.sort_unstable();
    let mut expected = [keys.as_slice(), &["k"]].concat();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let transfer: Transfer = subject.transfer().await;
    assert_eq!(transfer.work.files_known, 0, "they count when taken up");
}

// Counting.

pub(super) async fn the_rows_of_files_add_up_to_what_a_transfer_knows_of_them(subject: &Subject) {
    subject.open_transfer().await;
    for key in ["announced", "imported", "second", "first", "open"] {
        let file = NewFile {
            received_at: later(if key == "announced" { 9 } else { 0 }),
            ..upload(key)
        };
        subject.store.announce(&file, GRACE).await.unwrap();
    }
    let clocks = Clocks::default();
    let imported = subject.claimed("imported", "a", later(1)).await;
    assert!(subject.ends(&imported.lease, applied(3)).await);
    for (key, seconds, poisoned) in [("first", 5, false), ("second", 7, true)] {
        let taken = subject.claimed(key, "a", later(2)).await;
        let reason = key.to_owned();
        let outcome = if poisoned {
            FileOutcome::Poisoned { reason }
        } else {
            FileOutcome::Unreadable { reason }
        };
        let ending = Ending::new(outcome, applied(1));
        let ended = subject
            .store
            .end(&taken.lease, &ending, later(seconds), &clocks);
        assert!(ended.await.unwrap());
    }
    let open = subject.claimed("open", "a", later(3)).await;
    let commit = batch(2, &["x"]);
    let committed = subject.store.commit(&open.lease, &commit, NOW).await;
    committed.unwrap();
    assert_eq!(
        subject.totals().await,
        FileTotals {
            known: 4,
            ended: 3,
            failed: 2,
            poisoned: 1,
            late: 1,
            counts: applied(5),
            in_flight: [("open".to_owned(), applied(2))].into(),
            first_problem: Some("first".to_owned()),
            manifest: false,
            last_received_at: Some(later(9)),
            last_moved_at: Some(later(7)),
        }
    );
}

pub(super) async fn an_open_file_is_found_wherever_it_lies_and_not_where_there_is_none(
    subject: &Subject,
) {
    subject.open_transfer().await;
    // More than a first look reads, on both sides.
    let keys: Vec<String> = (0..50).map(|number| format!("k-{number:02}")).collect();
    let mut taken = Vec::new();
    for key in &keys {
        subject.announce(key).await;
        taken.push(subject.claimed(key, "a", NOW).await.lease);
    }
    let is_found = async |beside: &str| {
        let (tenant, id) = (tenant(), id());
        let found = subject.store.has_open_file(&tenant, &id, beside);
        found.await.unwrap()
    };
    for (left, beside) in [
        (0, "k-25"),
        (24, "k-25"),
        (26, "k-25"),
        (49, "k-25"),
        (25, "k-25"),
    ] {
        for (number, lease) in taken.iter().enumerate() {
            if number != left {
                subject.ends(lease, Counts::default()).await;
            }
        }
        assert!(is_found(beside).await, "{left}");
        subject.ends(&taken[left], Counts::default()).await;
        assert!(!is_found(beside).await);
        for key in &keys {
            let key = Key::new("TRANSFER#tenant#transfer-1", format!("FILE#{key}"));
            let reopened = Write::update(key).set("state", text("OPEN"));
            subject
                .table
                .write(reopened, Returning::Nothing)
                .await
                .unwrap();
        }
    }
    for lease in &taken {
        subject.ends(lease, Counts::default()).await;
    }
    for beside in ["k-00", "k-49", "unknown"] {
        assert!(!is_found(beside).await);
    }
    subject.announce("a").await;
    for beside in ["k-00", "k-49", "unknown"] {
        assert!(
            is_found(beside).await,
            "one that nobody has taken up is open"
        );
    }
}
