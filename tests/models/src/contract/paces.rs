use std::time::Duration;

use landfall_tracking::Error;
use landfall_transfer::pace::Pace;

use super::{NOW, Subject, TenantId, expires, later, tenant};

fn slower() -> Pace {
    let mut pace = Pace::new(NOW);
    pace.take(2, Duration::ZERO, NOW).unwrap();
    pace
}

pub(super) async fn a_site_that_nobody_called_has_the_first_pace_and_no_row(subject: &Subject) {
    let read = subject.store.pace(&tenant(), NOW).await.unwrap();
    assert_eq!(read.pace, Pace::new(NOW));
    assert_eq!(subject.row("TENANT#tenant", "PACE").await, None);
}

pub(super) async fn a_pace_is_kept_for_its_tenant_until_nobody_called_it_for_long(
    subject: &Subject,
) {
    let store = &subject.store;
    let read = store.pace(&tenant(), NOW).await.unwrap();
    let kept = store.keep_pace(&tenant(), &read, slower(), NOW).await;
    assert_eq!(
        store.pace(&tenant(), later(9)).await.unwrap(),
        kept.unwrap()
    );
    let other = store.pace(&TenantId::new("another"), NOW).await.unwrap();
    assert_eq!(other.pace, Pace::new(NOW));
    let row = subject.row("TENANT#tenant", "PACE").await.unwrap();
    assert_eq!(row["expires_at"], expires(NOW, 30));
    assert!(!row.contains_key("due_at"), "nothing is owed to it");
}

pub(super) async fn of_two_who_write_a_pace_that_they_read_the_slower_writes_nothing(
    subject: &Subject,
) {
    let store = &subject.store;
    let nothing = store.pace(&tenant(), NOW).await.unwrap();
    let first = store.keep_pace(&tenant(), &nothing, slower(), NOW).await;
    let late = store
        .keep_pace(&tenant(), &nothing, Pace::new(NOW), NOW)
        .await;
    assert!(matches!(late, Err(Error::Conflict)), "{late:?}");
    let first = first.unwrap();
    let second = store
        .keep_pace(&tenant(), &first, Pace::new(later(1)), NOW)
        .await;
    let late = store.keep_pace(&tenant(), &first, slower(), NOW).await;
    assert!(matches!(late, Err(Error::Conflict)), "{late:?}");
    assert_eq!(store.pace(&tenant(), NOW).await.unwrap(), second.unwrap());
}
