//! A transfer on Forge from its first event to its last answer, minute by minute, with everything dying once at every half of every call.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending, ready};
use landfall_models::{Call, Fate, QueueModel, TableModel, Weather, vault};
use landfall_platform::connect::client::{ListedFile, Page, Progress, Recent, ServerError};
use landfall_platform::downloads::{DownloadError, SignedUrl};
use landfall_runtime::{Clock, Configuration, Environment};
use landfall_tracking::{Claim, Ending, Queue, SecretKey, Store, SystemToken, Vault};
use landfall_transfer::clocks::platform::FORGE_MESSAGE_WINDOW;
use landfall_transfer::timeline::Actor;
use landfall_transfer::{Cause, Counts, FileOutcome};
use serde_json::json;

use super::*;
use crate::platform::{Api, Opened, Platform, Tenant};

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const TENANT: &str = "ari:cloud:ecosystem::installation/one";
const TRANSFER: &str = "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001";

fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

/// Whoever works dies at one half of a call, counted over the table and the platform, or meets one answer that gets lost.
#[derive(Debug, Default)]
struct Death {
    at: Option<usize>,
    halves: AtomicUsize,
    /// The rows that somebody wanted to write, outside of transactions.
    writes: Mutex<Vec<String>>,
}

impl Death {
    fn is_now(&self) -> bool {
        self.at == Some(self.halves.fetch_add(1, Ordering::Relaxed))
    }

    fn half(&self) -> BoxFuture<'_, ()> {
        if self.is_now() {
            pending().boxed()
        } else {
            ready(()).boxed()
        }
    }
}

impl Weather for Death {
    fn before<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        if call.operation == "write" {
            self.writes.lock().unwrap().push(call.subject.clone());
        }
        self.half().map(|()| Fate::Works).boxed()
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        self.half()
    }
}

/// The platform as it reads its own rule most strictly: an answer `FAILED` and a late answer carry nothing.
#[derive(Debug)]
struct Strict {
    death: Arc<Death>,
    clock: Clock,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Each message's answer, and when it came.
    answers: BTreeMap<String, (MessageOutcome, Timestamp)>,
    lines: Vec<String>,
    /// Answers that contradict an earlier one.
    contradictions: Vec<String>,
    /// Since when an answer is wanted, and the longest time that one was.
    since: Option<Timestamp>,
    longest: Duration,
    settled: bool,
    /// Messages that it doesn't know.
    unknown: Vec<String>,
    /// Whether every answer gets lost on its way back.
    answers_get_lost: bool,
}

const SETTLED: CallError = CallError::Refused {
    status: 409,
    kind: Refusal::Settled,
    says_settled: true,
};

impl Api for Strict {
    fn answer_messages<'call>(
        &'call self,
        tenant: &'call Tenant,
        _: &'call TransferId,
        outcome: MessageOutcome,
        messages: &'call [String],
    ) -> BoxFuture<'call, Result<(), CallError>> {
        assert_eq!(tenant.id.as_str(), TENANT);
        async move {
            self.death.half().await;
            let now = self.clock.now();
            let answer = {
                let mut seen = self.seen.lock().unwrap();
                if seen.settled {
                    Err(SETTLED)
                } else if messages.iter().any(|id| seen.unknown.contains(id)) {
                    Err(CallError::Refused {
                        status: 400,
                        kind: Refusal::BadRequest,
                        says_settled: false,
                    })
                } else {
                    for id in messages {
                        let (first, _) = *seen.answers.entry(id.clone()).or_insert((outcome, now));
                        if first != outcome {
                            seen.contradictions.push(id.clone());
                        }
                    }
                    if let (MessageOutcome::Success, Some(since)) = (outcome, seen.since) {
                        seen.longest = seen.longest.max(now.since(since));
                        seen.since = Some(now);
                    }
                    Ok(())
                }
            };
            self.death.half().await;
            if self.seen.lock().unwrap().answers_get_lost {
                let reason = "cut".to_owned();
                return Err(CallError::Unknown { reason });
            }
            answer
        }
        .boxed()
    }

    fn add_log<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        line: &'call str,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        self.seen.lock().unwrap().lines.push(line.to_owned());
        ready(Ok(())).boxed()
    }

    fn file_list<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        let settled = self.seen.lock().unwrap().settled;
        ready(if settled {
            Err(SETTLED)
        } else {
            Ok(Vec::new())
        })
        .boxed()
    }

    fn send_progress<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        _: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        panic!("Forge takes no progress")
    }

    fn recent<'call>(&'call self, _: &'call Tenant) -> BoxFuture<'call, Result<Recent, CallError>> {
        panic!("Forge has no list of active transfers")
    }

    fn signed_url<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        panic!("no file is fetched here")
    }

    fn find_mappings<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        _: &'call str,
        _: &'call [String],
    ) -> BoxFuture<'call, Result<HashMap<String, String>, CallError>> {
        ready(Ok(HashMap::new())).boxed()
    }

    fn mapping_page<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        _: &'call str,
        _: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<(String, String)>, CallError>> {
        panic!("no mappings are asked for here")
    }

    fn container_page<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        _: &'call str,
        _: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>> {
        panic!("no containers are asked for here")
    }

    fn server_error<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
    ) -> BoxFuture<'call, Result<Option<ServerError>, CallError>> {
        ready(Ok(None)).boxed()
    }

    fn open<'call>(
        &'call self,
        _: &'call SignedUrl,
        _: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        panic!("no file is opened here")
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Act {
    /// An event is taken in.
    Event(String),
    /// A worker imports a file whole; so many of its records are rejected.
    Import(&'static str, u64),
    /// A sweep.
    Drive,
}

fn event(kind: &str, more: &serde_json::Value) -> Act {
    let mut event = json!({
        "eventType": format!("avi:ecosystem.migration:{kind}"),
        "transferId": TRANSFER,
        "messageId": format!("message-of-{kind}"),
        "migrationDetails": {
            "migrationId": "9b4f1c66-0000-4000-8000-000000000001",
            "migrationScopeId": "c2f6b0aa-0000-4000-8000-000000000001",
            "createdAt": START.as_millis(),
            "cloudUrl": "https://example-site.atlassian.net",
            "name": "Wave 1"
        }
    });
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    Act::Event(event.to_string())
}

fn uploaded(key: &str) -> Act {
    event(
        "uploaded:app_data",
        &json!({"key": key, "label": key, "messageId": message(key)}),
    )
}

fn message(key: &str) -> String {
    format!("message-of-{key}")
}

fn export_complete() -> Act {
    event("completed:export_phase", &json!({}))
}

struct Run {
    clock: Clock,
    death: Arc<Death>,
    platform: Arc<Strict>,
    lifecycle: Lifecycle,
    minute: u64,
}

impl Run {
    fn new(death: Death) -> Self {
        Self::with_token_of(death, vault())
    }

    fn with_token_of(death: Death, token_vault: Arc<Vault>) -> Self {
        let clock = Clock::manual(START);
        let death = Arc::new(death);
        let platform = Arc::new(Strict {
            death: Arc::clone(&death),
            clock: clock.clone(),
            seen: Mutex::default(),
        });
        let weather: Arc<dyn Weather> = Arc::<Death>::clone(&death);
        let table = TableModel::new(clock.clone());
        let calm = Store::new(Arc::new(table.clone()), token_vault, clock.clone());
        let configuration = Arc::new(configuration());
        let token = SystemToken {
            good_until: START + Duration::from_hours(4),
            ..token()
        };
        let tenant = tenant();
        let kept = calm.keep_token(&tenant, &token);
        assert!(at_once(kept).unwrap().unwrap());
        let store = Store::new(Arc::new(table.seen_by(weather)), vault(), clock.clone());
        let api: Arc<dyn Api> = Arc::<Strict>::clone(&platform);
        let lifecycle = Lifecycle::new(
            Actor::Sweeper,
            store,
            Queue::new(Arc::new(QueueModel::new("imports", clock.clone()))),
            Platform::over(api, &configuration),
            configuration,
            clock.clone(),
        );
        Self {
            clock,
            death,
            platform,
            lifecycle,
            minute: 0,
        }
    }

    /// Does it; whether it came to its end.
    fn act(&self, act: &Act) -> bool {
        let tenant = tenant();
        match act {
            Act::Event(body) => {
                let received = START + minutes(self.minute);
                let taken = self.lifecycle.take_event(&tenant, body, received);
                done(at_once(taken))
            }
            Act::Import(key, rejected) => {
                let id = TransferId::new(TRANSFER);
                let (store, now) = (self.lifecycle.store(), self.clock.now());
                let clocks = &self.lifecycle.configuration().clocks;
                let lease = minutes(1);
                let imported = async {
                    let claim = store.claim(&tenant, &id, key, "worker", lease, now).await?;
                    if let Claim::Ended(file) = &claim {
                        self.lifecycle.ended_before(file).await?;
                    }
                    if let Claim::Claimed(claimed) = claim {
                        let counts = Counts {
                            read: 10,
                            applied: 10 - rejected,
                            rejected: *rejected,
                            ..Counts::default()
                        };
                        let ending = Ending::new(FileOutcome::Imported, counts);
                        store.end(&claimed.lease, &ending, now, clocks).await?;
                        self.lifecycle
                            .file_ended(&claimed.file, &ending.outcome)
                            .await?;
                    }
                    Ok(())
                };
                done(at_once(imported))
            }
            Act::Drive => {
                let id = TransferId::new(TRANSFER);
                done(at_once(self.lifecycle.drive(&tenant, &id)))
            }
        }
    }

    /// Each act in its minute, a sweep at the end of each, and what somebody died at again in the next one.
    fn go(&mut self, acts: &[(u64, Act)], until: u64) {
        self.go_from(0, acts, until);
    }

    fn go_from(&mut self, from: u64, acts: &[(u64, Act)], until: u64) {
        let mut again = Vec::new();
        for minute in from..=until {
            self.minute = minute;
            let due = acts.iter().filter(|(at, _)| *at == minute);
            let all = again.drain(..).chain(due.map(|(_, act)| act.clone()));
            let all: Vec<Act> = all.chain([Act::Drive]).collect();
            for act in all {
                if matches!(&act, Act::Event(body) if body.contains("uploaded")) {
                    let mut seen = self.platform.seen.lock().unwrap();
                    seen.since.get_or_insert(START + minutes(minute));
                }
                if !self.act(&act) && !matches!(act, Act::Drive) {
                    again.push(act);
                }
            }
            self.clock.advance(minutes(1));
        }
    }

    fn ended(&self) -> (String, Cause, u64) {
        let id = TransferId::new(TRANSFER);
        let stored = at_once(self.lifecycle.store().transfer(&tenant(), &id));
        let transfer = stored.unwrap().unwrap().unwrap().transfer;
        let Phase::Settled(settled) = &transfer.phase else {
            panic!("{:?}", transfer.phase)
        };
        let minute = settled.at.since(START).as_secs() / 60;
        let cause = settled.verdict.as_ref().unwrap().cause;
        (settled.status.clone().unwrap_or_default(), cause, minute)
    }

    /// What must hold whatever happened.
    fn check(&self) {
        let seen = self.platform.seen.lock().unwrap();
        assert_eq!(seen.contradictions, Vec::<String>::new());
        assert!(seen.longest < FORGE_MESSAGE_WINDOW, "{:?}", seen.longest);
    }

    fn answers(&self) -> BTreeMap<String, (MessageOutcome, u64)> {
        let seen = self.platform.seen.lock().unwrap();
        let minute = |at: Timestamp| at.since(START).as_secs() / 60;
        seen.answers
            .iter()
            .map(|(id, (outcome, at))| (id.clone(), (*outcome, minute(*at))))
            .collect()
    }
}

fn done<T>(outcome: Option<Result<T, Error>>) -> bool {
    match outcome {
        None => false,
        Some(Ok(_)) => true,
        Some(Err(error)) => panic!("{error}"),
    }
}

/// The output of a future that waits for nothing; none when it died.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn tenant() -> TenantId {
    TenantId::new(TENANT)
}

fn token() -> SystemToken {
    SystemToken {
        token: "token".into(),
        good_until: START,
        heard_at: Some(START),
        product_api: None,
    }
}

fn configuration() -> Configuration {
    let environment = Environment::read(|name| match name {
        "LANDFALL_SECRET_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        "LANDFALL_CONFIG"
        | "LANDFALL_APP_BASE_URL"
        | "LANDFALL_SINK_SECRET"
        | "LANDFALL_SINK_BUCKET"
        | "LAMBDA_TASK_ROOT" => None,
        _ => Some("set".to_owned()),
    });
    let text = "version = 1\n[app]\nkey = \"com.example.vault.cloud\"\nbase_url = \"https://app.example.com\"\n\
                [forge]\napp = \"ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001\"\n\
                [[imports]]\nlabel = \"*\"\nnatural_key = \"/id\"\n";
    Configuration::parse(text, environment.unwrap()).unwrap()
}

/// Two short files carry a long one of forty minutes; the export is complete early.
fn long_one() -> Vec<(u64, Act)> {
    vec![
        (0, event("triggered:listener", &json!({}))),
        (0, uploaded("long")),
        (1, uploaded("one")),
        (1, uploaded("two")),
        (2, uploaded("three")),
        (3, Act::Import("one", 0)),
        (4, Act::Import("two", 0)),
        (5, export_complete()),
        (5, Act::Import("three", 0)),
        (40, Act::Import("long", 0)),
    ]
}

#[test]
fn short_files_carry_a_long_one_and_every_message_is_answered_once() {
    let mut run = Run::new(Death::default());
    run.go(&long_one(), 45);
    run.check();
    let answers = run.answers();
    let carried: Vec<u64> = ["one", "two", "three"]
        .map(|key| answers[&message(key)].1)
        .into();
    let mut sorted = carried.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [12, 24, 36], "{carried:?}");
    assert_eq!(
        answers[&message("long")],
        (MessageOutcome::Success, 40),
        "with the verdict"
    );
    assert_eq!(run.ended(), ("SUCCESS".to_owned(), Cause::Complete, 40));
}

#[test]
fn whoever_dies_at_whichever_half_of_a_call_every_window_is_kept_and_no_answer_changes() {
    let undisturbed = {
        let mut run = Run::new(Death::default());
        run.go(&long_one(), 45);
        run.death.halves.load(Ordering::Relaxed)
    };
    for at in 0..undisturbed {
        let mut run = Run::new(Death {
            at: Some(at),
            ..Death::default()
        });
        run.go(&long_one(), 60);
        run.check();
        let (status, cause, minute) = run.ended();
        assert_eq!(
            (status.as_str(), cause),
            ("SUCCESS", Cause::Complete),
            "{at}"
        );
        assert!(minute <= 50, "half {at}: settled in minute {minute}");
        assert_eq!(run.answers().len(), 4, "{at}");
    }
}

#[test]
fn answers_that_get_lost_are_repeated_alike_and_counted_once() {
    let mut run = Run::new(Death::default());
    run.platform.seen.lock().unwrap().answers_get_lost = true;
    run.go(&long_one(), 13);
    assert_eq!(run.answers().len(), 1, "the same message again and again");
    run.platform.seen.lock().unwrap().answers_get_lost = false;
    let rest: Vec<_> = (0..31).map(|minute| (minute, Act::Drive)).collect();
    run.go(&rest, 20);
    run.check();
    let id = TransferId::new(TRANSFER);
    let stored = at_once(run.lifecycle.store().transfer(&tenant(), &id));
    let messages = stored.unwrap().unwrap().unwrap().transfer.messages.unwrap();
    assert_eq!(messages.succeeded, run.answers().len() as u64);
}

#[test]
fn a_file_that_nothing_carries_is_answered_failed_before_its_window_ends_and_the_admin_is_told_before()
 {
    let mut run = Run::new(Death::default());
    run.go(&[(0, uploaded("long")), (1, export_complete())], 20);
    assert_eq!(
        run.answers()[&message("long")],
        (MessageOutcome::Failed, 12)
    );
    assert_eq!(run.ended(), ("FAILED".to_owned(), Cause::Unanswered, 12));
    let lines = run.platform.seen.lock().unwrap().lines.clone();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("smaller export files"), "{lines:?}");
    assert!(lines[1].contains("Re-run"), "{lines:?}");
}

/// Two of three files, whose labels say so, and nothing after them.
fn two_of_three() -> Vec<(u64, Act)> {
    vec![
        (0, event("triggered:listener", &json!({}))),
        (0, uploaded("cards-1-of-3.ndjson")),
        (1, uploaded("cards-2-of-3.ndjson")),
        (2, Act::Import("cards-1-of-3.ndjson", 0)),
        (2, Act::Import("cards-2-of-3.ndjson", 0)),
    ]
}

#[test]
fn an_export_that_falls_silent_with_files_to_come_is_failed_with_its_last_message() {
    let mut run = Run::new(Death::default());
    run.go(&two_of_three(), 30);
    run.check();
    let answers: Vec<_> = run.answers().into_values().collect();
    assert_eq!(answers.len(), 2);
    assert!(
        answers.contains(&(MessageOutcome::Success, 12)),
        "{answers:?}"
    );
    assert!(
        answers.contains(&(MessageOutcome::Failed, 24)),
        "{answers:?}"
    );
    assert_eq!(
        run.ended(),
        ("FAILED".to_owned(), Cause::ExporterSilent, 24)
    );
    let lines = run.platform.seen.lock().unwrap().lines.clone();
    assert!(
        lines.last().unwrap().contains("1 of 3 files of cards"),
        "{lines:?}"
    );
}

#[test]
fn a_single_file_of_several_is_no_migration_however_late_a_worker_came_to_it() {
    let mut run = Run::new(Death::default());
    let acts = [
        (0, uploaded("cards-1-of-3.ndjson")),
        (5, Act::Import("cards-1-of-3.ndjson", 0)),
    ];
    run.go(&acts, 15);
    let answers: Vec<_> = run.answers().into_values().collect();
    assert_eq!(answers[..], [(MessageOutcome::Failed, 12)]);
    let (status, cause, _) = run.ended();
    assert_eq!((status.as_str(), cause), ("FAILED", Cause::ExporterSilent));
}

#[test]
fn whoever_dies_while_an_export_falls_silent_its_last_message_says_failed() {
    let undisturbed = {
        let mut run = Run::new(Death::default());
        run.go(&two_of_three(), 30);
        run.death.halves.load(Ordering::Relaxed)
    };
    for at in 0..undisturbed {
        let mut run = Run::new(Death {
            at: Some(at),
            ..Death::default()
        });
        run.go(&two_of_three(), 40);
        run.check();
        let (status, cause, _) = run.ended();
        assert_eq!(
            (status.as_str(), cause),
            ("FAILED", Cause::ExporterSilent),
            "{at}"
        );
        let answers: Vec<_> = run.answers().into_values().collect();
        let failed = |(outcome, _): &&(MessageOutcome, u64)| *outcome == MessageOutcome::Failed;
        assert_eq!(
            answers.iter().filter(failed).count(),
            1,
            "{at}: {answers:?}"
        );
    }
}

#[test]
fn an_export_that_goes_on_is_carried_however_slow_it_is() {
    let mut acts = two_of_three();
    acts.push((20, uploaded("cards-3-of-3.ndjson")));
    acts.push((21, Act::Import("cards-3-of-3.ndjson", 0)));
    let mut run = Run::new(Death::default());
    run.go(&acts, 30);
    let answers: Vec<_> = run.answers().into_values().collect();
    assert_eq!(
        answers[..],
        [(MessageOutcome::Success, 12), (MessageOutcome::Success, 24)]
    );
    acts.push((25, export_complete()));
    let mut run = Run::new(Death::default());
    run.go(&acts, 30);
    run.check();
    assert_eq!(run.ended(), ("SUCCESS".to_owned(), Cause::Complete, 25));
}

#[test]
fn a_file_with_rejected_records_is_answered_failed_after_all_that_are_applied() {
    let mut run = Run::new(Death::default());
    let acts = [
        (0, uploaded("whole")),
        (0, uploaded("gaps")),
        (1, Act::Import("whole", 0)),
        (1, Act::Import("gaps", 3)),
        (2, export_complete()),
    ];
    run.go(&acts, 5);
    let answers = run.answers();
    assert_eq!(answers[&message("whole")].0, MessageOutcome::Success);
    assert_eq!(answers[&message("gaps")].0, MessageOutcome::Failed);
    assert_eq!(run.ended().0, "FAILED");
}

#[test]
fn where_files_never_came_one_message_says_so_although_every_file_that_did_is_applied() {
    let mut run = Run::new(Death::default());
    let acts = [
        (0, uploaded("one")),
        (0, uploaded("two")),
        (1, Act::Import("one", 0)),
        (1, Act::Import("two", 0)),
        (2, event("errored:listener", &json!({}))),
    ];
    run.go(&acts, 5);
    let mut answers: Vec<String> = run
        .answers()
        .values()
        .map(|(outcome, _)| format!("{outcome:?}"))
        .collect();
    answers.sort();
    assert_eq!(answers, ["Failed", "Success"]);
    assert_eq!(run.ended().0, "FAILED");
}

#[test]
fn a_file_that_was_adopted_before_its_event_came_is_answered_all_the_same() {
    let mut run = Run::new(Death::default());
    run.go(&[(0, event("triggered:listener", &json!({})))], 0);
    let listed = landfall_tracking::NewFile {
        tenant: tenant(),
        transfer: TransferId::new(TRANSFER),
        s3_key: "early".to_owned(),
        label: Some("early".to_owned()),
        event: None,
        message_id: None,
        received_at: run.clock.now(),
    };
    let adopted = run.lifecycle.store().announce(&listed, minutes(1));
    assert!(at_once(adopted).unwrap().is_ok());
    let acts = [
        (0, Act::Import("early", 0)),
        (3, uploaded("early")),
        (4, uploaded("early")),
        (5, export_complete()),
    ];
    run.go(&acts, 8);
    assert_eq!(run.answers().len(), 1);
    assert_eq!(run.answers()[&message("early")].0, MessageOutcome::Success);
    assert_eq!(run.ended().0, "SUCCESS");
}

#[test]
fn an_upload_is_taken_in_without_a_put_of_the_row_that_intake_has_stored() {
    let run = Run::new(Death::default());
    let uploads = |key: &str| {
        let puts = run.death.writes.lock().unwrap();
        let row = format!("FILE#{key}");
        puts.iter().filter(|subject| **subject == row).count()
    };
    let stored = landfall_tracking::NewFile {
        tenant: tenant(),
        transfer: TransferId::new(TRANSFER),
        s3_key: "stored".to_owned(),
        label: Some("stored".to_owned()),
        event: None,
        message_id: Some(message("stored")),
        received_at: run.clock.now(),
    };
    let put = run.lifecycle.store().announce(&stored, minutes(1));
    assert!(at_once(put).unwrap().is_ok());
    assert_eq!(uploads("stored"), 1, "intake's");
    assert!(run.act(&uploaded("stored")) && run.act(&uploaded("stored")));
    assert_eq!(uploads("stored"), 1);
    // Of this one only the message survived.
    assert!(run.act(&uploaded("missing")) && run.act(&uploaded("missing")));
    assert_eq!(uploads("missing"), 1);
}

#[test]
fn a_file_is_never_taken_up_on_what_was_read_before_its_message_was_counted_or_could_not_be() {
    // With an id that can be answered, and with one that can't; the second time the file's row is found.
    for id in [message("stored"), String::new()] {
        let run = Run::new(Death::default());
        let more = json!({"key": "stored", "label": "stored", "messageId": id});
        let Act::Event(body) = event("uploaded:app_data", &more) else {
            unreachable!()
        };
        for _ in 0..2 {
            let tenant = tenant();
            let taken = run.lifecycle.take_event(&tenant, &body, run.clock.now());
            let taken = at_once(taken).unwrap().unwrap();
            let is_read_again = matches!(taken, crate::Taken::Import { found: None, .. });
            assert!(is_read_again, "{id:?}: {taken:?}");
        }
    }
}

#[test]
fn a_message_that_the_platform_refuses_keeps_no_other_from_its_answer() {
    let mut run = Run::new(Death::default());
    run.platform.seen.lock().unwrap().unknown = vec![message("two")];
    let acts = [
        (0, uploaded("one")),
        (0, uploaded("two")),
        (0, uploaded("three")),
        (1, Act::Import("one", 0)),
        (1, Act::Import("two", 0)),
        (1, Act::Import("three", 0)),
        (2, export_complete()),
    ];
    run.go(&acts, 3);
    assert_eq!(run.answers().len(), 2);
    run.platform.seen.lock().unwrap().settled = true;
    run.go(&[], 60);
    assert_eq!(run.ended().1, Cause::Complete);
}

#[test]
fn a_file_that_comes_when_all_others_are_answered_is_answered_like_them_and_owed_until_then() {
    let mut run = Run::new(Death::default());
    run.go(&[(0, uploaded("long")), (1, export_complete())], 20);
    assert_eq!(run.ended().0, "FAILED");
    let due = |run: &Run| {
        let id = TransferId::new(TRANSFER);
        let file = at_once(run.lifecycle.store().file(&tenant(), &id, "late"));
        file.unwrap().unwrap().unwrap().state == landfall_tracking::FileState::Announced
    };
    let late = uploaded("late");
    let take = |run: &Run| {
        let Act::Event(body) = &late else {
            unreachable!()
        };
        let tenant = tenant();
        let taken = run.lifecycle.take_event(&tenant, body, run.clock.now());
        at_once(taken).unwrap()
    };
    run.platform.seen.lock().unwrap().answers_get_lost = true;
    assert!(take(&run).is_err_and(|error| error.is_passing()));
    assert!(due(&run), "nobody knows whether it was answered");
    run.platform.seen.lock().unwrap().answers_get_lost = false;
    for _ in 0..2 {
        assert!(take(&run).is_ok());
        assert!(!due(&run));
    }
    assert_eq!(run.answers()[&message("late")].0, MessageOutcome::Failed);
    run.check();
}

#[test]
fn a_transfer_that_the_platform_has_settled_is_over_with_the_first_409() {
    let mut run = Run::new(Death::default());
    run.go(&[(0, uploaded("one")), (1, Act::Import("one", 0))], 2);
    run.platform.seen.lock().unwrap().settled = true;
    run.go(&[], 15);
    let id = TransferId::new(TRANSFER);
    let stored = at_once(run.lifecycle.store().transfer(&tenant(), &id));
    assert!(stored.unwrap().unwrap().unwrap().transfer.is_settled());
}

#[test]
fn without_a_token_a_transfer_waits_says_so_once_and_goes_on_with_the_next_one() {
    let mut run = Run::new(Death::default());
    // The only token has ended an hour before.
    run.clock.advance(Duration::from_hours(5));
    let late = |run: &Run| run.clock.now().since(START).as_secs() / 60;
    let begun = late(&run);
    run.go_from(begun, &[(begun, uploaded("two"))], begun + 7);
    let lines = |run: &Run| {
        let id = TransferId::new(TRANSFER);
        let told = at_once(run.lifecycle.store().timeline(&tenant(), &id));
        let told = told.unwrap().unwrap();
        told.iter()
            .map(|entry| entry.what.kind().to_owned())
            .filter(|kind| kind.starts_with("token"))
            .collect::<Vec<_>>()
    };
    assert!(run.answers().is_empty(), "there is no token for it");
    assert_eq!(lines(&run), ["token_awaited"]);
    let token = SystemToken {
        good_until: run.clock.now() + Duration::from_hours(4),
        ..token()
    };
    let tenant = tenant();
    let kept = run.lifecycle.store().keep_token(&tenant, &token);
    assert!(at_once(kept).unwrap().unwrap());
    let again = late(&run);
    let acts = [(again, Act::Import("two", 0)), (again, export_complete())];
    run.go_from(again, &acts, again + 3);
    assert_eq!(run.answers()[&message("two")].0, MessageOutcome::Success);
    assert_eq!(run.ended().0, "SUCCESS");
    assert_eq!(lines(&run), ["token_awaited", "token_came"]);
}

#[test]
fn a_token_that_cannot_be_read_keeps_no_other_clock_from_its_time() {
    let another = SecretKey::from_base64(&"//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=".into());
    let another = Vault::local(Arc::new(another.unwrap()));
    let mut run = Run::with_token_of(Death::default(), Arc::new(another));
    run.go(&[(0, uploaded("long")), (1, export_complete())], 13);
    assert!(run.answers().is_empty());
    let id = TransferId::new(TRANSFER);
    let stored = at_once(run.lifecycle.store().transfer(&tenant(), &id));
    let transfer = stored.unwrap().unwrap().unwrap().transfer;
    let Phase::Settling(settlement) = &transfer.phase else {
        panic!("{:?}", transfer.phase)
    };
    assert_eq!(settlement.verdict.cause, Cause::Unanswered);
}

#[test]
fn an_installation_that_calls_no_more_is_told_of_once_while_its_last_token_is_still_good() {
    let mut run = Run::new(Death::default());
    // Soon no message is open; the transfer only waits for its exporter.
    run.go(&[(0, uploaded("one")), (1, Act::Import("one", 0))], 175);
    let told = |run: &Run| {
        let id = TransferId::new(TRANSFER);
        let told = at_once(run.lifecycle.store().timeline(&tenant(), &id));
        let told = told.unwrap().unwrap().into_iter();
        told.filter(|entry| entry.what.kind() == "person_needed")
            .map(|entry| (entry.at.since(START).as_secs() / 60, entry.what.to_string()))
            .collect::<Vec<_>>()
    };
    let told_of = told(&run);
    assert_eq!(told_of.len(), 1, "{told_of:?}");
    let (minute, words) = &told_of[0];
    assert!((150..156).contains(minute), "{minute}");
    assert!(words.contains("LF-SILENT-INSTALLATION"), "{words}");
    // Heard again, it is silent no more.
    let token = SystemToken {
        good_until: run.clock.now() + Duration::from_hours(4),
        heard_at: Some(run.clock.now()),
        ..token()
    };
    let tenant = tenant();
    let kept = run.lifecycle.store().keep_token(&tenant, &token);
    assert!(at_once(kept).unwrap().unwrap());
    run.go_from(176, &[], 300);
    assert_eq!(told(&run).len(), 1);
}
