use landfall_tracking::{Commit, Item, Landed, Lease, Pass, RecordKey, Which};
use landfall_transfer::{ChainId, Counts, TenantId};

use super::files::upload;
use super::{GRACE, NOW, Subject, later, tenant, text};

fn record(label: &str, key: &str) -> RecordKey {
    RecordKey {
        label: label.to_owned(),
        key: key.to_owned(),
    }
}

fn landed(key: &RecordKey, hash: &str) -> Landed {
    Landed {
        key: key.clone(),
        content_hash: hash.to_owned(),
        record: "{}".to_owned(),
    }
}

impl Subject {
    /// A file that is taken up, to land records from.
    pub(super) async fn lease(&self) -> Lease {
        self.open_transfer().await;
        self.lease_of("k").await
    }

    /// Another file of it.
    pub(super) async fn lease_of(&self, s3_key: &str) -> Lease {
        self.store.announce(&upload(s3_key), GRACE).await.unwrap();
        self.claimed(s3_key, "a", NOW).await.lease
    }

    async fn land(&self, lease: &Lease, landed: Vec<Landed>) {
        let commit = Commit {
            checkpoint: "{}".to_owned(),
            counts: Counts::default(),
            landed,
            label: String::new(),
            exceptions: Vec::new(),
            pass: Pass::First,
            leased_until: later(90),
        };
        self.store.commit(lease, &commit, NOW).await.unwrap();
    }

    /// The hashes by which these records are known, empty for those that aren't.
    async fn hashes(&self, chain: &ChainId, records: &[RecordKey]) -> Vec<String> {
        let known = self
            .store
            .known_records(&tenant(), chain, records)
            .await
            .unwrap();
        let hash = |key| known.get(key).cloned().unwrap_or_default();
        records.iter().map(hash).collect()
    }
}

pub(super) async fn records_land_in_the_records_table_and_say_nothing_of_the_attempt(
    subject: &Subject,
) {
    let lease = subject.lease().await;
    let key = record("issues", "1");
    subject.land(&lease, vec![landed(&key, "h1")]).await;
    let hashes = subject.hashes(lease.chain(), &[key]).await;
    assert_eq!(hashes, ["h1"]);
    let mut records = Vec::new();
    for shard in 0..16 {
        let partition = format!("RECORD#tenant#transfer-1#{shard:02}");
        let tracking = subject.rows(&partition, ISSUES).await;
        assert_eq!(tracking, [], "of the other table");
        // The label's hash stands before it.
        let key = landfall_tracking::Key::new(&partition, format!("{ISSUES}#1"));
        let attributes = &[
            "content_hash",
            "tenant",
            "chain",
            "label",
            "key",
            "record",
            "transfer_id",
            "expires_at",
        ];
        let found = subject
            .table
            .get_many(Which::Records, vec![key], attributes)
            .await;
        records.extend(found.unwrap().0);
    }
    assert_eq!(records.len(), 1);
    assert_eq!(
        records[0].1,
        Item::from([
            ("content_hash".into(), text("h1")),
            ("tenant".into(), text("tenant")),
            ("chain".into(), text("transfer-1")),
            ("label".into(), text("issues")),
            ("key".into(), text("1")),
            ("record".into(), text("{}")),
        ])
    );
}

/// The first eight bytes of SHA-256 of `issues`, in hexadecimal.
const ISSUES: &str = "02e3fe5aad80ca85";

pub(super) async fn records_of_other_labels_chains_and_tenants_are_others(subject: &Subject) {
    let lease = subject.lease().await;
    let chain = lease.chain();
    let one = record("issues", "1");
    subject.land(&lease, vec![landed(&one, "h1")]).await;
    let asked = [
        one.clone(),
        record("", "1"),
        record("issues#", "1"),
        record("issues", "1#"),
    ];
    assert_eq!(subject.hashes(chain, &asked).await, ["h1", "", "", ""]);
    let other = ChainId::new("transfer-1#");
    assert_eq!(subject.hashes(&other, &asked).await, ["", "", "", ""]);
    let known = subject
        .store
        .known_records(&TenantId::new("other"), chain, &asked)
        .await;
    assert!(known.unwrap().is_empty());
}

pub(super) async fn a_record_with_a_long_key_is_found_again(subject: &Subject) {
    let lease = subject.lease().await;
    let chain = lease.chain();
    let keys = [900, 901, 902, 5_000].map(|length| record("issues", &"k".repeat(length)));
    let all = keys
        .iter()
        .enumerate()
        .map(|(place, key)| landed(key, &format!("h{place}")))
        .collect();
    subject.land(&lease, all).await;
    assert_eq!(subject.hashes(chain, &keys).await, ["h0", "h1", "h2", "h3"]);
}

pub(super) async fn any_number_of_records_is_looked_up(subject: &Subject) {
    let lease = subject.lease().await;
    let chain = lease.chain();
    let keys: Vec<RecordKey> = (0..250)
        .map(|number| record("issues", &number.to_string()))
        .collect();
    for some in keys.chunks(90) {
        let all = some.iter().map(|key| landed(key, &key.key));
        subject.land(&lease, all.collect()).await;
    }
    let expected: Vec<_> = keys.iter().map(|key| key.key.clone()).collect();
    assert_eq!(subject.hashes(chain, &keys).await, expected);
    assert!(subject.hashes(chain, &[]).await.is_empty());
}

pub(super) async fn a_record_that_arrives_again_replaces_itself(subject: &Subject) {
    let lease = subject.lease().await;
    let chain = lease.chain();
    let key = record("issues", "1");
    for content in ["h1", "h2"] {
        subject.land(&lease, vec![landed(&key, content)]).await;
        let known = subject.hashes(chain, std::slice::from_ref(&key)).await;
        assert_eq!(known, [content]);
    }
}
