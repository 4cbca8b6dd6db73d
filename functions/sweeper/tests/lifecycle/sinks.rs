//! Sinks outside the tables, from a transfer's first event to its settlement.

use crate::world::World;

#[allow(dead_code, reason = "its `main` serves Lambda")]
#[path = "../../../processor/examples/custom_sink.rs"]
mod custom_sink;

use custom_sink::Pages;

#[tokio::test]
async fn the_worked_example_of_a_sink_of_ones_own_imports_a_transfer() {
    let pages = Pages::default();
    let world = World::start_with("[sink]\nkind = \"custom\"\n", Some(pages.clone())).await;
    let content = "{\"id\":1,\"title\":\"a\"}\n{\"id\":2,\"draft\":true}\n{\"id\":3}\n";
    let manifest = r#"{"version":1,"files":[{"label":"pages","records":3}]}"#;
    world.begin(
        "t",
        &[("k", "pages", content), ("m", "export-manifest", manifest)],
    );
    world.all_uploaded("t").await;
    world.work().await;
    let verdict = world.platform.verdict();
    assert_eq!(verdict.status, "INCOMPLETE", "{}", verdict.message);
    assert!(
        verdict.message.contains("1 rejected"),
        "{}",
        verdict.message
    );
    let stored = pages.0.lock().unwrap().clone();
    let stored: Vec<(&str, &str)> = stored
        .iter()
        .map(|((_, key), page)| (key.as_str(), page.as_str()))
        .collect();
    assert_eq!(
        stored,
        [("1", "{\"id\":1,\"title\":\"a\"}"), ("3", "{\"id\":3}")]
    );
    assert!(
        world.target().await.is_empty(),
        "nothing is in the records table"
    );
}
