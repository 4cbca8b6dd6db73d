use std::time::Duration;

use landfall_models::Trouble;

use crate::world::{HOUR, MINUTE, World, records};

/// A world whose key can't be used from now on, and in which nobody holds a data key any more.
async fn closed(trouble: Trouble) -> World {
    let world = World::start().await;
    let manifest = r#"{"version":1,"files":[{"label":"a.ndjson"}]}"#;
    world.begin(
        "t",
        &[
            ("k", "a.ndjson", &records(0..9)),
            ("m", "export-manifest", manifest),
        ],
    );
    world.kms.trouble(Some(trouble));
    world.clock.advance(HOUR);
    world.all_uploaded("t").await;
    world
}

/// Time passes, with one attempt a round: what a file is queued again for is let fall, so that the sweeper has to revive it.
async fn rounds(world: &World, rounds: usize, step: Duration) {
    for _ in 0..rounds {
        world.clock.advance(step);
        world.sweep().await;
        let messages = world.queues.take("imports");
        world.handle(messages).await;
        world.queues.take("imports");
    }
}

#[tokio::test]
async fn while_the_vaults_key_can_not_be_used_everything_waits_and_then_goes_on_by_itself() {
    for trouble in [Trouble::Outage, Trouble::Forbidden] {
        let world = closed(trouble).await;
        rounds(&world, 9, 10 * MINUTE).await;
        assert!(world.platform.settlements().is_empty(), "{trouble:?}");
        assert!(world.queues.take("dead-imports").is_empty(), "{trouble:?}");
        world.kms.trouble(None);
        world.pass(30 * MINUTE, 5 * MINUTE).await;
        assert_eq!(world.platform.verdict().status, "SUCCESS", "{trouble:?}");
    }
}

#[tokio::test]
async fn a_key_that_only_a_person_can_mend_is_named_and_the_transfers_own_clocks_go_on() {
    let world = closed(Trouble::Forbidden).await;
    rounds(&world, 3, 20 * MINUTE).await;
    let explained = world.explain("t").await;
    let told = explained.timeline.iter().map(|line| line.what.as_str());
    let told: Vec<_> = told.collect();
    assert!(
        told.iter().any(|what| what.contains("LF-VAULT")),
        "{told:?}"
    );
    // Given up in time, and told as soon as the key can be used.
    rounds(&world, 18, 25 * MINUTE).await;
    assert!(world.platform.settlements().is_empty());
    world.kms.trouble(None);
    world.pass(30 * MINUTE, 5 * MINUTE).await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "FAILED");
    assert!(
        verdict.message.contains("no progress for 6 hours"),
        "{}",
        verdict.message
    );
}
