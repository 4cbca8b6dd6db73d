//! A 200 means durable, with either store gone, and every answer leaves in time.

use std::time::Duration;

use landfall_intake::{Intake, Request};
use landfall_runtime::Clock;

use crate::cloud::{ANSWER_WITHIN, Cloud, Mode, NOW, event_of};
use crate::platform::{SECRET, TENANT, event, install, upload, webhook};

const BROKEN: [Mode; 3] = [Mode::Fails, Mode::Hangs, Mode::Cuts];

/// What the machine may add to a wait under test.
const SLACK: Duration = Duration::from_secs(1);

async fn warm() -> (Cloud, Intake) {
    let cloud = Cloud::start().await;
    let intake = cloud.intake();
    install(&intake, TENANT, SECRET).await;
    assert_eq!(
        intake
            .answer(&webhook(&event("listener-triggered", "warm")))
            .await
            .status,
        200
    );
    cloud.forget();
    (cloud, intake)
}

/// The status, and that it came in time.
async fn timed(intake: &Intake, request: &Request) -> u16 {
    let clock = Clock::system();
    let status = intake.answer(request).await.status;
    let took = clock.monotonic();
    assert!(took < ANSWER_WITHIN + SLACK, "{took:?}");
    status
}

#[tokio::test]
async fn with_the_table_unreachable_a_known_tenants_event_is_in_the_queue() {
    for mode in BROKEN {
        let (cloud, intake) = warm().await;
        cloud.table.set(mode);
        assert_eq!(
            timed(&intake, &webhook(&event("listener-triggered", "m-1"))).await,
            200,
            "{mode:?}"
        );
        assert_eq!(event_of(&cloud.sent()[0])["messageId"], "m-1");
        // Also when the tenant's row should be read again, which can't be.
        cloud.clock.advance(Duration::from_mins(1));
        assert_eq!(
            timed(&intake, &webhook(&upload("key-1", "m-2"))).await,
            200,
            "{mode:?}"
        );
        assert_eq!(event_of(&cloud.sent()[0])["s3Key"], "key-1");
        assert_eq!(
            cloud.rows_of("EVENT#m").await.len() + cloud.rows_of("FILE#").await.len(),
            0
        );
    }
}

#[tokio::test]
async fn with_the_queues_unreachable_an_event_is_in_the_table() {
    for mode in BROKEN {
        let (cloud, intake) = warm().await;
        cloud.queues.set(mode);
        assert_eq!(
            timed(&intake, &webhook(&event("listener-triggered", "m-1"))).await,
            200,
            "{mode:?}"
        );
        assert_eq!(
            timed(&intake, &webhook(&upload("key-1", "m-2"))).await,
            200,
            "{mode:?}"
        );
        assert_eq!(
            cloud.rows_of("EVENT#m").await.len() + cloud.rows_of("FILE#").await.len(),
            2
        );
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn with_both_unreachable_the_answer_is_503_in_time() {
    for (table, queues) in [
        (Mode::Fails, Mode::Fails),
        (Mode::Hangs, Mode::Hangs),
        (Mode::Cuts, Mode::Hangs),
        (Mode::Hangs, Mode::Fails),
    ] {
        let (cloud, intake) = warm().await;
        cloud.table.set(table);
        cloud.queues.set(queues);
        for request in [
            webhook(&event("listener-triggered", "m-1")),
            webhook(&upload("key-1", "m-2")),
        ] {
            assert_eq!(timed(&intake, &request).await, 503, "{table:?} {queues:?}");
        }
        cloud.table.set(Mode::Works);
        cloud.queues.set(Mode::Works);
        assert_eq!(
            timed(&intake, &webhook(&event("listener-triggered", "m-1"))).await,
            200
        );
    }
}

#[tokio::test]
async fn a_tenant_that_can_not_be_read_for_the_first_time_is_503() {
    for mode in BROKEN {
        let (cloud, _) = warm().await;
        let cold = cloud.intake();
        cloud.table.set(mode);
        assert_eq!(
            timed(&cold, &webhook(&event("listener-triggered", "m-1"))).await,
            503,
            "{mode:?}"
        );
        assert!(
            cloud.sent().is_empty(),
            "nothing is stored for somebody unproven"
        );
    }
}

#[tokio::test]
async fn an_outage_of_hours_ends_the_belief_in_a_tenants_row() {
    let (cloud, intake) = warm().await;
    cloud.table.set(Mode::Fails);
    cloud.clock.advance(Duration::from_hours(7));
    assert_eq!(
        timed(&intake, &webhook(&event("listener-triggered", "m-1"))).await,
        503
    );
}

#[tokio::test]
async fn the_time_that_a_request_spent_before_it_reached_us_counts() {
    let (cloud, intake) = warm().await;
    cloud.table.set(Mode::Hangs);
    cloud.queues.set(Mode::Hangs);
    let mut request = webhook(&event("listener-triggered", "m-1"));
    request.accepted_at = Some(NOW - Duration::from_millis(1_500));
    let clock = Clock::system();
    assert_eq!(intake.answer(&request).await.status, 503);
    let took = clock.monotonic();
    assert!(took + Duration::from_secs(1) < ANSWER_WITHIN, "{took:?}");
}

#[tokio::test]
async fn what_is_written_beside_the_event_does_not_decide_its_answer() {
    let (cloud, intake) = warm().await;
    cloud.table.set(Mode::Hangs);
    let mut foreign = event("something-new", "m-1");
    foreign["migrationDetails"]["confluenceClientKey"] = serde_json::json!("another");
    assert_eq!(timed(&intake, &webhook(&foreign)).await, 200);
    assert_eq!(cloud.sent().len(), 1);
}
