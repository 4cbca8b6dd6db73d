use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use landfall_transfer::Timestamp;

use super::*;
use crate::downloads::DownloadError;
use crate::stub::{Seen, Stub, raw_server, status};

const NOW: i64 = 1_600_000_000;

/// The stub's API begins below a path, as the platform's does.
const BASE: &str = "/app/migration/forge/v1";

async fn stub(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> (Stub, Client) {
    let (stub, url) = Stub::serve(answer).await;
    (stub, client(&url))
}

fn client(url: &Url) -> Client {
    let settings = Settings {
        connect_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_millis(500),
        list_timeout: Duration::from_secs(10),
        ..Settings::new(url.join(&BASE[1..]).unwrap())
    };
    Client::new(settings, Clock::manual(Timestamp::from_millis(NOW * 1_000))).unwrap()
}

fn access() -> Access {
    Access {
        token: "system-token".to_owned().into(),
    }
}

fn answer(value: &Value) -> Response {
    axum::Json(value).into_response()
}

fn asked(stub: &Stub) -> Vec<String> {
    stub.seen()
        .iter()
        .map(|seen| {
            let path = seen.uri.path().strip_prefix(BASE).unwrap();
            let query = seen.uri.query().map(|query| format!("?{query}"));
            format!("{} {path}{}", seen.method, query.unwrap_or_default())
        })
        .collect()
}

async fn answered(code: u16, body: &'static str) -> CallError {
    let (_, client) = stub(move |_| status(code, body)).await;
    client.signed_url(&access(), "key").await.unwrap_err()
}

#[tokio::test]
async fn every_request_carries_the_token_below_the_base_and_prints_it_nowhere() {
    let (stub, client) =
        stub(|_| answer(&json!({"url": "https://files.example.com/x?signature=s"}))).await;
    let url = client.signed_url(&access(), "key").await.unwrap();
    assert!(!format!("{url:?}").contains("signature"));
    let seen = &stub.seen()[0];
    assert_eq!(seen.headers["authorization"], "Bearer system-token");
    assert_eq!(asked(&stub), ["GET /data/key"]);
    assert!(seen.body.is_empty() && !seen.headers.contains_key("content-type"));
    assert!(!format!("{:?} {client:?}", access()).contains("system-token"));
    let broken = Access {
        token: "a\nb".to_owned().into(),
    };
    let error = client.signed_url(&broken, "key").await.unwrap_err();
    assert!(matches!(error, CallError::NotSent { .. }));
}

#[tokio::test]
async fn messages_are_answered_together_up_to_fifty() {
    let (stub, client) = stub(|_| status(200, "")).await;
    let ids = |count: usize| -> Vec<String> { (0..count).map(|id| format!("m-{id}")).collect() };
    let (access, transfer) = (access(), "t");
    client
        .answer_messages(&access, transfer, Outcome::Success, &ids(2))
        .await
        .unwrap();
    client
        .answer_messages(&access, transfer, Outcome::Failed, &ids(50))
        .await
        .unwrap();
    client
        .answer_messages(&access, transfer, Outcome::Failed, &[])
        .await
        .unwrap();
    let error = client
        .answer_messages(&access, transfer, Outcome::Success, &ids(51))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        CallError::Refused {
            kind: Refusal::TooLarge,
            ..
        }
    ));
    assert_eq!(asked(&stub), ["POST /message/t/status"; 2]);
    let seen = stub.seen();
    assert_eq!(seen[0].headers["content-type"], "application/json");
    assert_eq!(
        seen[0].body,
        r#"{"status":"SUCCESS","messageIds":["m-0","m-1"]}"#
    );
    assert!(seen[1].body.starts_with(br#"{"status":"FAILED""#));
}

#[tokio::test]
async fn each_answer_has_its_meaning() {
    let refused = |status, kind, says_settled| CallError::Refused {
        status,
        kind,
        says_settled,
    };
    for (code, body, meaning) in [
        (401, "", CallError::Unauthorized),
        (403, "Forbidden", CallError::Unauthorized),
        (404, "", refused(404, Refusal::Gone, false)),
        (409, "", refused(409, Refusal::Settled, false)),
        (
            409,
            "The transfer is settled",
            refused(409, Refusal::Settled, true),
        ),
        (410, "", refused(410, Refusal::Gone, false)),
        (400, "expired", refused(400, Refusal::Expired, true)),
        (400, "", refused(400, Refusal::BadRequest, false)),
        (413, "", refused(413, Refusal::TooLarge, false)),
        (302, "", refused(302, Refusal::Unexpected, false)),
        (429, "", CallError::Throttled { retry_after: None }),
        (
            503,
            "",
            CallError::Server {
                status: 503,
                retry_after: None,
            },
        ),
        (200, "<html>", malformed("not JSON")),
        (200, "{}", malformed("no url")),
    ] {
        assert_eq!(answered(code, body).await, meaning, "{code} {body}");
    }
    assert!(answered(409, "").await.may_be_over());
    assert!(!answered(403, "").await.may_be_over());
    assert!(!answered(401, "").await.is_transient());
}

#[tokio::test]
async fn the_pause_asked_for_is_passed_on() {
    let (_, client) =
        stub(|_| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response()).await;
    let error = client.add_log(&access(), "t", "x").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (stub, client) =
        stub(|_| (StatusCode::FOUND, [("location", "/elsewhere")]).into_response()).await;
    client.signed_url(&access(), "key").await.unwrap_err();
    client.payload(&access(), "key").await.unwrap_err();
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (_, client) = stub(|seen| {
        let length = if seen.uri.path().ends_with("all") {
            LIST_MAX
        } else {
            ANSWER_MAX
        };
        vec![b' '; length + 1].into_response()
    })
    .await;
    for error in [
        client.signed_url(&access(), "key").await.unwrap_err(),
        client.all_files(&access(), "t").await.unwrap_err(),
    ] {
        assert!(matches!(error, CallError::Malformed { .. }));
    }
}

#[tokio::test]
async fn a_call_that_was_cut_or_ran_out_of_time_has_an_unknown_outcome() {
    for (bytes, hang) in [
        (&b""[..], false),
        (b"", true),
        (b"HTTP/1.1 200 OK\r\n", false),
    ] {
        let url = raw_server(bytes, hang).await;
        let error = client(&url)
            .answer_messages(&access(), "t", Outcome::Success, &["m".into()])
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Unknown { .. }), "{error:?}");
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn an_identity_that_would_address_another_operation_is_not_sent() {
    let (stub, client) = stub(|_| status(200, "{}")).await;
    for identity in ["", ".", ".."] {
        let error = client.signed_url(&access(), identity).await.unwrap_err();
        assert!(matches!(error, CallError::NotSent { .. }));
    }
    client.signed_url(&access(), "../a?b").await.unwrap_err();
    assert_eq!(asked(&stub), ["GET /data/..%2Fa%3Fb"]);
}

#[tokio::test]
async fn keys_are_looked_up_a_hundred_a_call_and_a_strange_one_is_unmapped() {
    let (stub, client) = stub(|seen| {
        let keys: Vec<String> = serde_json::from_slice(&seen.body).unwrap();
        if keys.iter().any(|key| key == "strange") {
            return status(400, "");
        }
        let entries: HashMap<String, u8> = keys.into_iter().map(|key| (key, 1)).collect();
        axum::Json(entries).into_response()
    })
    .await;
    let mut keys: Vec<String> = (0..101).map(|key| key.to_string()).collect();
    let found = client
        .find_mappings(&access(), "t", "jira:issue", &keys)
        .await
        .unwrap();
    assert_eq!((found.len(), &*found["7"]), (101, "1"));
    assert_eq!(
        asked(&stub),
        ["POST /mapping/t/find?namespace=jira%3Aissue"; 2]
    );
    keys.truncate(2);
    keys.push("strange".into());
    let found = client
        .find_mappings(&access(), "t", "jira:issue", &keys)
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn pages_go_on_while_the_platform_says_so() {
    let (stub, client) = stub(|seen| {
        let more = !seen.uri.query().unwrap().contains("lastEntity");
        answer(&json!({
            "items": {"10000": "10152", "10001": 10_153},
            "containers": [
                {"type": "JiraProject", "key": "DOC", "sourceId": "10000"},
                {"type": "JiraProject", "sourceId": 10_001},
                {"type": "JiraProject", "key": "NO-ID"}
            ],
            "meta": {"hasNext": more, "lastEntity": "a b"}
        }))
    })
    .await;
    let access = access();
    let first = client
        .mapping_page(&access, "t", "jira:issue", None, MAPPING_PAGE_MAX)
        .await
        .unwrap();
    assert_eq!(first.items[1], ("10001".into(), "10153".into()));
    let last = client
        .mapping_page(&access, "t", "jira:issue", first.next.as_deref(), 1)
        .await
        .unwrap();
    assert_eq!(last.next, None);
    let containers = client
        .container_page(&access, "t", "JiraProject", None)
        .await
        .unwrap();
    assert_eq!(containers.items, ["10000", "10001"]);
    assert_eq!(containers.next.as_deref(), Some("a b"));
    assert_eq!(
        asked(&stub),
        [
            "GET /mapping/t/page?namespace=jira%3Aissue&pageSize=1200",
            "GET /mapping/t/page?namespace=jira%3Aissue&pageSize=1&lastEntity=a%20b",
            "GET /container/t/page?containerType=JiraProject&pageSize=250",
        ]
    );
}

#[tokio::test]
async fn containers_are_read_as_an_array_and_as_the_map_that_connect_has() {
    for (containers, expected) in [
        (json!([{"sourceId": "7"}]), Ok(vec!["7".to_owned()])),
        (json!({"1": {"sourceId": "7"}}), Ok(vec!["7".to_owned()])),
        (json!([]), Ok(Vec::new())),
        (json!("7"), Err(malformed("no containers"))),
        (json!(null), Err(malformed("no containers"))),
    ] {
        let body = json!({"containers": containers, "meta": {"hasNext": false}});
        let (_, client) = stub(move |_| answer(&body)).await;
        let access = access();
        let page = client.container_page(&access, "t", "JiraProject", None);
        assert_eq!(page.await.map(|page| page.items), expected);
    }
}

#[tokio::test]
async fn a_log_message_is_cut_between_characters() {
    let (stub, client) = stub(|_| status(200, "")).await;
    let long = "😀".repeat(LOG_MAX);
    for message in ["short", &format!("a{long}"), &"ä".repeat(LOG_MAX + 1)] {
        client.add_log(&access(), "t", message).await.unwrap();
    }
    let lengths: Vec<usize> = stub
        .seen()
        .iter()
        .map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            body["message"].as_str().unwrap().encode_utf16().count()
        })
        .collect();
    assert_eq!(lengths, [5, LOG_MAX - 1, LOG_MAX]);
    assert_eq!(asked(&stub)[0], "POST /log/t");
}

#[tokio::test]
async fn all_pages_of_files_are_read_and_unusable_entries_left_out() {
    let (stub, client) = stub(|seen| {
        answer(&match seen.uri.query().unwrap() {
            "pageSize=1000" => json!({
                "items": [{"key": "a", "label": "one", "fileSize": 5}, {"label": "no key"}, {"key": "../b"}],
                "lastEvaluatedKey": "a=="
            }),
            _ => json!({"items": [{"key": "b"}], "lastEvaluatedKey": null}),
        })
    })
    .await;
    let files = client.file_list(&access(), "t").await.unwrap();
    let file = |key: &str, label: Option<&str>| ListedFile {
        s3_key: key.into(),
        label: label.map(str::to_owned),
    };
    assert_eq!(files, [file("a", Some("one")), file("b", None)]);
    assert_eq!(
        asked(&stub),
        [
            "GET /data/t/page?pageSize=1000",
            "GET /data/t/page?pageSize=1000&lastEvaluatedKey=a%3D%3D",
        ]
    );
}

#[tokio::test]
async fn without_pages_everything_is_asked_for_at_once_each_time_anew() {
    let (stub, client) = stub(|seen| {
        if seen.uri.path().ends_with("/page") {
            return status(404, "");
        }
        answer(&json!([{"key": "a"}, {"s3Key": "b", "label": "x"}]))
    })
    .await;
    for _ in 0..2 {
        assert_eq!(client.file_list(&access(), "t").await.unwrap().len(), 2);
    }
    let both = ["GET /data/t/page?pageSize=1000", "GET /data/t/all"];
    assert_eq!(asked(&stub), [both, both].concat());
    let (_, client) = self::stub(|_| status(404, "")).await;
    let error = client.file_list(&access(), "t").await.unwrap_err();
    assert!(error.may_be_over());
}

#[tokio::test]
async fn only_the_first_page_is_replaced_and_no_list_goes_in_circles() {
    let page = json!({"items": [], "lastEvaluatedKey": "k"});
    let (_, client) = stub(move |_| answer(&page)).await;
    assert_eq!(
        client.file_list(&access(), "t").await,
        Err(malformed("a page that follows itself"))
    );
    let (stub, client) = stub(|seen| {
        if seen.uri.query().unwrap().contains("lastEvaluatedKey") {
            status(404, "")
        } else {
            answer(&json!({"items": [], "lastEvaluatedKey": "k"}))
        }
    })
    .await;
    client.file_list(&access(), "t").await.unwrap_err();
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn a_payload_comes_in_chunks_and_its_refusals_are_the_apis() {
    let (stub, client) = stub(|seen| match seen.uri.path().rsplit('/').nth(1) {
        Some("file") => Body::from("file content").into_response(),
        Some("denied") => status(403, ""),
        _ => status(409, ""),
    })
    .await;
    let mut file = client.payload(&access(), "file").await.unwrap();
    assert_eq!((file.starts_at(), file.size()), (0, Some(12)));
    let mut read = Vec::new();
    while let Some(chunk) = file.chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, b"file content");
    assert_eq!(stub.seen()[0].headers["accept-encoding"], "identity");
    assert_eq!(asked(&stub)[0], "GET /data/file/payload");
    let denied = client.payload(&access(), "denied").await.unwrap_err();
    assert_eq!(denied, CallError::Unauthorized);
    let settled = client.payload(&access(), "settled").await.unwrap_err();
    assert!(settled.may_be_over());
}

#[tokio::test]
async fn a_payload_that_is_cut_says_how_far_it_came() {
    let url = raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc", false).await;
    let mut file = client(&url).payload(&access(), "key").await.unwrap();
    let error = loop {
        match file.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the file is not complete"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, DownloadError::Cut { offset: 3, .. }));
}

#[tokio::test]
async fn values_reach_jira_below_the_products_base_with_the_token_for_their_transfer() {
    let (stub, client) = stub(|_| status(200, "")).await;
    let product_api = client.settings.base_url.join("/ex/jira/site-1").unwrap();
    let body = json!([{"entityId": 1, "key": "k", "value": "v"}]);
    client
        .write_to_jira(
            &access(),
            &product_api,
            "t-1",
            &["properties", "IssueProperty"],
            &body,
        )
        .await
        .unwrap();
    let seen = &stub.seen()[0];
    assert_eq!(seen.method, "PUT");
    assert_eq!(
        seen.uri.to_string(),
        "/ex/jira/site-1/rest/atlassian-connect/1/migration/properties/IssueProperty"
    );
    assert_eq!(seen.headers["authorization"], "Bearer system-token");
    assert_eq!(seen.headers["atlassian-transfer-id"], "t-1");
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(sent, body);
}

#[tokio::test]
async fn a_jira_that_serves_connect_apps_only_does_not_take_the_token() {
    let refused_with = async |code: u16| {
        let (_, client) = stub(move |_| status(code, "")).await;
        let base = client.settings.base_url.clone();
        client
            .write_to_jira(&access(), &base, "t", &["field"], &json!({}))
            .await
            .unwrap_err()
    };
    assert_eq!(refused_with(401).await, CallError::Unauthorized);
    let forbidden = refused_with(403).await;
    assert!(
        forbidden.may_be_over() && !forbidden.says_settled(),
        "perhaps it doesn't know the transfer: {forbidden:?}"
    );
}
