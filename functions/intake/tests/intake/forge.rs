//! Invocations of Forge: who is believed, what is stored of events, and which token is kept.

use std::time::Duration;

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use aws_lc_rs::rsa::KeySize;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use landfall_intake::{Intake, Request};
use landfall_runtime::Clock;
use landfall_transfer::clocks::platform::FORGE_TOKEN_LIFE;
use landfall_transfer::{Flavour, TenantId, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cloud::{ANSWER_WITHIN, Cloud, Mode, NOW, event_of, text};
use crate::platform::{
    INSTALLATION, KEY_ID, SECRET, TENANT, bringing, claims, event, forge_event, forge_upload,
    hs256, install, invocation, invocation_claims, invoked, private_key, rs256, signed,
    system_token, webhook, without_names,
};

const EVENTS: &str = "/forge/events";
const TOKEN: &str = "/forge/token";
const BROKEN: [Mode; 3] = [Mode::Fails, Mode::Hangs, Mode::Cuts];

/// What the machine may add to a wait under test.
const SLACK: Duration = Duration::from_secs(1);

fn delivery(event: &Value) -> Request {
    invocation(EVENTS, event.to_string())
}

/// The status, and that it came in time.
async fn timed(intake: &Intake, request: &Request) -> u16 {
    let clock = Clock::system();
    let status = intake.answer(request).await.status;
    let took = clock.monotonic();
    assert!(took < ANSWER_WITHIN + SLACK, "{took:?}");
    status
}

/// The token that is kept of an installation, and until when it is good.
async fn kept(cloud: &Cloud) -> Option<(String, Timestamp)> {
    let tenant = TenantId::new(INSTALLATION);
    let token = cloud.store().token(&tenant).await;
    token
        .unwrap()
        .map(|token| (token.token.expose_secret().to_owned(), token.good_until))
}

#[tokio::test]
async fn each_documented_event_is_stored_and_queued_whole_but_for_the_names() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    for (number, (name, ours)) in [
        ("triggered:listener", "listener-triggered"),
        ("completed:export_phase", "export-phase-completed"),
        (
            "requested:transfer_cancellation",
            "transfer-cancellation-requested",
        ),
        ("errored:listener", "listener-errored"),
        ("settled:transfer", "transfer-settled"),
    ]
    .into_iter()
    .enumerate()
    {
        cloud.forget();
        let body = forge_event(name, &format!("m-{number}"));
        assert_eq!(intake.answer(&delivery(&body)).await.status, 200, "{name}");
        assert_eq!(cloud.table.calls(), ["PutItem"], "nobody is looked up");
        let sent = cloud.sent();
        assert_eq!(
            (sent[0].queue.as_str(), sent[0].group.as_str()),
            ("events", INSTALLATION)
        );
        assert_eq!(event_of(&sent[0]), without_names(&body));
        let row = cloud.rows_of(&format!("EVENT#m-{number}")).await.remove(0);
        assert_eq!(
            (text(&row, "tenant"), text(&row, "event_type")),
            (INSTALLATION, ours)
        );
        assert_eq!(
            serde_json::from_str::<Value>(text(&row, "event")).unwrap(),
            without_names(&body)
        );
    }
    assert!(!format!("{:?}", cloud.rows().await).contains("Jane"));
}

#[tokio::test]
async fn a_file_is_stored_with_its_message_and_queued_among_the_imports() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let mut preloaded = forge_upload("key-2", "m-2");
    preloaded["eventType"] = json!("avi:ecosystem.migration:preloaded:app_data");
    for (body, key, message) in [
        (forge_upload("key-1", "m-1"), "key-1", "m-1"),
        (preloaded, "key-2", "m-2"),
    ] {
        // Delivered twice, it is one file.
        for _ in 0..2 {
            assert_eq!(intake.answer(&delivery(&body)).await.status, 200);
        }
        let sent = cloud.sent();
        assert_eq!(
            (sent[0].queue.as_str(), sent[0].group.as_str()),
            ("imports", INSTALLATION)
        );
        assert_eq!(event_of(&sent[0]), without_names(&body));
        let row = cloud.rows_of(&format!("FILE#{key}")).await.remove(0);
        assert_eq!(
            (text(&row, "message_id"), text(&row, "label")),
            (message, "attachments-0003-of-0007")
        );
        let partition = format!("TRANSFER#{INSTALLATION}#");
        assert!(text(&row, "pk").starts_with(&partition));
        assert_eq!(TenantId::new(INSTALLATION).flavour(), Flavour::Forge);
    }
    assert_eq!(cloud.rows_of("FILE#").await.len(), 2);
    assert!(cloud.rows_of("EVENT#").await.is_empty());
}

#[tokio::test]
async fn an_event_is_the_body_or_lies_in_either_envelope() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let enveloped = |envelope: &str, key: &str| {
        let mut outside = json!({"context": {"cloudId": "site-1"}});
        outside[envelope] = forge_upload(key, key);
        outside
    };
    for body in [
        forge_upload("key-1", "key-1"),
        enveloped("event", "key-2"),
        enveloped("payload", "key-3"),
    ] {
        assert_eq!(intake.answer(&delivery(&body)).await.status, 200);
    }
    let rows = cloud.rows_of("FILE#").await;
    let mut keys: Vec<_> = rows.iter().map(|row| text(row, "sk")).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["FILE#key-1", "FILE#key-2", "FILE#key-3"]);
    assert!(cloud.sent().iter().all(|sent| sent.queue == "imports"));
}

#[tokio::test]
async fn unknown_types_and_shapes_are_stored_and_counted() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    for body in [
        json!({"eventType": "avi:ecosystem.migration:created:mutation", "messageId": "m-1", "new": {"field": 1}}),
        json!({"a": 1}),
        json!([1]),
    ] {
        cloud.forget();
        assert_eq!(intake.answer(&delivery(&body)).await.status, 200, "{body}");
        assert_eq!(event_of(&cloud.sent()[0]), body);
    }
    assert_eq!(cloud.rows_of("EVENT#").await.len(), 3);
    let count = cloud.rows_of("COUNT#events_unknown").await.remove(0);
    assert_eq!(count["count"].as_n().unwrap(), "3");
}

#[tokio::test]
async fn what_is_answered_is_json_whatever_it_says() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let good = delivery(&forge_event("triggered:listener", "m-1"));
    let forged = invoked(EVENTS, "x", "{}");
    for (request, status, body) in [
        (&good, 200, "{}"),
        (&forged, 401, r#"{"message":"unauthorized"}"#),
    ] {
        let answer = LambdaFunctionUrlResponse::from(intake.answer(request).await);
        assert_eq!(answer.status_code, status);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.body.as_deref(), Some(body));
    }
}

#[tokio::test]
async fn an_invocation_whose_token_does_not_hold_is_401_whatever_the_reason_and_stores_nothing() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let good = invocation_claims(INSTALLATION);
    let sign = |claims: &Value| rs256(claims, Some(KEY_ID));
    let with = |path: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(path).unwrap() = value;
        sign(&claims)
    };
    let now = NOW.as_seconds();
    let header = |algorithm: Algorithm| Header {
        kid: Some(KEY_ID.to_owned()),
        ..Header::new(algorithm)
    };
    let stranger = private_key(&aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap());
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let tokens = [
        (
            "another key's signature",
            signed(&header(Algorithm::RS256), &good, &stranger),
        ),
        ("HS256", signed(&header(Algorithm::HS256), &good, &secret)),
        ("no key id", rs256(&good, None)),
        ("a key id that is a path", rs256(&good, Some("../secret"))),
        ("an unknown key id", rs256(&good, Some("unknown"))),
        ("another issuer", with("/iss", json!("forge/other"))),
        (
            "for another app",
            with("/aud", json!("ari:cloud:ecosystem::app/other")),
        ),
        (
            "of another app",
            with("/app/id", json!("ari:cloud:ecosystem::app/other")),
        ),
        ("expired", with("/exp", json!(now - 61))),
        ("no end", with("/exp", json!(null))),
        ("issued in the future", with("/iat", json!(now + 61))),
        ("not good yet", with("/nbf", json!(now + 61))),
        ("no installation", with("/app/installationId", json!(null))),
        (
            "an installation that is none",
            with("/app/installationId", json!(TENANT)),
        ),
        (
            "an API that isn't the platform's",
            with("/app/apiBaseUrl", json!("https://evil.example.com/ex")),
        ),
        ("a token of Connect", hs256(&claims(TENANT, EVENTS), SECRET)),
        ("no token at all", "x".to_owned()),
        ("no token in the scheme", String::new()),
    ];
    let body = forge_event("triggered:listener", "m-1").to_string();
    for (name, token) in tokens {
        for path in [EVENTS, TOKEN] {
            let request = bringing(invoked(path, &token, body.clone()), &system_token(300));
            let answer = intake.answer(&request).await;
            assert_eq!(
                (answer.status, answer.reason.as_str()),
                (401, "unauthorized"),
                "{name} {path}"
            );
        }
    }
    let bare = Request {
        authorization: None,
        ..invoked(EVENTS, "", body)
    };
    assert_eq!(intake.answer(&bare).await.status, 401);
    // What is said of a body is said to the proven sender only.
    let too_large = invoked(EVENTS, "x", vec![b' '; 300_000]);
    assert_eq!(intake.answer(&too_large).await.status, 401);
    assert!(cloud.sent().is_empty() && cloud.table.calls().is_empty());
    assert!(cloud.rows().await.is_empty());
    assert_eq!(cloud.keys.asked(), 1, "whatever ids are asked for");
}

#[tokio::test]
async fn a_token_is_good_within_the_leeway_of_sixty_seconds() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let now = NOW.as_seconds();
    for (claim, value) in [("exp", now - 60), ("iat", now + 60), ("nbf", now + 60)] {
        let mut claims = invocation_claims(INSTALLATION);
        claims[claim] = json!(value);
        let body = forge_event("triggered:listener", claim).to_string();
        let request = invoked(EVENTS, &rs256(&claims, Some(KEY_ID)), body);
        assert_eq!(intake.answer(&request).await.status, 200, "{claim}");
    }
}

#[tokio::test]
async fn a_new_key_is_asked_for_once_a_minute_at_most() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let body = || forge_event("triggered:listener", "m-1").to_string();
    assert_eq!(intake.answer(&invocation(EVENTS, body())).await.status, 200);
    cloud.keys.publish("the-next-key");
    let next = rs256(&invocation_claims(INSTALLATION), Some("the-next-key"));
    let next = invoked(EVENTS, &next, body());
    for _ in 0..3 {
        assert_eq!(intake.answer(&next).await.status, 401, "asked a moment ago");
    }
    assert_eq!(cloud.keys.asked(), 1);
    cloud.clock.advance(Duration::from_mins(1));
    for _ in 0..3 {
        assert_eq!(intake.answer(&next).await.status, 200);
    }
    assert_eq!(cloud.keys.asked(), 2);
}

#[tokio::test]
async fn an_invocation_that_can_not_be_checked_now_is_503_and_stores_nothing() {
    let cloud = Cloud::start().await;
    cloud.keys.set(500);
    let intake = cloud.intake_on_forge();
    let request = bringing(
        delivery(&forge_event("triggered:listener", "m-1")),
        &system_token(300),
    );
    assert_eq!(timed(&intake, &request).await, 503);
    assert!(cloud.sent().is_empty() && cloud.rows().await.is_empty());
    cloud.keys.set(200);
    assert_eq!(timed(&intake, &request).await, 200);
    // A key that was had is good enough while the server is away.
    cloud.keys.set(500);
    cloud.clock.advance(Duration::from_hours(2));
    let mut claims = invocation_claims(INSTALLATION);
    claims["exp"] = json!(cloud.clock.now().as_seconds() + 300);
    let body = forge_event("settled:transfer", "m-2").to_string();
    let later = invoked(EVENTS, &rs256(&claims, Some(KEY_ID)), body);
    assert_eq!(timed(&intake, &later).await, 200);
}

#[tokio::test]
async fn a_body_that_can_not_be_taken_is_refused_with_its_reason_and_its_metadata_kept() {
    let mut no_transfer = forge_event("triggered:listener", "m-1");
    no_transfer.as_object_mut().unwrap().remove("transferId");
    let mut large = forge_event("triggered:listener", "m-1");
    large["padding"] = json!("x".repeat(262_144));
    for (body, status, event_type, reason) in [
        (
            large.to_string().into_bytes(),
            413,
            "",
            "the body is larger than 262144 bytes",
        ),
        (b"{\"private\":".to_vec(), 400, "", "the body is not JSON"),
        (
            no_transfer.to_string().into_bytes(),
            422,
            "avi:ecosystem.migration:triggered:listener",
            "avi:ecosystem.migration:triggered:listener without transferId",
        ),
        (
            forge_event("uploaded:app_data", "m-1")
                .to_string()
                .into_bytes(),
            422,
            "avi:ecosystem.migration:uploaded:app_data",
            "avi:ecosystem.migration:uploaded:app_data without key",
        ),
    ] {
        let cloud = Cloud::start().await;
        let intake = cloud.intake_on_forge();
        let request = bringing(invocation(EVENTS, body), &system_token(300));
        let answer = intake.answer(&request).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason));
        let rejected = cloud.rows_of("REJECTED#").await.remove(0);
        assert_eq!(
            (text(&rejected, "event_type"), text(&rejected, "reason")),
            (event_type, reason)
        );
        assert_eq!(text(&rejected, "pk"), format!("TENANT#{INSTALLATION}"));
        assert!(cloud.sent().is_empty());
        // The call is the platform's, whatever is wrong with the event.
        assert!(kept(&cloud).await.is_some());
    }
}

#[tokio::test]
async fn with_one_of_table_and_queues_unreachable_an_event_is_in_the_other() {
    for mode in BROKEN {
        let cloud = Cloud::start().await;
        let intake = cloud.intake_on_forge();
        cloud.table.set(mode);
        for body in [
            forge_event("triggered:listener", "m-1"),
            forge_upload("key-1", "m-2"),
        ] {
            let request = bringing(delivery(&body), &system_token(300));
            assert_eq!(timed(&intake, &request).await, 200, "{mode:?}");
            assert_eq!(event_of(&cloud.sent()[0]), without_names(&body));
        }
        assert!(cloud.rows().await.is_empty());
        cloud.table.set(Mode::Works);
        cloud.queues.set(mode);
        for body in [
            forge_event("settled:transfer", "m-3"),
            forge_upload("key-2", "m-4"),
        ] {
            let request = bringing(delivery(&body), &system_token(300));
            assert_eq!(timed(&intake, &request).await, 200, "{mode:?}");
        }
        assert_eq!(
            cloud.rows_of("EVENT#").await.len() + cloud.rows_of("FILE#").await.len(),
            2
        );
        assert!(cloud.sent().is_empty());
        assert!(kept(&cloud).await.is_some());
    }
}

#[tokio::test]
async fn with_both_unreachable_the_answer_is_503_in_time() {
    for (table, queues) in [
        (Mode::Fails, Mode::Fails),
        (Mode::Hangs, Mode::Hangs),
        (Mode::Cuts, Mode::Hangs),
    ] {
        let cloud = Cloud::start().await;
        let intake = cloud.intake_on_forge();
        cloud.table.set(table);
        cloud.queues.set(queues);
        let body = forge_upload("key-1", "m-1");
        let request = bringing(delivery(&body), &system_token(300));
        assert_eq!(timed(&intake, &request).await, 503, "{table:?} {queues:?}");
        cloud.table.set(Mode::Works);
        cloud.queues.set(Mode::Works);
        assert_eq!(timed(&intake, &request).await, 200);
    }
}

#[tokio::test]
async fn the_token_that_ends_last_is_kept_sealed_in_whichever_order_they_come() {
    let ends = |seconds: i64| Timestamp::from_millis((NOW.as_seconds() + seconds) * 1_000);
    for lives in [[300, 900], [900, 300]] {
        let cloud = Cloud::start().await;
        // By two instances: neither remembers what the other kept.
        let instances = [cloud.intake_on_forge(), cloud.intake_on_forge()];
        for (life, intake) in lives.into_iter().zip(&instances) {
            let request = bringing(invocation(TOKEN, ""), &system_token(life));
            assert_eq!(intake.answer(&request).await.status, 200);
        }
        assert_eq!(kept(&cloud).await, Some((system_token(900), ends(900))));
        let event = delivery(&forge_event("triggered:listener", "m-1"));
        for (life, expected) in [(600, 900), (1_200, 1_200)] {
            let request = bringing(event.clone(), &system_token(life));
            assert_eq!(instances[0].answer(&request).await.status, 200);
            assert_eq!(
                kept(&cloud).await,
                Some((system_token(expected), ends(expected)))
            );
        }
        let sealed = format!("{:?}", cloud.rows_of("TOKEN").await);
        for part in system_token(1_200).split('.') {
            assert!(!sealed.contains(part), "{part}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_known_costs_an_event_nothing() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let calls = async |message: &str, life: i64| {
        let body = forge_event("triggered:listener", message);
        let request = bringing(delivery(&body), &system_token(life));
        assert_eq!(intake.answer(&request).await.status, 200);
        let mut calls = cloud.table.calls();
        calls.sort();
        calls
    };
    assert_eq!(calls("m-1", 300).await, ["GetItem", "PutItem", "PutItem"]);
    assert_eq!(calls("m-2", 300).await, ["PutItem"]);
    assert_eq!(calls("m-3", 200).await, ["PutItem"]);
    assert_eq!(
        calls("m-4", 400).await,
        ["GetItem", "PutItem", "UpdateItem"]
    );
}

#[tokio::test]
async fn beside_its_token_it_is_kept_where_an_installations_product_is_called_and_when_it_called() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let mut unnamed = invocation_claims(INSTALLATION);
    unnamed["app"].as_object_mut().unwrap().remove("apiBaseUrl");
    let unnamed = rs256(&unnamed, Some(KEY_ID));
    for request in [
        bringing(invocation(TOKEN, ""), &system_token(300)),
        // A newer one, whose call doesn't say it.
        bringing(invoked(TOKEN, &unnamed, ""), &system_token(900)),
    ] {
        assert_eq!(intake.answer(&request).await.status, 200);
        let known = cloud.store().token(&TenantId::new(INSTALLATION)).await;
        let known = known.unwrap().unwrap();
        assert_eq!(
            known.product_api.as_deref(),
            Some("https://api.atlassian.com/ex/confluence/site-1")
        );
        assert_eq!(known.heard_at, Some(NOW));
    }
}

#[tokio::test]
async fn a_token_is_not_believed_to_live_longer_than_the_platforms_do() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let year = 365 * 24 * 3_600;
    let request = bringing(invocation(TOKEN, ""), &system_token(year));
    assert_eq!(intake.answer(&request).await.status, 200);
    let longest = NOW + FORGE_TOKEN_LIFE;
    assert_eq!(kept(&cloud).await, Some((system_token(year), longest)));
}

#[tokio::test]
async fn a_token_that_can_not_be_kept_is_asked_for_again_where_it_was_all_that_came() {
    for mode in BROKEN {
        let cloud = Cloud::start().await;
        let intake = cloud.intake_on_forge();
        cloud.table.set(mode);
        let request = bringing(invocation(TOKEN, "{}"), &system_token(300));
        assert_eq!(timed(&intake, &request).await, 503, "{mode:?}");
        cloud.table.set(Mode::Works);
        assert_eq!(timed(&intake, &request).await, 200);
        assert!(kept(&cloud).await.is_some());
        assert_eq!(cloud.rows().await.len(), 1, "it is no event");
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn a_missing_token_or_one_that_can_not_be_read_costs_no_event() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let endless = hs256(&json!({"sub": "Jane"}), "secret");
    let milliseconds = hs256(&json!({"exp": NOW.as_seconds() * 1_000}), "secret");
    for (number, token) in [None, Some("x"), Some(&*endless), Some(&*milliseconds)]
        .into_iter()
        .enumerate()
    {
        let body = forge_event("triggered:listener", &format!("m-{number}"));
        for (request, status) in [(delivery(&body), 200), (invocation(TOKEN, "{}"), 422)] {
            let request = match token {
                Some(token) => bringing(request, token),
                None => request,
            };
            assert_eq!(intake.answer(&request).await.status, status, "{token:?}");
        }
    }
    assert_eq!(kept(&cloud).await, None);
    assert_eq!(cloud.rows_of("EVENT#").await.len(), 4);
}

#[tokio::test]
async fn an_app_is_called_on_the_flavours_that_it_is_on_and_on_no_other() {
    let cloud = Cloud::start().await;
    let (connect, both, forge) = (
        cloud.intake(),
        cloud.intake_on_forge(),
        cloud.intake_on_forge_alone(),
    );
    let invoked = delivery(&forge_event("triggered:listener", "m-1"));
    let refreshed = bringing(invocation(TOKEN, ""), &system_token(300));
    for request in [&invoked, &refreshed] {
        assert_eq!(connect.answer(request).await.status, 404);
        assert_eq!(both.answer(request).await.status, 200);
        assert_eq!(forge.answer(request).await.status, 200);
    }
    assert_eq!(install(&forge, TENANT, SECRET).await.status, 404);
    for intake in [&connect, &both] {
        assert_eq!(install(intake, TENANT, SECRET).await.status, 200);
    }
    let called = webhook(&event("listener-triggered", "m-2"));
    assert_eq!(forge.answer(&called).await.status, 404);
    assert_eq!(both.answer(&called).await.status, 200);
}

#[tokio::test]
async fn two_installations_are_two() {
    let cloud = Cloud::start().await;
    let intake = cloud.intake_on_forge();
    let other = "ari:cloud:ecosystem::installation/another";
    for installation in [INSTALLATION, other] {
        let token = rs256(&invocation_claims(installation), Some(KEY_ID));
        let body = forge_upload("key-1", "m-1").to_string();
        let request = bringing(invoked(EVENTS, &token, body), &system_token(300));
        assert_eq!(intake.answer(&request).await.status, 200);
    }
    assert_eq!(cloud.rows_of("FILE#").await.len(), 2);
    assert_eq!(cloud.rows_of("TOKEN").await.len(), 2);
}
