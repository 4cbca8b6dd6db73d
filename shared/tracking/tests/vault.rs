//! What the vault seals and opens, with which keys, and how often it asks for one.
#![allow(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use landfall_clock::Clock;
use landfall_models::{DataKeysModel, TableModel, Trouble, secret_key};
use landfall_tracking::{
    DataKey, DataKeys, Error, Installed, SecretKey, Store, SystemToken, Vault,
};
use landfall_transfer::{TenantId, Timestamp};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
const HOUR: Duration = Duration::from_hours(1);
const ROW: &str = "a row";

/// Vaults of a process each, below one KMS key.
struct World {
    kms: DataKeysModel,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self {
            kms: DataKeysModel::new("ours"),
            clock: Clock::manual(NOW),
        }
    }

    fn vault(&self) -> Vault {
        self.vault_on(self.kms.clone())
    }

    fn vault_on(&self, data_keys: impl DataKeys + 'static) -> Vault {
        let key = Arc::new(secret_key());
        Vault::enveloping(key, Arc::new(data_keys), self.clock.clone())
    }

    /// A text of a data key that no other text has.
    async fn sealed(&self, owner: &str, secret: &str) -> String {
        seal(&self.vault(), owner, secret).await
    }
}

async fn seal(vault: &Vault, owner: &str, secret: &str) -> String {
    vault
        .seal(owner, &SecretString::from(secret))
        .await
        .unwrap()
}

async fn open(vault: &Vault, owner: &str, sealed: &str) -> Result<String, Error> {
    let opened = vault.open(ROW, owner, sealed).await?;
    Ok(opened.expose_secret().to_owned())
}

#[track_caller]
fn assert_unreadable(opened: Result<String, Error>, why: &str) {
    match opened {
        Err(Error::Unreadable { what, problem }) => {
            assert_eq!(what, ROW);
            assert!(problem.contains(why), "{problem}");
        }
        opened => panic!("{opened:?}"),
    }
}

const ANOTHER: &str = "sealed with another key, for another tenant, or was changed";

#[tokio::test]
async fn what_one_process_seals_another_opens_for_its_owner_only() {
    let world = World::new();
    let sealed = world.sealed("tenant-a", "hush").await;
    assert!(sealed.starts_with("v2.") && !sealed.contains("hush"));
    let vault = world.vault();
    assert_eq!(open(&vault, "tenant-a", &sealed).await.unwrap(), "hush");
    assert_unreadable(open(&vault, "tenant-b", &sealed).await, ANOTHER);
}

#[tokio::test]
async fn each_part_of_a_text_that_was_changed_keeps_it_closed() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let other = world.sealed("tenant", "other").await;
    let parts: Vec<_> = sealed.split('.').collect();
    let others: Vec<_> = other.split('.').collect();
    let [_, key, text] = parts[..] else {
        panic!("{sealed}")
    };
    let another = if text.starts_with('/') { "+" } else { "/" };
    let (half, changed) = (&text[..text.len() / 2], format!("{another}{}", &text[1..]));
    let vault = world.vault();
    for text in [
        format!("v2.{}.{text}", others[1]),
        format!("v2.{key}.{}", others[2]),
        format!("v2.{key}.{half}"),
        format!("v2.{key}.{changed}"),
        format!("v2.{key}."),
        format!("v2..{text}"),
        format!("v2.?.{text}"),
        format!("v2.{text}"),
        format!("v2.{sealed}"),
        "v2.".to_owned(),
        "v2..".to_owned(),
        format!("v1.{text}"),
        format!("v3.{key}.{text}"),
        text.to_owned(),
        String::new(),
    ] {
        assert_unreadable(open(&vault, "tenant", &text).await, ANOTHER);
    }
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
}

#[tokio::test]
async fn what_the_environments_key_sealed_before_there_was_a_kms_key_still_opens() {
    let world = World::new();
    let before = Vault::local(Arc::new(secret_key()));
    let sealed = seal(&before, "tenant", "hush").await;
    assert!(sealed.starts_with("v1."));
    let vault = world.vault();
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
    assert_eq!(world.kms.decrypted(), 0);
}

#[tokio::test]
async fn texts_of_both_forms_are_read_as_they_always_were() {
    let world = World::new();
    world.kms.generate().await.unwrap();
    let vault = world.vault();
    for golden in [
        "v1.EvkzmJIaBiAcdQJnz8DkdiRpcnyd1xTxmkrkiuZIp5E=",
        "v2.b3Vycy8wLzE=.EvkzmJIaBiAcdQJnCdtEnDTdDzrKI0JD39L2N8JXe4c=",
    ] {
        assert_eq!(open(&vault, "tenant", golden).await.unwrap(), "hush");
    }
}

#[tokio::test]
async fn without_the_kms_key_its_texts_can_not_be_read_and_the_reason_is_named() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let local = Vault::local(Arc::new(secret_key()));
    let opened = open(&local, "tenant", &sealed).await;
    assert_unreadable(opened, "LANDFALL_KMS_KEY is not set");
}

#[tokio::test]
async fn another_kms_key_opens_nothing_and_rotating_the_same_one_closes_nothing() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let another = world.vault_on(DataKeysModel::new("another"));
    assert_unreadable(open(&another, "tenant", &sealed).await, ANOTHER);
    world.kms.rotate();
    let vault = world.vault();
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
    let newer = world.sealed("tenant", "newer").await;
    assert_eq!(open(&vault, "tenant", &newer).await.unwrap(), "newer");
}

#[tokio::test]
async fn a_cold_process_asks_once_for_a_text_and_a_warm_one_never() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let vault = world.vault();
    for _ in 0..100 {
        assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
    }
    assert_eq!(world.kms.decrypted(), 1);
    // What it has sealed itself it opens without asking.
    let own = seal(&vault, "tenant", "own").await;
    assert_eq!(open(&vault, "tenant", &own).await.unwrap(), "own");
    assert_eq!(world.kms.decrypted(), 1);
}

#[tokio::test]
async fn many_that_need_the_same_key_at_once_ask_for_it_once() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let vault = world.vault_on(Slow::new(&world));
    let opened = join_all((0..50).map(|_| open(&vault, "tenant", &sealed))).await;
    assert!(opened.into_iter().all(|opened| opened.unwrap() == "hush"));
    assert_eq!(world.kms.decrypted(), 1);
    let before = world.kms.generated();
    join_all((0..50).map(|_| seal(&vault, "tenant", "hush"))).await;
    assert_eq!(world.kms.generated(), before + 1);
}

#[tokio::test]
async fn in_an_outage_those_who_wait_end_with_the_one_that_asked() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    world.kms.trouble(Some(Trouble::Outage));
    let vault = world.vault_on(Slow::new(&world));
    let opened = join_all((0..50).map(|_| open(&vault, "tenant", &sealed))).await;
    for opened in opened {
        assert!(matches!(opened, Err(Error::Unavailable(_))), "{opened:?}");
    }
    assert_eq!(world.kms.decrypted(), 1);
    // The next one tries for itself.
    world.kms.trouble(None);
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
}

#[tokio::test]
async fn a_data_key_seals_a_thousand_texts_and_no_more() {
    let world = World::new();
    let vault = world.vault();
    for number in 0..=2_000 {
        seal(&vault, "tenant", "hush").await;
        assert_eq!(world.kms.generated(), 1 + number / 1_000, "text {number}");
    }
}

#[tokio::test]
async fn a_data_key_is_used_for_an_hour_and_no_longer() {
    let world = World::new();
    let vault = world.vault();
    let first = seal(&vault, "tenant", "hush").await;
    world.clock.advance(Duration::from_millis(3_599_999));
    seal(&vault, "tenant", "hush").await;
    open(&vault, "tenant", &first).await.unwrap();
    assert_eq!((world.kms.generated(), world.kms.decrypted()), (1, 0));
    world.clock.advance(Duration::from_millis(1));
    seal(&vault, "tenant", "hush").await;
    open(&vault, "tenant", &first).await.unwrap();
    assert_eq!((world.kms.generated(), world.kms.decrypted()), (2, 1));
}

#[tokio::test]
async fn of_more_than_a_thousand_data_keys_the_oldest_is_dropped() {
    let world = World::new();
    let mut sealed = Vec::new();
    for _ in 0..=1_000 {
        sealed.push(world.sealed("tenant", "hush").await);
    }
    let vault = world.vault();
    for text in &sealed {
        open(&vault, "tenant", text).await.unwrap();
        world.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(world.kms.decrypted(), 1_001);
    open(&vault, "tenant", &sealed[1]).await.unwrap();
    open(&vault, "tenant", &sealed[1_000]).await.unwrap();
    assert_eq!(world.kms.decrypted(), 1_001);
    open(&vault, "tenant", &sealed[0]).await.unwrap();
    assert_eq!(world.kms.decrypted(), 1_002);
}

#[tokio::test]
async fn a_key_that_can_not_be_asked_or_used_says_nothing_about_the_secret() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let vault = world.vault();
    for (trouble, passes) in [(Trouble::Outage, true), (Trouble::Forbidden, false)] {
        world.kms.trouble(Some(trouble));
        let opened = open(&vault, "tenant", &sealed).await.map(drop);
        let closed = vault.seal("tenant", &SecretString::from("hush")).await;
        for error in [opened.unwrap_err(), closed.unwrap_err()] {
            match error {
                Error::Unavailable(_) => assert!(passes),
                Error::Vault(_) => assert!(!passes && error.to_string().contains("LF-VAULT")),
                error => panic!("{error:?}"),
            }
        }
    }
    world.kms.trouble(None);
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
}

#[tokio::test]
async fn a_warm_process_goes_on_through_an_outage() {
    let world = World::new();
    let sealed = world.sealed("tenant", "hush").await;
    let vault = world.vault();
    seal(&vault, "tenant", "before").await;
    open(&vault, "tenant", &sealed).await.unwrap();
    world.kms.trouble(Some(Trouble::Outage));
    assert_eq!(open(&vault, "tenant", &sealed).await.unwrap(), "hush");
    seal(&vault, "tenant", "meanwhile").await;
}

#[tokio::test]
async fn nothing_of_a_vault_prints_its_keys() {
    let world = World::new();
    let vault = world.vault();
    let sealed = seal(&vault, "tenant", "hush").await;
    let printed = format!("{vault:?}");
    assert!(printed.contains("SecretKey(…)"), "{printed}");
    assert!(!printed.contains(sealed.split('.').nth(1).unwrap()));
    let key = world.kms.generate().await.unwrap();
    assert!(format!("{key:?}").contains("REDACTED"), "{key:?}");
}

/// A KMS key that takes its time.
#[derive(Debug)]
struct Slow(DataKeysModel, AtomicUsize);

impl Slow {
    fn new(world: &World) -> Self {
        Self(world.kms.clone(), AtomicUsize::new(0))
    }

    async fn wait(&self) {
        let asking = self.1.fetch_add(1, Ordering::Relaxed);
        assert_eq!(asking, 0, "two ask at once");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DataKeys for Slow {
    fn generate(&self) -> BoxFuture<'_, Result<DataKey, Error>> {
        async {
            self.wait().await;
            self.0.generate().await
        }
        .boxed()
    }

    fn decrypt<'a>(
        &'a self,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<Option<SecretSlice<u8>>, Error>> {
        async {
            self.wait().await;
            self.0.decrypt(sealed).await
        }
        .boxed()
    }
}

fn tenant() -> TenantId {
    TenantId::new("tenant")
}

fn installed(secret: &str) -> Installed {
    Installed {
        tenant: tenant(),
        base_url: "https://site.atlassian.net/wiki".to_owned(),
        product: None,
        secret: SecretString::from(secret),
    }
}

/// The secrets that a process finds in the table.
async fn secrets(store: &Store) -> Vec<String> {
    let found = store.tenant(&tenant(), true).await.unwrap().unwrap();
    let secrets = found.secrets(NOW).into_iter();
    secrets
        .map(|secret| secret.expose_secret().to_owned())
        .collect()
}

#[tokio::test]
async fn a_reinstallation_after_the_upgrade_seals_both_secrets_anew() {
    let world = World::new();
    let table = TableModel::new(world.clock.clone());
    let store = |vault| {
        Store::new(
            Arc::new(table.clone()),
            Arc::new(vault),
            world.clock.clone(),
        )
    };
    let before = store(Vault::local(Arc::new(secret_key())));
    before
        .install(&installed("first"), HOUR, NOW)
        .await
        .unwrap();
    let after = store(world.vault());
    assert_eq!(secrets(&after).await, ["first"]);
    after
        .install(&installed("second"), HOUR, NOW)
        .await
        .unwrap();
    assert_eq!(secrets(&after).await, ["second", "first"]);
    // Nothing of it needs the old key any more, and one call of KMS opens all of it.
    let another = SecretString::from("/////wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let another = Arc::new(SecretKey::from_base64(&another).unwrap());
    let kms = Arc::new(world.kms.clone());
    let cold = store(Vault::enveloping(another, kms, world.clock.clone()));
    assert_eq!(secrets(&cold).await, ["second", "first"]);
    assert_eq!(world.kms.decrypted(), 1);
}

#[tokio::test]
async fn an_installation_never_writes_over_a_secret_because_kms_can_not_be_asked() {
    let world = World::new();
    let table = TableModel::new(world.clock.clone());
    let store = || {
        let vault = Arc::new(world.vault());
        Store::new(Arc::new(table.clone()), vault, world.clock.clone())
    };
    store()
        .install(&installed("first"), HOUR, NOW)
        .await
        .unwrap();
    for trouble in [Trouble::Outage, Trouble::Forbidden] {
        world.kms.trouble(Some(trouble));
        let stored = store().install(&installed("second"), HOUR, NOW).await;
        assert!(
            matches!(stored, Err(Error::Unavailable(_) | Error::Vault(_))),
            "{stored:?}"
        );
    }
    world.kms.trouble(None);
    assert_eq!(secrets(&store()).await, ["first"]);
    let stored = store().install(&installed("second"), HOUR, NOW).await;
    stored.unwrap();
    assert_eq!(secrets(&store()).await, ["second", "first"]);
}

#[tokio::test]
async fn a_token_that_is_known_already_is_not_sealed_again() {
    let world = World::new();
    let table = TableModel::new(world.clock.clone());
    let vault = Arc::new(world.vault());
    let store = Store::new(Arc::new(table), vault, world.clock.clone());
    let token = SystemToken {
        token: SecretString::from("token"),
        good_until: NOW + HOUR,
        heard_at: Some(NOW),
        product_api: None,
    };
    for number in 0..1_500 {
        let kept = store.keep_token(&tenant(), &token).await.unwrap();
        assert_eq!(kept, number == 0);
    }
    assert_eq!(world.kms.generated(), 1);
    let kept = store.token(&tenant()).await.unwrap().unwrap();
    assert_eq!(kept.token.expose_secret(), "token");
    assert_eq!(world.kms.decrypted(), 0);
}
