use std::time::Duration;

use landfall_tracking::{Installed, SecretKey};
use landfall_transfer::TenantId;
use secrecy::{ExposeSecret, SecretString};

use landfall_embedded::{TABLE, store, store_on, tables};

use crate::table::{NOW, later, tenant};

const OVERLAP: Duration = Duration::from_mins(10);

fn key() -> SecretKey {
    SecretKey::from_base64(&SecretString::from(
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ))
    .unwrap()
}

fn installed(secret: &str) -> Installed {
    Installed {
        tenant: tenant(),
        base_url: "https://example.atlassian.net/wiki".to_owned(),
        product: Some("confluence".to_owned()),
        secret: SecretString::from(secret),
    }
}

#[tokio::test]
async fn a_reinstall_rotates_the_secret_and_the_old_one_stays_valid_for_a_while() {
    let client = tables().await;
    let store = store_on(client.clone());
    store
        .install(&installed("first"), &key(), OVERLAP, NOW)
        .await
        .unwrap();
    store
        .install(&installed("second"), &key(), OVERLAP, later(5))
        .await
        .unwrap();
    // The same callback again, as a retry would send it.
    store
        .install(&installed("second"), &key(), OVERLAP, later(6))
        .await
        .unwrap();
    let found = store
        .tenant(&tenant(), &key(), true)
        .await
        .unwrap()
        .unwrap();
    let secrets = |seconds| {
        found
            .secrets(later(seconds))
            .iter()
            .map(|secret| secret.expose_secret().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(secrets(6), ["second", "first"]);
    assert_eq!(secrets(5 + 600), ["second"]);

    let rows = client.scan().table_name(TABLE).send().await.unwrap();
    assert!(
        !format!("{rows:?}").contains("second"),
        "a secret is stored in clear"
    );
}

#[tokio::test]
async fn an_uninstalled_tenant_is_known_as_such_and_its_old_secret_never_comes_back() {
    let store = store().await;
    store
        .uninstall(&TenantId::new("stranger"), NOW)
        .await
        .unwrap();
    assert!(
        store
            .tenant(&TenantId::new("stranger"), &key(), true)
            .await
            .unwrap()
            .is_none()
    );
    store
        .install(&installed("first"), &key(), OVERLAP, NOW)
        .await
        .unwrap();
    store.uninstall(&tenant(), later(1)).await.unwrap();
    assert!(
        !store
            .tenant(&tenant(), &key(), true)
            .await
            .unwrap()
            .unwrap()
            .installed
    );
    store
        .install(&installed("second"), &key(), OVERLAP, later(2))
        .await
        .unwrap();
    let found = store
        .tenant(&tenant(), &key(), true)
        .await
        .unwrap()
        .unwrap();
    assert!(found.installed);
    assert_eq!(found.secrets(later(2)).len(), 1);
}

#[tokio::test]
async fn a_tenant_whose_secret_was_sealed_with_a_lost_key_is_healed_by_installing_again() {
    let store = store().await;
    let lost = SecretKey::from_base64(&SecretString::from(
        "/////wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ))
    .unwrap();
    store
        .install(&installed("first"), &lost, OVERLAP, NOW)
        .await
        .unwrap();
    assert!(store.tenant(&tenant(), &key(), true).await.is_err());
    store
        .install(&installed("second"), &key(), OVERLAP, later(1))
        .await
        .unwrap();
    let found = store
        .tenant(&tenant(), &key(), true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.secrets(later(1)).len(), 1);
}
