use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use landfall_models::{Call, Fate, TableModel, Weather, vault};
use landfall_platform::connect::client::ServerError;
use landfall_transfer::Cause;

use super::*;

/// A platform in memory, which answers every progress call alike.
#[derive(Debug)]
struct Memory {
    answer: Result<(), CallError>,
    sent: Mutex<Vec<Progress>>,
}

impl Api for Memory {
    fn send_progress<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        progress: &'call Progress,
    ) -> BoxFuture<'call, Result<(), CallError>> {
        async move {
            self.sent.lock().unwrap().push(progress.clone());
            self.answer.clone()
        }
        .boxed()
    }

    fn recent<'call>(&'call self, _: &'call Tenant) -> BoxFuture<'call, Result<Recent, CallError>> {
        ready(Err(CallError::Unauthorized)).boxed()
    }

    fn file_list<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
    ) -> BoxFuture<'call, Result<Vec<ListedFile>, CallError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn signed_url<'call>(
        &'call self,
        tenant: &'call Tenant,
        s3_key: &'call str,
    ) -> BoxFuture<'call, Result<SignedUrl, CallError>> {
        let url = format!("memory:{}/{s3_key}", tenant.id);
        ready(Ok(SignedUrl::new(&url))).boxed()
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
        ready(Err(CallError::Unauthorized)).boxed()
    }

    fn container_page<'call>(
        &'call self,
        _: &'call Tenant,
        _: &'call TransferId,
        _: &'call str,
        _: Option<&'call str>,
    ) -> BoxFuture<'call, Result<Page<String>, CallError>> {
        ready(Err(CallError::Unauthorized)).boxed()
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
        url: &'call SignedUrl,
        from: u64,
    ) -> BoxFuture<'call, Result<Opened, DownloadError>> {
        let content = Bytes::copy_from_slice(url.expose().as_bytes());
        let opened = Opened {
            starts_at: from,
            size: Some(content.len() as u64),
            content: stream::iter([Ok(content.slice(usize::try_from(from).unwrap()..))]).boxed(),
        };
        ready(Ok(opened)).boxed()
    }
}

fn site(answer: Result<(), CallError>, installed: bool) -> (Arc<Memory>, Site) {
    let memory = Arc::new(Memory {
        answer,
        sent: Mutex::default(),
    });
    let clock = Clock::manual(START);
    let table = TableModel::new(clock.clone());
    let site = worker(&memory, &table, &clock);
    (memory, Site { installed, ..site })
}

const START: Timestamp = Timestamp::from_millis(1_763_769_600_000);

const OUTAGE_MAX: Duration = Duration::from_mins(5);

/// A site as a worker has it that shares nothing with others but the table.
fn worker(memory: &Arc<Memory>, table: &TableModel, clock: &Clock) -> Site {
    let store = Store::new(Arc::new(table.clone()), vault(), clock.clone());
    let patience = Duration::from_secs(10);
    let governor = Governor::new(store, clock.clone(), patience, OUTAGE_MAX);
    let id = TenantId::new("tenant");
    Site {
        api: Arc::<Memory>::clone(memory),
        looked: at_once(governor.look(&id)),
        governor: Arc::new(governor),
        tenant: Tenant {
            id,
            base_url: "https://site.example.com".parse().unwrap(),
            product_api: Err(NoProductApi::Unknown),
            credential: "secret".into(),
        },
        installed: true,
        patient_until: Timestamp::default(),
        pressing: false,
    }
}

/// Ends a future that needs nothing but to be polled: no runtime is at hand.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}

fn settled(answer: Result<(), CallError>, installed: bool) -> Result<Answer, CallError> {
    let (memory, site) = site(answer, installed);
    let verdict = Verdict {
        status: Status::Failed,
        cause: Cause::Deadline,
        message: "why".to_owned(),
        decided_at: Timestamp::from_millis(0),
    };
    let answer = at_once(site.settle(&TransferId::new("t"), &verdict, Some(100)));
    let sent = Progress {
        status: Sent::Failed,
        percent: Some(100),
        message: Some("why".to_owned()),
    };
    assert_eq!(*memory.sent.lock().unwrap(), [sent]);
    answer
}

#[test]
fn what_a_settlement_came_to_is_read_alike_of_every_platform() {
    let server = CallError::Server {
        status: 503,
        retry_after: None,
    };
    let lost = CallError::Unknown {
        reason: "cut".to_owned(),
    };
    assert_eq!(settled(Ok(()), true), Ok(Answer::Accepted));
    for unknown in [server, lost] {
        let answer = settled(Err(unknown), true);
        assert_eq!(answer, Ok(Answer::Unknown { retry_after: None }));
    }
    let not_taken = Answer::NotTaken { retry_after: None };
    assert_eq!(
        settled(Err(CallError::Unauthorized), true),
        Ok(not_taken),
        "its secret may be a newer one"
    );
    assert_eq!(
        settled(Err(CallError::Unauthorized), false),
        Err(CallError::Unauthorized),
        "nobody will ever speak to it again"
    );
}

#[test]
fn a_file_is_fetched_from_a_platform_that_has_no_network() {
    let (_, site) = site(Ok(()), true);
    let url = at_once(site.signed_url("key")).unwrap();
    let opened = at_once(site.open(&url, 7)).unwrap();
    assert_eq!((opened.starts_at, opened.size), (7, Some(17)));
    let content: Vec<_> = at_once(opened.content.collect());
    assert_eq!(content, [Ok(Bytes::from_static(b"tenant/key"))]);
    assert!(
        !format!("{url:?}").contains("key"),
        "it never prints itself"
    );
}

const THROTTLED: CallError = CallError::Throttled {
    retry_after: Some(Duration::from_secs(30)),
};

fn throttling() -> Arc<Memory> {
    Arc::new(Memory {
        answer: Err(THROTTLED),
        sent: Mutex::default(),
    })
}

fn report(site: &Site) -> Result<(), CallError> {
    let report = Report {
        percent: 7,
        message: String::new(),
    };
    at_once(site.report(&TransferId::new("t"), &report))
}

fn asked_to_wait(outcome: Result<(), CallError>) -> u64 {
    match outcome {
        Err(CallError::Throttled {
            retry_after: Some(rest),
        }) => rest.as_secs(),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_pause_that_one_worker_was_told_stops_every_call_of_all_others_until_it_is_over() {
    let clock = Clock::manual(START);
    let (memory, table) = (throttling(), TableModel::new(clock.clone()));
    let told = worker(&memory, &table, &clock);
    let busy = worker(&memory, &table, &clock);
    assert!(
        at_once(busy.signed_url("key")).is_ok(),
        "it has taken a lot"
    );
    assert_eq!(asked_to_wait(report(&told)), 30);
    assert_eq!(memory.sent.lock().unwrap().len(), 1);

    let other = worker(&memory, &table, &clock);
    for site in [&told, &busy, &other] {
        assert!((29..=30).contains(&asked_to_wait(at_once(site.signed_url("key")).map(drop))));
    }
    for site in [&told, &other] {
        assert!((29..=30).contains(&asked_to_wait(report(site))));
    }
    assert_eq!(memory.sent.lock().unwrap().len(), 1, "none of it was sent");
    clock.advance(Duration::from_secs(31));
    let other = worker(&memory, &table, &clock);
    assert!(at_once(other.signed_url("key")).is_ok());
    assert_eq!(asked_to_wait(report(&other)), 30);
    assert_eq!(memory.sent.lock().unwrap().len(), 2);
}

#[test]
fn what_was_looked_up_long_ago_is_looked_up_again_before_a_report() {
    let clock = Clock::manual(START);
    let (memory, table) = (throttling(), TableModel::new(clock.clone()));
    let early = worker(&memory, &table, &clock);
    clock.advance(Duration::from_secs(1));
    assert_eq!(asked_to_wait(report(&worker(&memory, &table, &clock))), 30);
    assert_eq!(asked_to_wait(report(&early)), 30);
    assert_eq!(memory.sent.lock().unwrap().len(), 1);
}

#[test]
fn no_import_keeps_a_report_waiting() {
    let (memory, site) = site(Ok(()), true);
    let urls = (0..1_000).map(|_| at_once(site.signed_url("key")));
    let made = urls.take_while(Result::is_ok).count();
    assert!((10..200).contains(&made), "{made} calls at once");
    assert_eq!(report(&site), Ok(()));
    assert_eq!(memory.sent.lock().unwrap().len(), 1);
}

#[test]
fn a_worker_whose_clock_is_ahead_puts_nobody_off_longer_than_they_can_wait() {
    for ahead in [6, 20, 60] {
        let clock = Clock::manual(START);
        let early = Clock::manual(START + Duration::from_secs(ahead));
        let (memory, table) = (throttling(), TableModel::new(clock.clone()));
        let wrong = worker(&memory, &table, &early);
        let made = (0..40).map(|_| at_once(wrong.signed_url("key")));
        assert!(made.take_while(Result::is_ok).count() >= 10);
        let right = worker(&memory, &table, &clock);
        assert!(
            at_once(right.signed_url("key")).is_ok(),
            "it is {ahead} s ahead"
        );
    }
}

#[test]
fn only_a_settlement_that_presses_is_sent_within_a_pause() {
    let clock = Clock::manual(START);
    let (memory, table) = (throttling(), TableModel::new(clock.clone()));
    assert_eq!(asked_to_wait(report(&worker(&memory, &table, &clock))), 30);
    let verdict = Verdict {
        status: Status::Failed,
        cause: Cause::Cancelled,
        message: String::new(),
        decided_at: START,
    };
    for pressing in [false, true] {
        let site = worker(&memory, &table, &clock).pressing(pressing);
        let answer = at_once(site.settle(&TransferId::new("t"), &verdict, None));
        assert!(matches!(answer, Ok(Answer::NotTaken { .. })), "{answer:?}");
        let sent = memory.sent.lock().unwrap().len();
        assert_eq!(sent, 1 + usize::from(pressing));
    }
    // Whatever presses, its answer is everybody's.
    clock.advance(Duration::from_secs(29));
    let site = worker(&memory, &table, &clock).pressing(true);
    assert!(at_once(site.settle(&TransferId::new("t"), &verdict, None)).is_ok());
    clock.advance(Duration::from_secs(5));
    assert!(asked_to_wait(report(&worker(&memory, &table, &clock))) >= 24);
}

#[test]
fn what_a_503_guesses_stops_nobody_longer_than_five_minutes_and_what_a_429_asks_for_does() {
    let hour = Some(Duration::from_hours(1));
    let unavailable = CallError::Server {
        status: 503,
        retry_after: hour,
    };
    for (answer, kept_for) in [
        (unavailable, OUTAGE_MAX),
        (
            CallError::Throttled { retry_after: hour },
            Duration::from_hours(1),
        ),
    ] {
        let clock = Clock::manual(START);
        let (_, told) = site(Err(answer), true);
        let (memory, table) = (site(Ok(()), true).0, TableModel::new(clock.clone()));
        let told = Site {
            governor: worker(&memory, &table, &clock).governor,
            ..told
        };
        assert_eq!(report(&told).unwrap_err().retry_after(), Some(kept_for));
        let other = worker(&memory, &table, &clock);
        assert!(asked_to_wait(report(&other)) >= kept_for.as_secs());
        clock.advance(kept_for + Duration::from_secs(1));
        assert_eq!(report(&worker(&memory, &table, &clock)), Ok(()));
    }
}

/// No call to the table succeeds.
#[derive(Debug)]
struct Outage;

impl Weather for Outage {
    fn before<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Fate> {
        ready(Fate::Throttled).boxed()
    }

    fn after<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }
}

#[test]
fn without_the_table_a_worker_calls_slowly_and_keeps_to_what_it_was_told() {
    let clock = Clock::manual(START);
    let table = TableModel::under(Arc::new(Outage), clock.clone());
    let (calm, busy) = (site(Ok(()), true).0, throttling());
    let site = worker(&calm, &table, &clock);
    assert!(at_once(site.signed_url("key")).is_ok());
    assert_eq!(
        asked_to_wait(at_once(site.signed_url("key")).map(drop)),
        0,
        "a part of a second"
    );
    assert_eq!(report(&site), Ok(()));
    let site = worker(&busy, &table, &clock);
    assert_eq!(asked_to_wait(report(&site)), 30);
    assert!(asked_to_wait(report(&site)) >= 29);
    assert_eq!(busy.sent.lock().unwrap().len(), 1);
}
