use landfall_tracking::{Commit, Item, Landed, LandedTarget, Lease, RecordKey, Which};
use landfall_transfer::{ChainId, Counts, TenantId, Timestamp};

use super::files::upload;
use super::{GRACE, NOW, Subject, expires, later, tenant, text};

fn record(label: &str, key: &str) -> RecordKey {
    RecordKey {
        label: label.to_owned(),
        key: key.to_owned(),
    }
}

fn landed(key: &RecordKey, hash: &str, content: Option<&str>) -> Landed {
    Landed {
        key: key.clone(),
        content_hash: hash.to_owned(),
        record: content.map(str::to_owned),
    }
}

impl Subject {
    /// A file that is taken up, to land records from.
    async fn lease(&self) -> Lease {
        self.open_transfer().await;
        self.store.announce(&upload("k"), GRACE).await.unwrap();
        self.claimed("k", "a", NOW).await.lease
    }

    async fn land(&self, lease: &Lease, target: LandedTarget, landed: Vec<Landed>, at: Timestamp) {
        let commit = Commit {
            checkpoint: "{}".to_owned(),
            counts: Counts::default(),
            target,
            landed,
            rejected: Vec::new(),
            leased_until: later(90),
        };
        self.store.commit(lease, &commit, at).await.unwrap();
    }

    /// The hashes by which these records are known, empty for those that aren't.
    async fn hashes(
        &self,
        target: LandedTarget,
        chain: &ChainId,
        records: &[RecordKey],
    ) -> Vec<String> {
        let known = self
            .store
            .known_records(target, &tenant(), chain, records)
            .await
            .unwrap();
        let hash = |key| known.get(key).cloned().unwrap_or_default();
        records.iter().map(hash).collect()
    }
}

pub(super) async fn records_land_in_the_table_of_their_target(subject: &Subject) {
    let lease = subject.lease().await;
    let (stored, kept) = (record("issues", "1"), record("issues", "2"));
    let content = landed(&stored, "h1", Some("{\"id\":1}"));
    subject
        .land(&lease, LandedTarget::Records, vec![content], NOW)
        .await;
    let ledger = landed(&kept, "h2", None);
    subject
        .land(&lease, LandedTarget::Ledger, vec![ledger], NOW)
        .await;
    let both = [stored, kept];
    let chain = lease.chain();
    assert_eq!(
        subject.hashes(LandedTarget::Records, chain, &both).await,
        ["h1", ""]
    );
    assert_eq!(
        subject.hashes(LandedTarget::Ledger, chain, &both).await,
        ["", "h2"]
    );
    let (mut records, mut ledgers) = (Vec::new(), Vec::new());
    for shard in 0..16 {
        let partition = format!("LEDGER#tenant#transfer-1#{shard:02}");
        ledgers.extend(subject.rows(&partition, ISSUES).await);
        let partition = format!("RECORD#tenant#transfer-1#{shard:02}");
        assert_eq!(
            subject.rows(&partition, ISSUES).await,
            [],
            "of the other table"
        );
        for sort in ["#1", "#2"] {
            // The label's hash stands before it.
            let key = landfall_tracking::Key::new(&partition, format!("{ISSUES}{sort}"));
            let attributes = &[
                "content_hash",
                "tenant",
                "chain",
                "label",
                "key",
                "record",
                "expires_at",
            ];
            let found = subject
                .table
                .get_many(Which::Records, vec![key], attributes)
                .await;
            records.extend(found.unwrap().0);
        }
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
            ("record".into(), text("{\"id\":1}")),
        ])
    );
    assert_eq!(ledgers.len(), 1);
    assert_eq!(
        ledgers[0].1,
        Item::from([
            ("content_hash".into(), text("h2")),
            ("expires_at".into(), expires(NOW, 400)),
        ])
    );
}

/// The first eight bytes of SHA-256 of `issues`, in hexadecimal.
const ISSUES: &str = "02e3fe5aad80ca85";

pub(super) async fn records_of_other_labels_chains_and_tenants_are_others(subject: &Subject) {
    let lease = subject.lease().await;
    let (target, chain) = (LandedTarget::Ledger, lease.chain());
    let one = record("issues", "1");
    subject
        .land(&lease, target, vec![landed(&one, "h1", None)], NOW)
        .await;
    let asked = [
        one.clone(),
        record("", "1"),
        record("issues#", "1"),
        record("issues", "1#"),
    ];
    assert_eq!(
        subject.hashes(target, chain, &asked).await,
        ["h1", "", "", ""]
    );
    let other = ChainId::new("transfer-1#");
    assert_eq!(
        subject.hashes(target, &other, &asked).await,
        ["", "", "", ""]
    );
    let known = subject
        .store
        .known_records(target, &TenantId::new("other"), chain, &asked)
        .await;
    assert!(known.unwrap().is_empty());
}

pub(super) async fn a_record_with_a_long_key_is_found_again(subject: &Subject) {
    let lease = subject.lease().await;
    let (target, chain) = (LandedTarget::Ledger, lease.chain());
    let keys = [900, 901, 902, 5_000].map(|length| record("issues", &"k".repeat(length)));
    let all = keys
        .iter()
        .enumerate()
        .map(|(place, key)| landed(key, &format!("h{place}"), None))
        .collect();
    subject.land(&lease, target, all, NOW).await;
    assert_eq!(
        subject.hashes(target, chain, &keys).await,
        ["h0", "h1", "h2", "h3"]
    );
}

pub(super) async fn any_number_of_records_is_looked_up(subject: &Subject) {
    let lease = subject.lease().await;
    let (target, chain) = (LandedTarget::Ledger, lease.chain());
    let keys: Vec<RecordKey> = (0..250)
        .map(|number| record("issues", &number.to_string()))
        .collect();
    for some in keys.chunks(90) {
        let all = some.iter().map(|key| landed(key, &key.key, None));
        subject.land(&lease, target, all.collect(), NOW).await;
    }
    let expected: Vec<_> = keys.iter().map(|key| key.key.clone()).collect();
    assert_eq!(subject.hashes(target, chain, &keys).await, expected);
    assert!(subject.hashes(target, chain, &[]).await.is_empty());
}

pub(super) async fn a_record_that_arrives_again_replaces_itself(subject: &Subject) {
    let lease = subject.lease().await;
    let (target, chain) = (LandedTarget::Records, lease.chain());
    let key = record("issues", "1");
    for content in ["h1", "h2"] {
        let landed = landed(&key, content, Some("{}"));
        subject.land(&lease, target, vec![landed], NOW).await;
        let known = subject
            .hashes(target, chain, std::slice::from_ref(&key))
            .await;
        assert_eq!(known, [content]);
    }
}
