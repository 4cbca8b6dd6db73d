use futures_util::FutureExt as _;
use landfall_tracking::{
    Error, Item, KeptSegment, Key, Lease, Segment, SegmentStart, Value, Write,
};
use landfall_transfer::TransferId;

use super::{NOW, Subject, later};

fn segment(first_record: u64, landed: &[u8]) -> Segment {
    Segment {
        second_pass: false,
        first_record,
        last_record: first_record + 99,
        landed: landed.to_vec(),
    }
}

impl Subject {
    async fn keep(&self, lease: &Lease, label: &str, kept: &Segment) -> Result<(), Error> {
        self.store.keep_segment(lease, label, kept, NOW).await
    }

    /// What the segments of an attempt say.
    async fn segments(&self, lease: &Lease, label: &str, attempt: &str) -> Vec<Vec<u8>> {
        let all = self.kept_segments(lease, label, attempt).await;
        all.into_iter().map(|kept| kept.landed).collect()
    }

    /// The segments of an attempt, of all pages.
    async fn kept_segments(&self, lease: &Lease, label: &str, attempt: &str) -> Vec<KeptSegment> {
        let attempt = TransferId::new(attempt);
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self
                .store
                .segments(lease, label, &attempt, after.as_deref())
                .await
                .unwrap();
            after = page.segments.last().map(|kept| kept.place.clone());
            all.extend(page.segments);
            if !page.more {
                return all;
            }
        }
    }
}

pub(super) async fn segments_are_read_back_by_attempt_and_label_in_the_order_of_the_file(
    subject: &Subject,
) {
    let lease = subject.lease().await;
    for first in [1_001, 1, 101] {
        let kept = segment(first, &first.to_be_bytes());
        subject.keep(&lease, "issues", &kept).await.unwrap();
    }
    let other = segment(1, b"other");
    subject.keep(&lease, "users", &other).await.unwrap();
    let again = Segment {
        second_pass: true,
        ..segment(1, &9_999_u64.to_be_bytes())
    };
    subject.keep(&lease, "issues", &again).await.unwrap();
    let expected: Vec<_> = [1_u64, 101, 1_001, 9_999].map(u64::to_be_bytes).into();
    assert_eq!(
        subject.segments(&lease, "issues", "transfer-1").await,
        expected
    );
    assert_eq!(
        subject.segments(&lease, "users", "transfer-1").await,
        [b"other"]
    );
    let attempt = TransferId::new("transfer-1");
    let segments = subject.kept_segments(&lease, "issues", "transfer-1").await;
    let start = |second_pass, first_record| {
        Some(SegmentStart {
            second_pass,
            first_record,
        })
    };
    let starts: Vec<_> = segments.iter().map(|kept| kept.own).collect();
    let expected = [(false, 1), (false, 101), (false, 1_001), (true, 1)];
    assert_eq!(starts, expected.map(|(pass, first)| start(pass, first)));
    let other = subject.lease_of("other").await;
    let page = subject.store.segments(&other, "issues", &attempt, None);
    let first = page.await.unwrap().segments.first().cloned().unwrap();
    assert_eq!(first.own, None, "of another file");
    // An id that begins like another's is another's.
    for stranger in ["transfer", "transfer-1#k", "transfer-2"] {
        let found = subject.segments(&lease, "issues", stranger).await;
        assert_eq!(found, [[0_u8; 0]; 0], "{stranger}");
    }
}

pub(super) async fn a_segment_that_is_kept_again_replaces_itself(subject: &Subject) {
    let lease = subject.lease().await;
    let mut held = segment(1, b"half");
    subject.keep(&lease, "issues", &held).await.unwrap();
    held.landed = b"whole".to_vec();
    subject.keep(&lease, "issues", &held).await.unwrap();
    let after = subject.claimed("k", "b", later(90)).await.lease;
    held.landed = b"successor's".to_vec();
    subject.keep(&after, "issues", &held).await.unwrap();
    assert_eq!(
        subject.segments(&lease, "issues", "transfer-1").await,
        [b"successor's"]
    );
}

pub(super) async fn a_worker_that_was_taken_over_does_not_replace_its_successors_segment(
    subject: &Subject,
) {
    let late = subject.lease().await;
    let after = subject.claimed("k", "b", later(90)).await.lease;
    let kept = segment(1, b"successor's");
    subject.keep(&after, "issues", &kept).await.unwrap();
    let outcome = subject.keep(&late, "issues", &segment(1, b"late")).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(
        subject.segments(&late, "issues", "transfer-1").await,
        [b"successor's"]
    );
}

pub(super) async fn a_worker_that_is_taken_over_while_it_replaces_a_segment_replaces_nothing(
    subject: &Subject,
) {
    let late = subject.lease().await;
    let kept = segment(1, b"half");
    subject.keep(&late, "issues", &kept).await.unwrap();
    // The first write finds the segment; before the second one a successor keeps its own.
    let slower = subject.meddled_after(1, |subject| {
        async move {
            let after = subject.claimed("k", "b", later(90)).await.lease;
            let kept = segment(1, b"successor's");
            subject.keep(&after, "issues", &kept).await.unwrap();
        }
        .boxed()
    });
    let kept = segment(1, b"late");
    let outcome = slower.keep_segment(&late, "issues", &kept, NOW).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(
        subject.segments(&late, "issues", "transfer-1").await,
        [b"successor's"]
    );
}

pub(super) async fn a_segment_of_a_newer_release_is_not_passed_over(subject: &Subject) {
    let lease = subject.lease().await;
    // The partition names the label by its hash.
    let key = Key::new(
        "LEDGER#tenant#transfer-1#02e3fe5aad80ca85",
        "SEGMENT#transfer-1#k#000000000001",
    );
    let item = Item::from([("v".into(), Value::Number(2))]);
    let put = Write::put(key, item);
    let returning = landfall_tracking::Returning::Nothing;
    subject.table.write(put, returning).await.unwrap();
    let attempt = TransferId::new("transfer-1");
    let page = subject.store.segments(&lease, "issues", &attempt, None);
    let page = page.await;
    assert!(matches!(page, Err(Error::Unreadable { .. })), "{page:?}");
}
