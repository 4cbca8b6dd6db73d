//! A batch's messages, all at once and each kept from the others.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use aws_lambda_events::event::sqs::SqsBatchResponse;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use landfall_lifecycle::Error;

/// Does the work of all messages at once; the answer names those whose work failed or panicked.
///
/// A panic takes neither the batch nor the process along. What it leaves behind is what a crash leaves: stored state, from which
/// somebody goes on. In memory the messages share connections and the mappings that are known, and each change of these is one
/// call under its lock. Dropping the future drops the work of every message, which is a crash likewise.
pub(crate) async fn all_at_once<Work>(
    messages: impl IntoIterator<Item = (String, Work)>,
) -> SqsBatchResponse
where
    Work: Future<Output = Result<(), Error>>,
{
    let work = messages.into_iter().map(|(id, work)| {
        // On the heap: a slice's future is large, and they would all lie in this one.
        let done = Box::pin(AssertUnwindSafe(work).catch_unwind());
        async move { (id, done.await) }
    });
    let mut response = SqsBatchResponse::default();
    for (id, done) in join_all(work).await {
        match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => {
                tracing::warn!(message.id = %id, error = %error, "A message failed; it is delivered again.");
            }
            Err(panic) => {
                tracing::error!(message.id = %id, error = said(&*panic), "A message made the processor panic; it is delivered again.");
            }
        }
        response.add_failure(id);
    }
    response
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[derive(Clone, Copy)]
    enum Message {
        Succeeds,
        Fails,
        Panics,
        Hangs,
    }

    /// Notes that it is dropped, as a lock or a lease would be given back.
    struct Held(Rc<RefCell<Vec<&'static str>>>, &'static str);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }

    /// The ids that failed, once every message has had some turns, and which let go of what they held; none while one still works.
    /// No runtime is at hand.
    fn outcome(
        messages: &[(&'static str, Message)],
    ) -> (Option<Vec<String>>, Vec<&'static str>, Vec<&'static str>) {
        let dropped = Rc::<RefCell<Vec<&str>>>::default();
        let work = messages.iter().map(|&(id, message)| {
            let held = Held(Rc::clone(&dropped), id);
            let work = async move {
                let _held = held;
                yield_once().await;
                match message {
                    Message::Succeeds => Ok(()),
                    Message::Fails => Err(Error::Raced),
                    Message::Panics => panic!("poison in {id}"),
                    Message::Hangs => pending().await,
                }
            };
            (id.to_owned(), work)
        });
        let mut context = Context::from_waker(Waker::noop());
        let (failed, before) = {
            let mut all = pin!(all_at_once(work));
            let mut polls = (0..3).map(|_| all.as_mut().poll(&mut context));
            let failed = polls.find_map(|poll| match poll {
                Poll::Ready(response) => Some(
                    response
                        .batch_item_failures
                        .into_iter()
                        .map(|failure| failure.item_identifier)
                        .collect(),
                ),
                Poll::Pending => None,
            });
            (failed, dropped.borrow().clone())
        };
        let after = dropped.borrow().clone();
        (failed, before, after)
    }

    async fn yield_once() {
        let mut first = true;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    #[test]
    fn a_panic_in_one_message_fails_only_that_message() {
        use Message::{Fails, Panics, Succeeds};
        let (failed, ..) = outcome(&[
            ("first", Succeeds),
            ("poison", Panics),
            ("failing", Fails),
            ("last", Succeeds),
        ]);
        assert_eq!(failed.unwrap(), ["poison", "failing"]);
    }

    #[test]
    fn a_message_that_panics_lets_go_at_once_while_others_still_work() {
        use Message::{Hangs, Panics};
        let (failed, before, after) = outcome(&[("slow", Hangs), ("poison", Panics)]);
        assert_eq!((failed, before), (None, vec!["poison"]));
        assert_eq!(after, ["poison", "slow"]);
    }

    #[test]
    fn what_a_panic_said_is_told_in_either_of_its_forms() {
        for (panics, text) in [
            ((|| panic!("plain")) as fn(), "plain"),
            (|| panic!("with {}", 7), "with 7"),
            (|| std::panic::panic_any(7), "a panic without a text"),
        ] {
            let panic = std::panic::catch_unwind(panics).unwrap_err();
            assert_eq!(said(&*panic), text);
        }
    }
}
