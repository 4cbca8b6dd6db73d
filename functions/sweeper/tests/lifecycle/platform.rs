//! As much of the platform as a transfer meets on its way, with knobs for what it may do wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use landfall_embedded::serve;
use serde_json::{Value, json};

/// A progress call and how it was answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) transfer: String,
    pub(crate) status: String,
    pub(crate) percent: Option<u64>,
    pub(crate) message: String,
    pub(crate) answer: u16,
}

impl Call {
    pub(crate) fn settles(&self) -> bool {
        self.status != "IN_PROGRESS"
    }
}

/// Which percent a final status counts with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Counting {
    #[default]
    Any,
    Only(u64),
    Omitted,
    Below100,
}

impl Counting {
    fn admits(self, percent: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(counting) => percent == Some(counting),
            Self::Omitted => percent.is_none(),
            Self::Below100 => percent.is_some_and(|percent| (1..100).contains(&percent)),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Knobs {
    /// Active transfers with their status.
    pub(crate) active: BTreeMap<String, String>,
    /// Files of each transfer: key and label.
    pub(crate) files: HashMap<String, Vec<(String, String)>>,
    /// Content of each file.
    pub(crate) contents: HashMap<String, String>,
    /// Statuses with which the next progress calls are answered; they take no effect.
    pub(crate) next_answers: VecDeque<u16>,
    /// Which percent a final status counts with; others are answered 200 and ignored.
    pub(crate) counting: Counting,
    /// The tenant that the list of active transfers names.
    pub(crate) listed_as: Option<String>,
    /// The list of active transfers is empty, whatever is active.
    pub(crate) lists_nothing: bool,
    /// Every token is refused.
    pub(crate) refuses_tokens: bool,
    /// The object store is down.
    pub(crate) store_down: bool,
    /// Users whose names begin so have no mapping any more.
    pub(crate) forgotten: Vec<String>,
    /// The server's ids of each migration's projects; there are no spaces.
    pub(crate) projects: Vec<u32>,
    /// Statuses with which the next calls for containers are answered.
    pub(crate) next_containers: VecDeque<u16>,
    /// Every call for containers so far: its path and query.
    pub(crate) container_calls: Vec<String>,
    /// What the server's listener failed with.
    pub(crate) exception: Option<String>,
    /// Every progress call so far.
    pub(crate) calls: Vec<Call>,
    /// Every answer to messages on Forge so far.
    pub(crate) answers: Vec<Value>,
    /// Statuses with which the next calls to Jira's operations are answered; they take no effect.
    pub(crate) next_writes: VecDeque<u16>,
    /// Every call to Jira's operations so far: its path, its transfer and its values.
    pub(crate) writes: Vec<(String, String, Value)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Platform {
    knobs: Arc<Mutex<Knobs>>,
    pub(crate) url: String,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        let knobs = Arc::<Mutex<Knobs>>::default();
        let api = "/rest/atlassian-connect/1/migration";
        let site = format!("/site{api}");
        let router = Router::new()
            .route(&format!("{site}/progress/{{id}}"), post(progress))
            .route(&format!("{site}/transfer/recent"), get(recent))
            .route(&format!("{site}/data/{{id}}/all"), get(list))
            .route(&format!("{site}/data/{{key}}"), get(signed_url))
            .route(&format!("{site}/mapping/{{id}}/find"), post(mappings))
            .route(&format!("{site}/container/{{id}}/page"), get(containers))
            .route(&format!("{site}/error/{{id}}"), get(listener_error))
            .route(&format!("{site}/field"), put(write_to_jira))
            .route(&format!("{site}/properties/{{kind}}"), put(write_to_jira))
            .route("/forge/data/{id}/all", get(list))
            .route("/forge/data/{key}", get(signed_url))
            .route("/forge/mapping/{id}/find", post(mappings))
            .route("/forge/container/{id}/page", get(containers))
            .route("/forge/message/{id}/status", post(answer))
            .route(&format!("{PRODUCT_API}{api}/field"), put(write_to_jira))
            .route(
                &format!("{PRODUCT_API}{api}/properties/{{kind}}"),
                put(write_to_jira),
            )
            .route("/store/{key}", get(content))
            .with_state(Arc::clone(&knobs));
        Self {
            knobs,
            url: serve(router).await,
        }
    }

    pub(crate) fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap()
    }

    /// Progress calls that settle, in order.
    pub(crate) fn settlements(&self) -> Vec<Call> {
        self.knobs()
            .calls
            .iter()
            .filter(|call| call.settles())
            .cloned()
            .collect()
    }

    /// The one settlement that took effect.
    pub(crate) fn verdict(&self) -> Call {
        let accepted: Vec<Call> = self
            .settlements()
            .into_iter()
            .filter(|call| call.answer == 200)
            .collect();
        assert_eq!(accepted.len(), 1, "{accepted:#?}");
        accepted[0].clone()
    }
}

/// Where the product is called for an installation on Forge.
pub(crate) const PRODUCT_API: &str = "/ex/jira/site";

async fn answer(State(knobs): Shared, Json(body): Json<Value>) -> StatusCode {
    knobs.lock().unwrap().answers.push(body);
    StatusCode::OK
}

async fn write_to_jira(
    State(knobs): Shared,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let mut knobs = knobs.lock().unwrap();
    if uri.path().starts_with(PRODUCT_API) {
        assert_eq!(header("authorization"), "Bearer system-token");
    } else {
        assert!(header("authorization").starts_with("JWT "));
    }
    let transfer = header("atlassian-transfer-id");
    if !knobs.active.contains_key(&transfer) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(status) = knobs.next_writes.pop_front() {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [("retry-after", "30")]).into_response();
    }
    let (_, operation) = uri.path().rsplit_once("/migration/").unwrap();
    knobs.writes.push((operation.to_owned(), transfer, body));
    StatusCode::OK.into_response()
}

type Shared = State<Arc<Mutex<Knobs>>>;

async fn progress(State(knobs): Shared, Path(id): Path<String>, body: String) -> Response {
    let mut knobs = knobs.lock().unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let status = body["status"].as_str().unwrap().to_owned();
    let percent = body["percent"].as_u64();
    let answer = match knobs.next_answers.pop_front() {
        Some(answer) => answer,
        None if !knobs.active.contains_key(&id) => 403,
        None => 200,
    };
    if knobs.refuses_tokens {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let counts = knobs.counting.admits(percent);
    if answer == 200 && status != "IN_PROGRESS" && counts {
        knobs.active.remove(&id);
    }
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    knobs.calls.push(Call {
        transfer: id,
        status,
        percent,
        message,
        answer,
    });
    (StatusCode::from_u16(answer).unwrap(), body.to_string()).into_response()
}

async fn recent(State(knobs): Shared) -> Response {
    let knobs = knobs.lock().unwrap();
    if knobs.refuses_tokens {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let details = json!({ "jiraClientKey": knobs.listed_as, "confluenceClientKey": "unknown" });
    let listed: Vec<Value> = knobs
        .active
        .iter()
        .filter(|_| !knobs.lists_nothing)
        .map(|(id, status)| json!({ "transferId": id, "status": status, "migrationDetails": details }))
        .collect();
    axum::Json(listed).into_response()
}

async fn list(State(knobs): Shared, Path(id): Path<String>) -> Response {
    let knobs = knobs.lock().unwrap();
    if !knobs.active.contains_key(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let files: Vec<Value> = knobs
        .files
        .get(&id)
        .into_iter()
        .flatten()
        .map(|(key, label)| json!({ "s3Key": key, "key": key, "label": label }))
        .collect();
    axum::Json(files).into_response()
}

async fn signed_url(
    State(knobs): Shared,
    Path(key): Path<String>,
    headers: axum::http::HeaderMap,
) -> Response {
    if !knobs.lock().unwrap().contents.contains_key(&key) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let host = headers["host"].to_str().unwrap();
    axum::Json(json!({ "url": format!("http://{host}/store/{key}?signature=canary") }))
        .into_response()
}

async fn mappings(State(knobs): Shared, body: String) -> Response {
    let forgotten = knobs.lock().unwrap().forgotten.clone();
    let keys: Vec<String> = serde_json::from_str(&body).unwrap();
    let known = keys.into_iter().filter_map(|key| {
        let user = key.strip_prefix("jira.userkey/").unwrap_or(&key);
        let cloud_id = (!user.starts_with("hole")
            && !forgotten.iter().any(|name| user.starts_with(name)))
        .then(|| format!("cloud-{user}"))?;
        Some((key, cloud_id))
    });
    axum::Json(known.collect::<HashMap<_, _>>()).into_response()
}

/// Two projects a page.
async fn containers(State(knobs): Shared, Path(id): Path<String>, uri: Uri) -> Response {
    let mut knobs = knobs.lock().unwrap();
    knobs.container_calls.push(uri.to_string());
    if !knobs.active.contains_key(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(status) = knobs.next_containers.pop_front() {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let query = uri.query().unwrap();
    let after: usize = match query.split_once("lastEntity=") {
        Some((_, after)) => after.parse().unwrap(),
        None => 0,
    };
    let projects: &[u32] = if query.contains("containerType=JiraProject") {
        &knobs.projects[after..]
    } else {
        &[]
    };
    let page = projects.iter().take(2);
    let container =
        |id| json!({ "type": "JiraProject", "key": format!("KEY{id}"), "sourceId": id });
    let containers = if uri.path().starts_with("/forge/") {
        page.map(container).collect()
    } else {
        let entries = page.map(|id| (format!("entry-{id}"), container(id)));
        Value::Object(entries.collect())
    };
    let meta = json!({ "hasNext": projects.len() > 2, "lastEntity": (after + 2).to_string() });
    axum::Json(json!({ "containers": containers, "meta": meta })).into_response()
}

async fn listener_error(State(knobs): Shared) -> Response {
    match &knobs.lock().unwrap().exception {
        Some(class) => {
            axum::Json(json!({ "exceptionType": class, "safeStackTrace": "…" })).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn content(State(knobs): Shared, Path(key): Path<String>) -> Response {
    let knobs = knobs.lock().unwrap();
    if knobs.store_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    knobs.contents.get(&key).cloned().map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        IntoResponse::into_response,
    )
}
