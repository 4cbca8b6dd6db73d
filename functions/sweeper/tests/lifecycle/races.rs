use std::time::Duration;

use serde_json::json;

use crate::world::{HOUR, MINUTE, World, records};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_sweepers_and_the_processor_on_one_stuck_transfer_settle_it_once() {
    for round in 0..8_u64 {
        let world = World::start().await;
        world.begin("t", &[("k", "issues-1-of-2.ndjson", &records(0..30))]);
        world.event("listener-triggered", "t", json!({})).await;
        world.all_uploaded("t").await;
        world.work().await;
        world.pass(71 * HOUR, 6 * HOUR).await;
        world.clock.advance(2 * HOUR);
        // The file that was missing comes in the very moment in which the sweepers give the transfer up.
        world.begin("t", &[("k-late", "issues-2-of-2.ndjson", &records(30..60))]);
        world.uploaded("t", "k-late", "issues-2-of-2.ndjson").await;
        let late = world.queues.take("imports");
        let other = world.another_sweeper();
        let deadline = world.clock.now() + 5 * MINUTE;
        tokio::join!(
            world.sweeper.sweep(deadline),
            other.sweep(deadline),
            async {
                world.clock.sleep(Duration::from_millis(round * 3)).await;
                world.handle(late).await;
            }
        );
        let after_race = world.target().await.len();
        world.pass(3 * HOUR, MINUTE * 10).await;
        let verdict = world.platform.verdict();
        // Whoever won, the verdict and the target agree, and nothing came after it.
        match verdict.status.as_str() {
            "FAILED" => assert_eq!(world.target().await.len(), after_race),
            "SUCCESS" => assert_eq!(world.target().await.len(), 60),
            other => panic!("{other}: {}", verdict.message),
        }
        assert!(world.transfer("t").await.is_settled());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_settlement_that_two_sweepers_find_due_is_sent_once() {
    let world = World::start().await;
    for transfer in 0..10 {
        let id = format!("t-{transfer}");
        world.begin(&id, &[]);
        world.event("listener-triggered", &id, json!({})).await;
    }
    world.work().await;
    world.clock.advance(73 * HOUR);
    let other = world.another_sweeper();
    let deadline = world.clock.now() + 5 * MINUTE;
    tokio::join!(world.sweeper.sweep(deadline), other.sweep(deadline));
    world.pass(20 * MINUTE, MINUTE).await;
    let settlements = world.platform.settlements();
    for transfer in 0..10 {
        let id = format!("t-{transfer}");
        let sent: Vec<_> = settlements
            .iter()
            .filter(|call| call.transfer == id)
            .collect();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        assert_eq!((sent[0].status.as_str(), sent[0].answer), ("FAILED", 200));
    }
}
