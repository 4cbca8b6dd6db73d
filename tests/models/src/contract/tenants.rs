use std::time::Duration;

use futures_util::FutureExt as _;
use landfall_tracking::{Error, Installed, Item, Store, Tenant, Value};
use landfall_transfer::{TenantId, TransferId};
use secrecy::{ExposeSecret as _, SecretString};

use super::{NOW, Subject, Timestamp, expires, id, instant, later, tenant, text};

const OVERLAP: Duration = Duration::from_mins(10);

fn installed(secret: &str) -> Installed {
    Installed {
        tenant: tenant(),
        base_url: "https://example.atlassian.net/wiki".to_owned(),
        product: Some("confluence".to_owned()),
        secret: SecretString::from(secret),
    }
}

async fn install(store: &Store, secret: &str, now: Timestamp) -> Result<(), Error> {
    store.install(&installed(secret), OVERLAP, now).await
}

impl Subject {
    async fn install(&self, secret: &str, now: Timestamp) {
        install(&self.store, secret, now).await.unwrap();
    }

    async fn tenant(&self) -> Tenant {
        let found = self.store.tenant(&tenant(), true).await.unwrap();
        found.unwrap()
    }

    async fn secrets(&self, now: Timestamp) -> Vec<String> {
        let tenant = self.tenant().await;
        let secrets = tenant.secrets(now);
        secrets
            .iter()
            .map(|secret| secret.expose_secret().to_owned())
            .collect()
    }

    async fn tenant_row(&self) -> Item {
        self.row("TENANT#tenant", "STATE").await.unwrap()
    }
}

pub(super) async fn a_reinstall_rotates_the_secret_and_the_old_one_stays_valid_for_a_while(
    subject: &Subject,
) {
    subject.install("first", NOW).await;
    subject.install("second", later(5)).await;
    // The same callback again, as a retry would send it.
    subject.install("second", later(6)).await;
    assert_eq!(subject.secrets(later(6)).await, ["second", "first"]);
    assert_eq!(subject.secrets(later(4 + 600)).await, ["second", "first"]);
    assert_eq!(subject.secrets(later(5 + 600)).await, ["second"]);
    let tenant = subject.tenant().await;
    assert_eq!(tenant.base_url, "https://example.atlassian.net/wiki");
    assert_eq!(tenant.product.as_deref(), Some("confluence"));

    let rows = format!("{:?}", subject.rows("TENANT#tenant", "S").await);
    assert!(!rows.contains("second"), "a secret is stored in clear");
    assert!(!rows.contains("first"), "a secret is stored in clear");
}

pub(super) async fn an_uninstalled_tenant_is_known_as_such_and_its_old_secret_never_comes_back(
    subject: &Subject,
) {
    subject.install("zeroth", NOW).await;
    subject.install("first", NOW).await;
    subject.store.uninstall(&tenant(), later(1)).await.unwrap();
    assert!(!subject.tenant().await.installed);
    let row = subject.tenant_row().await;
    assert_eq!(row["uninstalled_at"], instant(later(1)));
    assert_eq!(
        (row.get("previous_secret"), row.get("previous_secret_until")),
        (None, None)
    );
    subject.install("second", later(2)).await;
    assert!(subject.tenant().await.installed);
    assert_eq!(subject.secrets(later(2)).await, ["second"]);
}

pub(super) async fn a_tenant_whose_secret_was_sealed_with_a_lost_key_is_healed_by_installing_again(
    subject: &Subject,
) {
    let lost = subject.with_another_key();
    install(&lost, "first", NOW).await.unwrap();
    let unreadable = subject.store.tenant(&tenant(), true).await;
    assert!(matches!(unreadable, Err(Error::Unreadable { .. })));
    subject.install("second", later(1)).await;
    assert_eq!(subject.secrets(later(1)).await, ["second"]);
}

pub(super) async fn a_stranger_who_uninstalls_stays_a_stranger(subject: &Subject) {
    let stranger = TenantId::new("stranger");
    subject.store.uninstall(&stranger, NOW).await.unwrap();
    assert_eq!(subject.row("TENANT#stranger", "STATE").await, None);
    let found = subject.store.tenant(&stranger, true).await;
    assert!(found.unwrap().is_none());
}

pub(super) async fn of_two_first_installations_at_once_one_wins(subject: &Subject) {
    let slower =
        subject.meddled(|subject| async move { subject.install("faster", NOW).await }.boxed());
    let outcome = install(&slower, "slower", NOW).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(subject.secrets(NOW).await, ["faster"]);
    // Its retry comes after the other one, and both secrets count for a while.
    install(&slower, "slower", NOW).await.unwrap();
    assert_eq!(subject.secrets(NOW).await, ["slower", "faster"]);
}

pub(super) async fn of_two_reinstallations_at_once_one_wins(subject: &Subject) {
    subject.install("first", NOW).await;
    let slower =
        subject.meddled(|subject| async move { subject.install("faster", later(1)).await }.boxed());
    let outcome = install(&slower, "slower", later(1)).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert_eq!(subject.secrets(later(1)).await, ["faster", "first"]);
    assert_eq!(subject.tenant_row().await["version"], Value::Number(2));
}

pub(super) async fn an_uninstallation_during_an_installation_is_not_written_over(
    subject: &Subject,
) {
    subject.install("first", NOW).await;
    let slower = subject.meddled(|subject| {
        async move {
            let gone = subject.store.uninstall(&tenant(), later(1)).await;
            gone.unwrap();
        }
        .boxed()
    });
    let outcome = install(&slower, "second", later(1)).await;
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
    assert!(!subject.tenant().await.installed);
}

pub(super) async fn an_installed_tenant_is_due_at_once_and_an_uninstalled_one_never(
    subject: &Subject,
) {
    subject.install("first", later(7)).await;
    assert!(subject.due_rows(later(6)).await.is_empty());
    assert_eq!(subject.due_rows(later(7)).await.len(), 1);
    let row = subject.tenant_row().await;
    assert_eq!(row["installed_at"], instant(later(7)));
    assert_eq!(
        (&row["kind"], &row["v"]),
        (&text("tenant"), &Value::Number(1))
    );
    subject.store.uninstall(&tenant(), later(8)).await.unwrap();
    assert!(subject.due_rows(later(10_000)).await.is_empty());
    let row = subject.tenant_row().await;
    assert_eq!((row.get("due_at"), row.get("due_shard")), (None, None));
}

pub(super) async fn what_was_refused_is_noted_beside_the_tenant(subject: &Subject) {
    let (store, tenant) = (&subject.store, tenant());
    let rejected = store.record_rejected(&tenant, "odd-event", 12, "no id", "d#1", later(2));
    rejected.await.unwrap();
    for transfer in [Some("transfer-9"), None] {
        let digest = if transfer.is_some() { "d-2" } else { "d-3" };
        let noted = store.record_security(&tenant, "foreign key", transfer, digest, NOW);
        noted.await.unwrap();
    }
    let millis = later(2).as_millis();
    let sort = format!("REJECTED#{millis:015}#d%231");
    assert_eq!(
        subject.row("TENANT#tenant", &sort).await,
        Some(Item::from([
            ("kind".into(), text("rejected")),
            ("at".into(), instant(later(2))),
            ("expires_at".into(), expires(later(2), 30)),
            ("event_type".into(), text("odd-event")),
            ("size_bytes".into(), Value::Number(12)),
            ("reason".into(), text("no id")),
        ]))
    );
    let noted = subject.rows("TENANT#tenant", "SECURITY#").await;
    let transfers: Vec<_> = noted
        .iter()
        .map(|(_, row)| (row["what"].clone(), row.get("transfer_id").cloned()))
        .collect();
    let what = text("foreign key");
    assert_eq!(
        transfers,
        [(what.clone(), Some(text("transfer-9"))), (what, None)]
    );
    let found = subject.store.tenant(&tenant, true).await;
    assert!(found.unwrap().is_none(), "notes make no tenant");
}

pub(super) async fn a_transfer_listed_without_an_event_is_noted_once(subject: &Subject) {
    for seconds in [3, 60, 120] {
        let since = subject
            .store
            .listed_unannounced_since(&tenant(), &id(), later(seconds))
            .await;
        assert_eq!(since.unwrap(), later(3));
    }
    let other = TransferId::new("transfer-2");
    let since = subject
        .store
        .listed_unannounced_since(&tenant(), &other, later(60))
        .await;
    assert_eq!(since.unwrap(), later(60));
    let row = subject.row("TENANT#tenant", "UNANNOUNCED#transfer-1").await;
    assert_eq!(row.unwrap()["expires_at"], expires(later(3), 30));
}

pub(super) async fn counters_count(subject: &Subject) {
    for name in ["a#b", "a#b", "other"] {
        subject.store.count(&tenant(), name).await.unwrap();
    }
    let row = subject.row("TENANT#tenant", "COUNT#a%23b").await;
    assert_eq!(row.unwrap()["count"], Value::Number(2));
    let row = subject.row("TENANT#tenant", "COUNT#other").await;
    assert_eq!(row.unwrap()["count"], Value::Number(1));
}
