//! When a call is made again, and what is known of it in the end. The server says in turn what it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use landfall_aws::{DynamoDb, Sqs};
use landfall_clock::Clock;
use landfall_embedded::{RECORDS_TABLE, TABLE, access_with, serve};
use landfall_runtime::Patience;
use landfall_tracking::{Error, Item, Key, Messages, Returning, Table, Write, WriteError};
use serde_json::{Value, json};

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Turn {
    Answers,
    Throttles,
    /// Another transaction has the row.
    Contends,
    /// The row is there.
    IsThere,
    Refuses,
    Fails,
    /// Takes the request and never answers.
    Hangs,
}

#[derive(Clone)]
struct Script {
    turns: Arc<Mutex<VecDeque<Turn>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

async fn play(State(script): State<Script>, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    script.bodies.lock().unwrap().push(body);
    let turn = script.turns.lock().unwrap().pop_front().unwrap();
    let problem = |status: u16, code: &str| {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        let status = StatusCode::from_u16(status).unwrap();
        (status, json!({ "__type": kind }).to_string()).into_response()
    };
    match turn {
        Turn::Answers => "{}".into_response(),
        Turn::Throttles => problem(400, "ThrottlingException"),
        Turn::Contends => problem(400, "TransactionConflictException"),
        Turn::IsThere => problem(400, "ConditionalCheckFailedException"),
        Turn::Refuses => problem(400, "ValidationException"),
        Turn::Fails => problem(500, "InternalServerError"),
        Turn::Hangs => std::future::pending().await,
    }
}

/// Three attempts of 200 ms each.
const PATIENCE: Patience = Patience {
    connect: Duration::from_millis(200),
    attempt: Duration::from_millis(200),
    operation: Duration::from_secs(5),
    attempts: 3,
    pause: Duration::from_millis(10),
};

async fn script(turns: &[Turn]) -> (Script, String) {
    let script = Script {
        turns: Arc::new(Mutex::new(turns.iter().copied().collect())),
        bodies: Arc::default(),
    };
    let url = serve(Router::new().fallback(play).with_state(script.clone())).await;
    (script, url)
}

fn put() -> Write {
    Write::put(Key::new("P", "S"), Item::new()).if_absent()
}

/// How a put ends, and how often it was asked for.
async fn put_ends(turns: &[Turn]) -> (Result<(), Error>, usize) {
    let (script, url) = script(turns).await;
    let table = DynamoDb::new(access_with(&url, PATIENCE), TABLE, RECORDS_TABLE);
    let outcome = Table::write(&table, put(), Returning::Nothing).await;
    let outcome = match outcome {
        Ok(_) => Ok(()),
        Err(WriteError::Failed(error)) => Err(error),
        Err(WriteError::ConditionFailed(_)) => Err(Error::Conflict),
    };
    let asked = script.bodies.lock().unwrap().len();
    (outcome, asked)
}

#[tokio::test]
async fn what_is_throttled_or_fails_is_tried_again_until_it_goes_well() {
    for passing in [Turn::Throttles, Turn::Fails, Turn::Hangs] {
        let (outcome, asked) = put_ends(&[passing, passing, Turn::Answers]).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(asked, 3);
    }
}

#[tokio::test]
async fn after_its_last_attempt_a_throttled_call_has_done_nothing() {
    let (outcome, asked) = put_ends(&[Turn::Throttles; 3]).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    let (outcome, asked) = put_ends(&[Turn::Refuses]).await;
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_failure_of_the_service_leaves_open_whether_it_did_its_work() {
    let (outcome, _) = put_ends(&[Turn::Fails; 3]).await;
    assert!(matches!(outcome, Err(Error::Unknown)), "{outcome:?}");
}

#[tokio::test]
async fn an_attempt_without_an_answer_stays_unknown_when_the_next_is_only_throttled() {
    for unknown in [Turn::Hangs, Turn::Fails] {
        let turns = [unknown, Turn::Throttles, Turn::Throttles];
        let (outcome, asked) = put_ends(&turns).await;
        assert!(matches!(outcome, Err(Error::Unknown)), "{outcome:?}");
        assert_eq!(asked, 3);
    }
}

#[tokio::test]
async fn an_attempt_without_an_answer_stays_unknown_when_another_has_the_row_afterwards() {
    let (outcome, _) = put_ends(&[Turn::Contends]).await;
    assert!(matches!(outcome, Err(Error::Contended)), "{outcome:?}");
    let (outcome, _) = put_ends(&[Turn::Hangs, Turn::Contends]).await;
    assert!(matches!(outcome, Err(Error::Unknown)), "{outcome:?}");
}

#[tokio::test]
async fn a_condition_that_fails_after_an_attempt_without_an_answer_is_told_as_such() {
    let (outcome, _) = put_ends(&[Turn::Hangs, Turn::IsThere]).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
}

#[tokio::test]
async fn a_message_that_sqs_refuses_is_refused_by_either_of_its_names_for_it() {
    for code in ["InvalidParameterValue", "InvalidParameterValueException"] {
        let kind = format!("com.amazon.coral.service#{code}");
        let answer = (
            StatusCode::BAD_REQUEST,
            json!({ "__type": kind }).to_string(),
        );
        let router = Router::new().fallback(async move || answer.clone());
        let url = serve(router).await;
        let queue = Sqs::new(access_with(&url, PATIENCE), format!("{url}/queue"));
        let sent = Messages::send(&queue, String::new(), "group".to_owned(), Duration::ZERO);
        assert!(matches!(sent.await, Err(Error::Refused(_))), "{code}");
    }
}

#[tokio::test]
async fn what_could_never_be_sent_has_done_nothing() {
    let table = DynamoDb::new(
        access_with("http://127.0.0.1:1", PATIENCE),
        TABLE,
        RECORDS_TABLE,
    );
    let outcome = Table::write(&table, put(), Returning::Nothing).await;
    assert!(
        matches!(outcome, Err(WriteError::Failed(Error::Unavailable(_)))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn all_attempts_of_a_transaction_carry_the_same_token_and_two_transactions_never() {
    let turns = [Turn::Hangs, Turn::Answers, Turn::Answers];
    let (script, url) = script(&turns).await;
    let table = DynamoDb::new(access_with(&url, PATIENCE), TABLE, RECORDS_TABLE);
    for _ in 0..2 {
        Table::transact(&table, vec![put()]).await.unwrap();
    }
    let bodies = script.bodies.lock().unwrap();
    let tokens: Vec<_> = bodies
        .iter()
        .map(|body| body["ClientRequestToken"].as_str().unwrap())
        .collect();
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert!((1..=36).contains(&tokens[0].len()), "{}", tokens[0]);
}

#[tokio::test]
async fn a_call_ends_in_its_time_whatever_is_left_of_its_attempts() {
    let patience = Patience {
        operation: Duration::from_millis(300),
        attempts: 100,
        ..PATIENCE
    };
    let (script, url) = script(&[Turn::Hangs; 100]).await;
    let queue = Sqs::new(access_with(&url, patience), format!("{url}/queue"));
    let clock = Clock::system();
    let began = clock.monotonic();
    let outcome = Messages::send(
        &queue,
        "body".to_owned(),
        "group".to_owned(),
        Duration::ZERO,
    );
    assert!(matches!(outcome.await, Err(Error::Unknown)));
    let took = clock.monotonic().saturating_sub(began);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let asked = script.bodies.lock().unwrap().len();
    assert!((1..=4).contains(&asked), "{asked}");
}
