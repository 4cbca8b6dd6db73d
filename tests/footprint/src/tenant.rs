//! The one tenant: its row, as Landfall itself writes it, in DynamoDB's JSON.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_clock::Clock;
use landfall_models::{DataKeysModel, TableModel};
use landfall_tracking::{Installed, Key, SecretKey, Store, Value, Vault, Which};
use landfall_transfer::TenantId;
use secrecy::SecretString;
use serde_json::{Map, json};

/// The tenant's client key.
pub(crate) const CLIENT_KEY: &str = "7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001";

/// What its tokens are signed with.
pub(crate) const SHARED_SECRET: &str =
    "footprint-0000-not-a-real-secret-1111-as-long-as-one-2222-3333-4444";

/// What `LANDFALL_SECRET_KEY` says.
pub(crate) const SECRET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What `LANDFALL_KMS_KEY` says where KMS seals.
pub(crate) const KMS_KEY: &str =
    "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// What seals the tenant's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// The key of the environment.
    BySecretKey,
    /// A data key of KMS, as the template has it unless it is told otherwise.
    ByKms,
}

/// The tenant, installed.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) sealed: Sealed,
    key: Key,
    row: serde_json::Value,
    data_keys: DataKeysModel,
}

impl Tenant {
    /// Installs it in a table in memory, and takes its row from there.
    pub(crate) async fn install(sealed: Sealed, clock: Clock) -> anyhow::Result<Self> {
        let secret_key = SecretString::from(SECRET_KEY);
        let secret_key = Arc::new(SecretKey::from_base64(&secret_key)?);
        let data_keys = DataKeysModel::new("footprint");
        let vault = match sealed {
            Sealed::BySecretKey => Vault::local(secret_key),
            Sealed::ByKms => {
                let data_keys = Arc::new(data_keys.clone());
                Vault::enveloping(secret_key, data_keys, clock.clone())
            }
        };
        let table = TableModel::new(clock.clone());
        let now = clock.now();
        let store = Store::new(Arc::new(table.clone()), Arc::new(vault), clock);
        let installed = Installed {
            tenant: TenantId::new(CLIENT_KEY),
            base_url: "https://example-site.atlassian.net/wiki".to_owned(),
            product: Some("confluence".to_owned()),
            secret: SecretString::from(SHARED_SECRET),
        };
        let overlap = Duration::from_mins(10);
        store.install(&installed, overlap, now).await?;
        let rows = table.rows(Which::Tracking);
        let (key, item) = rows.into_iter().next().context("it has just been put")?;
        let mut row = Map::new();
        row.insert("pk".to_owned(), json!({ "S": key.partition }));
        row.insert("sk".to_owned(), json!({ "S": key.sort }));
        for (name, value) in item.iter() {
            row.insert(name.to_string(), attribute(value));
        }
        // For handlers that are measured beside ours and have no vault. Ours doesn't look at it.
        row.insert("plain_secret".to_owned(), json!({ "S": SHARED_SECRET }));
        Ok(Self {
            sealed,
            key,
            row: row.into(),
            data_keys,
        })
    }

    /// The row, in DynamoDB's JSON.
    pub(crate) const fn row(&self) -> &serde_json::Value {
        &self.row
    }

    /// What KMS knows of the row's data key.
    pub(crate) const fn data_keys(&self) -> &DataKeysModel {
        &self.data_keys
    }

    /// Whether a `GetItem` is for the tenant's row.
    pub(crate) fn is_asked_for(&self, body: &[u8]) -> bool {
        let request: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let key = &request["Key"];
        key["pk"]["S"] == *self.key.partition && key["sk"]["S"] == *self.key.sort
    }
}

fn attribute(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => json!({ "S": text }),
        Value::Number(number) => json!({ "N": number.to_string() }),
        Value::Flag(flag) => json!({ "BOOL": flag }),
        Value::Bytes(bytes) => json!({ "B": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_row_is_found_by_its_key_and_holds_what_the_product_wrote() {
        for sealed in [Sealed::BySecretKey, Sealed::ByKms] {
            let tenant = Tenant::install(sealed, Clock::system()).await.unwrap();
            let row = tenant.row();
            assert_eq!(row["tenant"]["S"], CLIENT_KEY);
            assert_eq!(row["installed"]["BOOL"], true);
            let by_kms = row["secret"]["S"].as_str().unwrap().starts_with("v2.");
            assert_eq!(by_kms, sealed == Sealed::ByKms);
            let key = json!({ "pk": row["pk"], "sk": row["sk"] });
            let asked = json!({ "TableName": "landfall", "Key": key }).to_string();
            assert!(tenant.is_asked_for(asked.as_bytes()));
            let other = asked.replace(CLIENT_KEY, "another");
            assert!(!tenant.is_asked_for(other.as_bytes()));
            assert!(!tenant.is_asked_for(b""));
        }
    }
}
