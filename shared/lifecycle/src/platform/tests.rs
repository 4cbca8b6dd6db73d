use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use landfall_platform::connect::client::ServerError;
use landfall_transfer::{Cause, Timestamp};

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
        self.sent.lock().unwrap().push(progress.clone());
        ready(self.answer.clone()).boxed()
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
        let url = format!("memory:{}/{s3_key}", tenant.client_key);
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
    let site = Site {
        api: Arc::<Memory>::clone(&memory),
        tenant: Tenant {
            client_key: "tenant".to_owned(),
            base_url: "https://site.example.com".parse().unwrap(),
            secret: "secret".into(),
        },
        installed,
    };
    (memory, site)
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
