use std::net::{IpAddr, Ipv4Addr};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use landfall_transfer::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::connect::token::{Moment, verify_webhook};
use crate::stub::{Seen, Stub, raw_server, status};

const NOW: i64 = 1_600_000_000;
const SECRET: &str = "example-shared-secret";

async fn stub(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> (Stub, Tenant) {
    let (stub, url) = Stub::serve(answer).await;
    (stub, tenant(&url.join("wiki").unwrap()))
}

fn tenant(base_url: &Url) -> Tenant {
    Tenant {
        client_key: "tenant-1".into(),
        base_url: base_url.clone(),
        secret: SECRET.to_owned().into(),
    }
}

fn client() -> Client {
    let settings = Settings {
        connect_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_millis(500),
        list_timeout: Duration::from_secs(10),
        ..Settings::new("my-cloud-app-key")
    };
    Client::new(settings, Clock::manual(Timestamp::from_millis(NOW * 1_000))).unwrap()
}

async fn recent_answered(code: u16, body: &'static str) -> CallError {
    let (_, tenant) = stub(move |_| status(code, body)).await;
    client().recent(&tenant).await.unwrap_err()
}

#[tokio::test]
async fn every_request_is_signed_for_its_path_below_the_tenants_base_and_marked() {
    let (stub, tenant) = stub(|_| axum::Json(json!({"10000": "10152"})).into_response()).await;
    client()
        .find_mappings(
            &tenant,
            "t-1",
            "jira/classic:customField",
            &["10000".into()],
        )
        .await
        .unwrap();
    client().recent(&tenant).await.unwrap_err();
    for seen in stub.seen() {
        assert_eq!(seen.headers["migration-app"], "true");
        let authorization = seen.headers["authorization"].to_str().unwrap();
        let token = token::find(Some(authorization), "").unwrap();
        let requests = qsh::candidates(
            seen.method.as_str(),
            seen.uri.path(),
            seen.uri.query().unwrap_or(""),
            &tenant.base_url,
        );
        let moment = Moment {
            now_seconds: NOW,
            leeway: Duration::ZERO,
        };
        let secret = SecretString::from(SECRET.to_owned());
        let verified =
            verify_webhook(token, "my-cloud-app-key", &[&secret], &requests, moment).unwrap();
        assert_eq!(verified.reading, qsh::Reading::BelowBase);
    }
    let paths: Vec<String> = stub
        .seen()
        .iter()
        .map(|seen| seen.uri.to_string())
        .collect();
    assert_eq!(
        paths,
        [
            "/wiki/rest/atlassian-connect/1/migration/mapping/t-1/find?namespace=jira%2Fclassic%3AcustomField",
            "/wiki/rest/atlassian-connect/1/migration/transfer/recent",
        ]
    );
}

#[tokio::test]
async fn a_get_has_no_body() {
    let (stub, tenant) = stub(|_| axum::Json(json!([])).into_response()).await;
    client().recent(&tenant).await.unwrap();
    let seen = &stub.seen()[0];
    assert!(seen.body.is_empty());
    assert!(
        !seen.headers.contains_key("content-length")
            && !seen.headers.contains_key("transfer-encoding")
    );
    assert!(!seen.headers.contains_key("content-type"));
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
        (403, "Forbidden", refused(403, Refusal::Gone, false)),
        (
            404,
            r#"{"error":"no such transfer"}"#,
            refused(404, Refusal::Gone, false),
        ),
        (
            409,
            r#"{"message":"already in a Settled state"}"#,
            refused(409, Refusal::Gone, true),
        ),
        (410, "", refused(410, Refusal::Gone, false)),
        (
            400,
            "The time limit of the transfer has passed",
            refused(400, Refusal::Expired, true),
        ),
        (
            400,
            r#"{"message":"transfer expired"}"#,
            refused(400, Refusal::Expired, true),
        ),
        (
            400,
            "percent must be 0..100",
            refused(400, Refusal::BadRequest, false),
        ),
        (413, "", refused(413, Refusal::TooLarge, false)),
        (405, "", refused(405, Refusal::Unexpected, false)),
        (302, "", refused(302, Refusal::Unexpected, false)),
        (
            408,
            "",
            CallError::Server {
                status: 408,
                retry_after: None,
            },
        ),
        (429, "", CallError::Throttled { retry_after: None }),
        (
            500,
            "settled",
            CallError::Server {
                status: 500,
                retry_after: None,
            },
        ),
        (
            503,
            "",
            CallError::Server {
                status: 503,
                retry_after: None,
            },
        ),
        (
            200,
            "<html>",
            CallError::Malformed {
                reason: "not JSON".into(),
            },
        ),
        (
            200,
            "{}",
            CallError::Malformed {
                reason: "no list of transfers".into(),
            },
        ),
    ] {
        assert_eq!(recent_answered(code, body).await, meaning, "{code} {body}");
    }
}

#[tokio::test]
async fn the_pause_asked_for_is_passed_on() {
    let (_, tenant) =
        stub(|_| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response()).await;
    let error = client().recent(&tenant).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(error.is_transient() && !error.may_be_over());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (stub, tenant) =
        stub(|_| (StatusCode::FOUND, [("location", "/elsewhere")]).into_response()).await;
    client().recent(&tenant).await.unwrap_err();
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn a_call_that_was_cut_or_ran_out_of_time_has_an_unknown_outcome() {
    let progress = Progress {
        status: Status::Failed,
        percent: Some(100),
        message: None,
    };
    for (answer, hang) in [
        (&b""[..], false),
        (b"", true),
        (b"HTTP/1.1 200 OK\r\n", false),
    ] {
        let tenant = tenant(&raw_server(answer, hang).await);
        let error = client()
            .send_progress(&tenant, "t", &progress)
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Unknown { .. }), "{error:?}");
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
    let cut = tenant(&raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[]", false).await);
    assert!(matches!(
        client().recent(&cut).await,
        Err(CallError::Unknown { .. })
    ));
    // The head of the answer already says that the settlement was taken.
    assert_eq!(client().send_progress(&cut, "t", &progress).await, Ok(()));
}

#[tokio::test]
async fn a_call_that_could_not_connect_was_not_sent() {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
        .await
        .unwrap();
    let closed = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let error = client().recent(&tenant(&closed)).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent { .. }), "{error:?}");
}

#[tokio::test]
async fn an_identity_that_would_address_another_operation_is_not_sent() {
    let (stub, tenant) = stub(|_| status(200, "{}")).await;
    for identity in ["", ".", ".."] {
        assert!(matches!(
            client().signed_url(&tenant, identity).await,
            Err(CallError::NotSent { .. })
        ));
    }
    client().signed_url(&tenant, "../a?b").await.unwrap_err();
    assert_eq!(
        stub.seen()[0].uri.path(),
        "/wiki/rest/atlassian-connect/1/migration/data/..%2Fa%3Fb"
    );
}

#[tokio::test]
async fn progress_has_exactly_the_fields_that_are_given() {
    let (stub, tenant) = stub(|_| status(200, "")).await;
    let full = Progress {
        status: Status::InProgress,
        percent: Some(7),
        message: Some("7 of 100".into()),
    };
    let bare = Progress {
        status: Status::Failed,
        percent: None,
        message: None,
    };
    client().send_progress(&tenant, "t", &full).await.unwrap();
    client().send_progress(&tenant, "t", &bare).await.unwrap();
    let bodies: Vec<Bytes> = stub.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(
        bodies[0],
        r#"{"status":"IN_PROGRESS","percent":7,"message":"7 of 100"}"#
    );
    assert_eq!(bodies[1], r#"{"status":"FAILED"}"#);
}

fn keys_of(seen: &Seen) -> Vec<String> {
    serde_json::from_slice(&seen.body).unwrap()
}

fn mapped(keys: &[String]) -> Response {
    let entries: Map<String, Value> = keys
        .iter()
        .map(|key| (key.clone(), json!(format!("cloud-{key}"))))
        .collect();
    axum::Json(entries).into_response()
}

#[tokio::test]
async fn keys_are_looked_up_a_hundred_a_call_and_unknown_ones_are_missing() {
    let (stub, tenant) = stub(|seen| {
        let known: Vec<String> = keys_of(seen)
            .into_iter()
            .filter(|key| !key.ends_with('7'))
            .collect();
        mapped(&known)
    })
    .await;
    let keys: Vec<String> = (0..250)
        .map(|number| number.to_string())
        .chain([String::new()])
        .collect();
    let found = client()
        .find_mappings(&tenant, "t", "jira:issue", &keys)
        .await
        .unwrap();
    assert_eq!(found.len(), 225);
    assert_eq!(found["10"], "cloud-10");
    let sizes: Vec<usize> = stub.seen().iter().map(|seen| keys_of(seen).len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[tokio::test]
async fn a_lookup_that_is_too_large_is_halved_until_it_fits() {
    let (stub, tenant) = stub(|seen| {
        let keys = keys_of(seen);
        if keys.len() > 30 {
            status(413, "")
        } else {
            mapped(&keys)
        }
    })
    .await;
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let found = client()
        .find_mappings(&tenant, "t", "n", &keys)
        .await
        .unwrap();
    assert_eq!(found.len(), 100);
    assert_eq!(stub.seen().len(), 7);
}

#[tokio::test]
async fn one_strange_key_is_unmapped_and_only_strange_keys_are_an_error() {
    let (_, tenant) = stub(|seen| {
        let keys = keys_of(seen);
        if keys.iter().any(|key| key.starts_with('\u{1}')) {
            status(400, "bad")
        } else {
            mapped(&keys)
        }
    })
    .await;
    let keys: Vec<String> = (0..9)
        .map(|number| number.to_string())
        .chain(["\u{1}".into()])
        .collect();
    assert_eq!(
        client()
            .find_mappings(&tenant, "t", "n", &keys)
            .await
            .unwrap()
            .len(),
        9
    );
    for count in [1, 2, 100] {
        let strange: Vec<String> = (0..count).map(|number| format!("\u{1}{number}")).collect();
        let error = client()
            .find_mappings(&tenant, "t", "n", &strange)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            CallError::Refused {
                kind: Refusal::BadRequest,
                ..
            }
        ));
    }
}

#[tokio::test]
async fn an_expired_transfer_is_not_looked_up_key_by_key() {
    let (stub, tenant) = stub(|_| status(400, "time limit expired")).await;
    let error = client()
        .find_mappings(&tenant, "t", "n", &["1".into(), "2".into()])
        .await
        .unwrap_err();
    assert!(error.may_be_over());
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn pages_go_on_while_the_platform_says_so() {
    for (meta, next) in [
        (
            json!({"hasNext": true, "lastEntity": "10001", "pageSize": 2}),
            Ok(Some("10001".to_owned())),
        ),
        (json!({"hasNext": false, "lastEntity": "10001"}), Ok(None)),
        (json!({"hasNext": false, "lastEntity": null}), Ok(None)),
        (json!({}), Ok(None)),
        (
            json!({"hasNext": true}),
            Err(malformed("more pages without lastEntity")),
        ),
    ] {
        let answer = json!({"items": {"10000": "10152", "10001": 10153}, "meta": meta});
        let (stub, tenant) = stub(move |_| axum::Json(answer.clone()).into_response()).await;
        let page = client()
            .mapping_page(&tenant, "t", "jira:issue", Some("a b"), 2)
            .await;
        assert_eq!(page.clone().map(|page| page.next), next);
        if let Ok(page) = page {
            assert_eq!(page.items[1], ("10001".into(), "10153".into()));
        }
        assert_eq!(
            stub.seen()[0].uri.query(),
            Some("namespace=jira%3Aissue&pageSize=2&lastEntity=a%20b")
        );
    }
}

#[tokio::test]
async fn containers_are_known_by_their_source_ids_page_by_page() {
    let (stub, tenant) = stub(|seen| {
        let first = !seen.uri.query().unwrap().contains("lastEntity");
        let containers = if first {
            json!({"a": {"key": "ABC", "sourceId": "10000"}, "b": {"key": "DEF", "sourceId": 10_001}})
        } else {
            json!({"c": {"key": "NO-ID"}, "d": {"sourceId": null}, "e": 5, "f": {"sourceId": "10002"}})
        };
        let meta = json!({"hasNext": first, "lastEntity": "b c", "pageSize": 2});
        axum::Json(json!({"containers": containers, "meta": meta})).into_response()
    })
    .await;
    let client = client();
    let page = async |after| {
        let page = client.container_page(&tenant, "t", "JiraProject", after);
        page.await.unwrap()
    };
    let first = page(None).await;
    assert_eq!(first.items, ["10000", "10001"]);
    let last = page(first.next.as_deref()).await;
    assert_eq!(
        (last.items, last.next),
        (vec!["10002".to_owned()], None),
        "an entry without a sourceId is left out"
    );
    let queries: Vec<String> = stub
        .seen()
        .iter()
        .map(|seen| seen.uri.query().unwrap().to_owned())
        .collect();
    assert_eq!(
        queries,
        [
            "containerType=JiraProject&pageSize=250",
            "containerType=JiraProject&pageSize=250&lastEntity=b%20c",
        ]
    );
}

#[tokio::test]
async fn ten_thousand_files_are_listed_and_unusable_entries_left_out() {
    let (_, tenant) = stub(|_| {
        let mut files: Vec<Value> = (0..10_000)
            .map(|number| json!({"s3Key": format!("key-{number}"), "label": "ä".repeat(500)}))
            .collect();
        files.extend([
            json!({"s3Key": "no-label"}),
            json!({"label": "no key"}),
            json!({"s3Key": "../x"}),
            json!(5),
        ]);
        axum::Json(files).into_response()
    })
    .await;
    let files = client().file_list(&tenant, "t").await.unwrap();
    assert_eq!(files.len(), 10_001);
    assert_eq!(
        files[10_000],
        ListedFile {
            s3_key: "no-label".into(),
            label: None
        }
    );
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (_, tenant) = stub(|_| vec![b' '; ANSWER_MAX + 1].into_response()).await;
    assert!(matches!(
        client().recent(&tenant).await,
        Err(CallError::Malformed { .. })
    ));
}

#[tokio::test]
async fn a_full_or_unreadable_list_of_transfers_proves_nothing_about_the_others() {
    let entry = |number: usize| json!({"transferId": format!("t-{number}"), "status": "IN_PROGRESS", "migrationDetails": {"createdAt": 1_763_769_600, "name": "secret plan"}});
    let answered = |entries: Vec<Value>| async move {
        let (_, tenant) = stub(move |_| axum::Json(entries.clone()).into_response()).await;
        client().recent(&tenant).await.unwrap()
    };
    let one = answered(vec![entry(0)]).await;
    assert!(one.conclusive);
    assert_eq!(one.transfers[0].created_at_ms, Some(1_763_769_600_000));
    assert!(!format!("{one:?}").contains("secret plan"));
    assert!(answered(vec![]).await.conclusive);
    assert!(answered((0..99).map(entry).collect()).await.conclusive);
    assert!(!answered((0..100).map(entry).collect()).await.conclusive);
    assert!(
        !answered(vec![entry(0), json!({"status": "IN_PROGRESS"})])
            .await
            .conclusive
    );
}

#[tokio::test]
async fn the_remaining_operations_speak_the_protocols_shapes() {
    let (stub, tenant) = stub(|seen| {
        let answer = match seen.uri.path().rsplit_once("/migration/").unwrap().1 {
            "webhook" => json!({"endpoints": ["https://example.com/hook"]}),
            "data/key" => json!({"url": "https://files.example.com/x?signature=s"}),
            "error/t" => json!({"exceptionType": "java.lang.IllegalStateException", "safeStackTrace": "at x"}),
            "container/t/page" => json!({
                "containers": {"6b0a": {"type": "ConfluenceSpace", "key": "DOC", "sourceId": "98304"}},
                "meta": {"hasNext": false, "pageSize": 250}
            }),
            _ => json!({}),
        };
        axum::Json(answer).into_response()
    })
    .await;
    let client = client();
    assert_eq!(
        client.webhooks(&tenant).await.unwrap(),
        ["https://example.com/hook"]
    );
    client
        .replace_webhooks(&tenant, &["https://example.com/hook".into()])
        .await
        .unwrap();
    let url = client.signed_url(&tenant, "key").await.unwrap();
    assert!(!format!("{url:?}").contains("signature"));
    let error = client.server_error(&tenant, "t").await.unwrap().unwrap();
    assert_eq!(
        error.exception_type.as_deref(),
        Some("java.lang.IllegalStateException")
    );
    let page = client
        .container_page(&tenant, "t", "ConfluenceSpace", None)
        .await
        .unwrap();
    assert_eq!(page.items, ["98304"]);
    let details = Map::from_iter([("read".to_owned(), json!(5))]);
    client.send_feedback(&tenant, "t", &details).await.unwrap();
    assert_eq!(
        stub.seen().last().unwrap().body,
        r#"{"details":{"read":5}}"#
    );
    let (_, tenant) = self::stub(|_| status(404, "")).await;
    assert_eq!(client.server_error(&tenant, "t").await, Ok(None));
}
