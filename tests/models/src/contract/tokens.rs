use futures_util::FutureExt as _;
use landfall_tracking::{Error, Item, Key, Returning, Store, SystemToken, Value, Write};
use landfall_transfer::clocks::own::FORGE_HEARD_EVERY;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Subject, TenantId, Timestamp, instant, later, tenant};

fn token(text: &str, good_until: Timestamp) -> SystemToken {
    SystemToken {
        token: SecretString::from(text),
        good_until,
        heard_at: Some(later(0)),
        product_api: None,
    }
}

async fn keep(store: &Store, text: &str, good_until: Timestamp) -> Result<bool, Error> {
    store.keep_token(&tenant(), &token(text, good_until)).await
}

fn naming(product_api: &str, token: SystemToken) -> SystemToken {
    SystemToken {
        product_api: Some(product_api.to_owned()),
        ..token
    }
}

impl Subject {
    async fn product_api(&self) -> Option<String> {
        let kept = self.store.token(&tenant()).await.unwrap().unwrap();
        kept.product_api
    }

    async fn token(&self) -> (String, Timestamp) {
        let kept = self.store.token(&tenant()).await.unwrap().unwrap();
        (kept.token.expose_secret().to_owned(), kept.good_until)
    }

    async fn token_row(&self) -> Option<Item> {
        self.row("TENANT#tenant", "TOKEN").await
    }
}

pub(super) async fn an_installation_that_sent_no_token_has_none(subject: &Subject) {
    let none = subject.store.token(&tenant()).await.unwrap();
    assert!(none.is_none());
}

pub(super) async fn a_token_is_kept_sealed_for_its_installation_until_it_ends(subject: &Subject) {
    assert!(keep(&subject.store, "canary", later(90)).await.unwrap());
    assert_eq!(subject.token().await, ("canary".to_owned(), later(90)));
    let row = subject.token_row().await.unwrap();
    assert!(!format!("{row:?}").contains("canary"), "stored in clear");
    assert_eq!(row["expires_at"], Value::Number(later(90).as_seconds()));
    assert!(!row.contains_key("due_at"), "nothing is owed to it");

    let another = TenantId::new("another");
    assert!(subject.store.token(&another).await.unwrap().is_none());
    // Moved to another's row, it opens for nobody.
    let moved = Write::put(Key::new("TENANT#another", "TOKEN"), row);
    subject
        .table
        .write(moved, Returning::Nothing)
        .await
        .unwrap();
    let opened = subject.store.token(&another).await;
    assert!(
        matches!(opened, Err(Error::Unreadable { .. })),
        "{opened:?}"
    );
}

pub(super) async fn of_several_tokens_the_one_that_ends_last_stays_in_whatever_order_they_come(
    subject: &Subject,
) {
    let store = &subject.store;
    assert!(keep(store, "second", later(200)).await.unwrap());
    assert!(!keep(store, "first", later(100)).await.unwrap());
    assert!(!keep(store, "another second", later(200)).await.unwrap());
    assert_eq!(subject.token().await, ("second".to_owned(), later(200)));
    assert!(keep(store, "third", later(300)).await.unwrap());
    assert_eq!(subject.token().await, ("third".to_owned(), later(300)));
}

pub(super) async fn a_token_that_comes_while_another_is_kept_is_written_over_only_by_a_later_one(
    subject: &Subject,
) {
    let racing = |ours_until: Timestamp, theirs_until: Timestamp| async move {
        let store = subject.meddled(move |subject| {
            async move {
                assert!(keep(&subject.store, "theirs", theirs_until).await.unwrap());
            }
            .boxed()
        });
        keep(&store, "ours", ours_until).await.unwrap()
    };
    // The row is new to both; then it is known to both.
    assert!(!racing(later(100), later(200)).await);
    assert_eq!(subject.token().await, ("theirs".to_owned(), later(200)));
    assert!(racing(later(400), later(300)).await);
    assert_eq!(subject.token().await, ("ours".to_owned(), later(400)));
}

pub(super) async fn a_token_that_was_sealed_with_a_lost_key_is_written_over_by_a_later_one(
    subject: &Subject,
) {
    let lost = subject.with_another_key();
    assert!(keep(&lost, "old", later(100)).await.unwrap());
    let opened = subject.store.token(&tenant()).await;
    assert!(
        matches!(opened, Err(Error::Unreadable { .. })),
        "{opened:?}"
    );
    assert!(keep(&subject.store, "new", later(200)).await.unwrap());
    assert_eq!(subject.token().await.0, "new");
}

pub(super) async fn a_token_of_a_newer_release_is_neither_read_nor_written_over(subject: &Subject) {
    keep(&subject.store, "newer", later(100)).await.unwrap();
    let mut row = subject.token_row().await.unwrap();
    row.insert("v".into(), Value::Number(2));
    row.insert("good_until".into(), instant(later(100)));
    let newer = Write::put(Key::new("TENANT#tenant", "TOKEN"), row.clone());
    subject
        .table
        .write(newer, Returning::Nothing)
        .await
        .unwrap();
    let read = subject.store.token(&tenant()).await;
    assert!(matches!(read, Err(Error::Unreadable { .. })), "{read:?}");
    let kept = keep(&subject.store, "ours", later(200)).await;
    assert!(matches!(kept, Err(Error::Unreadable { .. })), "{kept:?}");
    assert_eq!(subject.token_row().await.unwrap(), row);
}

pub(super) async fn where_the_product_is_called_stays_known_whatever_token_comes(
    subject: &Subject,
) {
    let keep = async |token: SystemToken| {
        let kept = subject.store.keep_token(&tenant(), &token).await;
        (kept.unwrap(), subject.product_api().await)
    };
    let known = |name: &str| Some(name.to_owned());
    let first = token("first", later(100));
    assert_eq!(keep(first.clone()).await, (true, None));
    // No newer token, but nobody knew.
    assert_eq!(keep(naming("one", first)).await, (false, known("one")));
    let earlier = naming("earlier", token("earlier", later(50)));
    assert_eq!(keep(earlier).await, (false, known("one")));
    // A newer token, whose call doesn't name it.
    assert_eq!(
        keep(token("second", later(200))).await,
        (true, known("one"))
    );
    let third = naming("two", token("third", later(300)));
    assert_eq!(keep(third).await, (true, known("two")));
    assert_eq!(subject.token().await, ("third".to_owned(), later(300)));
}

pub(super) async fn what_two_calls_say_at_once_of_an_installation_is_both_kept(subject: &Subject) {
    assert!(keep(&subject.store, "first", later(100)).await.unwrap());
    let store = subject.meddled(move |subject| {
        async move {
            let theirs = naming("theirs", token("first", later(100)));
            let kept = subject.store.keep_token(&tenant(), &theirs).await;
            assert!(!kept.unwrap());
        }
        .boxed()
    });
    assert!(keep(&store, "second", later(200)).await.unwrap());
    assert_eq!(subject.product_api().await.as_deref(), Some("theirs"));
    assert_eq!(subject.token().await, ("second".to_owned(), later(200)));
}

pub(super) async fn an_installation_is_heard_also_by_calls_without_a_newer_token(
    subject: &Subject,
) {
    let heard = async |seconds: u64| {
        let token = SystemToken {
            heard_at: Some(later(seconds)),
            ..token("one", later(9_000))
        };
        subject.store.keep_token(&tenant(), &token).await.unwrap();
        let kept = subject.store.token(&tenant()).await.unwrap().unwrap();
        kept.heard_at.unwrap()
    };
    let every = FORGE_HEARD_EVERY.as_secs();
    assert_eq!(heard(10).await, later(10));
    assert_eq!(heard(9 + every).await, later(10), "not worth a write");
    assert_eq!(heard(10 + every).await, later(10 + every));
    assert_eq!(heard(20).await, later(10 + every), "it came late");
}

pub(super) async fn a_token_that_an_older_release_kept_is_read_and_learns_the_rest(
    subject: &Subject,
) {
    assert!(keep(&subject.store, "old", later(100)).await.unwrap());
    let mut row = subject.token_row().await.unwrap();
    row.remove("heard_at");
    let older = Write::put(Key::new("TENANT#tenant", "TOKEN"), row);
    subject
        .table
        .write(older, Returning::Nothing)
        .await
        .unwrap();
    assert_eq!(subject.token().await, ("old".to_owned(), later(100)));
    let known = subject.store.token(&tenant()).await.unwrap().unwrap();
    assert_eq!((known.heard_at, known.product_api), (None, None));
    let same = naming("one", token("old", later(100)));
    assert!(!subject.store.keep_token(&tenant(), &same).await.unwrap());
    let known = subject.store.token(&tenant()).await.unwrap().unwrap();
    assert_eq!(known.heard_at, Some(later(0)));
    assert_eq!(known.product_api.as_deref(), Some("one"));
}
