//! The bodies of `installed` and `uninstalled` (PROTOCOL 4.1).

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::event::is_identity;

/// What a lifecycle callback says. Believe it only once its token is verified against [`Self::client_key`].
#[derive(Clone, Debug)]
pub struct Callback {
    /// The tenant. Never changes for a tenant, but a data import may make a new one on the same site.
    pub client_key: String,
    /// Our app key, when the callback names it.
    pub app_key: Option<String>,
    /// The new HS256 secret. `installed` always has it.
    pub shared_secret: Option<SecretString>,
    /// Prefix of the product's REST endpoints; not yet checked against the list of hosts.
    pub base_url: Option<String>,
    /// `jira` or `confluence`.
    pub product_type: Option<String>,
    /// The site's id, for apps that adopted Forge.
    pub cloud_id: Option<String>,
    /// The Forge installation, for apps that adopted Forge.
    pub installation_id: Option<String>,
}

/// Why a callback's body can't be used. Sending it again can't help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// Not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// A field is missing, empty, or no text that we can use.
    #[error("the callback has no usable {field}")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl Callback {
    /// Reads the body of `installed`: secret and base URL are required.
    pub fn installed(body: &[u8]) -> Result<Self, CallbackError> {
        let callback = Self::uninstalled(body)?;
        if callback.shared_secret.is_none() {
            return Err(CallbackError::Field {
                field: "sharedSecret",
            });
        }
        if callback.base_url.is_none() {
            return Err(CallbackError::Field { field: "baseUrl" });
        }
        Ok(callback)
    }

    /// Reads the body of `uninstalled`: only the tenant is required.
    pub fn uninstalled(body: &[u8]) -> Result<Self, CallbackError> {
        let fields: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| CallbackError::NotJson)?;
        let text = |field: &str, longest: usize| {
            fields
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty() && text.len() <= longest)
                .map(str::to_owned)
        };
        Ok(Self {
            client_key: text("clientKey", 128)
                .filter(|key| is_identity(key))
                .ok_or(CallbackError::Field { field: "clientKey" })?,
            app_key: text("key", 256),
            shared_secret: text("sharedSecret", 4_096).map(SecretString::from),
            base_url: text("baseUrl", 2_048),
            product_type: text("productType", 64),
            cloud_id: text("cloudId", 128),
            installation_id: text("installationId", 256),
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const BODY: &str = r#"{ "key":"com.example.vault.cloud", "clientKey":"7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001",
        "sharedSecret":"not-a-real-secret", "baseUrl":"https://example-site.atlassian.net/wiki",
        "productType":"confluence", "description":"Atlassian Confluence", "eventType":"installed", "cloudId": null }"#;

    #[test]
    fn an_installation_is_read_and_its_secret_never_printed() {
        let callback = Callback::installed(BODY.as_bytes()).unwrap();
        assert_eq!(callback.client_key, "7f0c2f7e-55e1-3b14-9f0d-3a40a9d54001");
        assert_eq!(
            callback.base_url.as_deref(),
            Some("https://example-site.atlassian.net/wiki")
        );
        assert_eq!(callback.product_type.as_deref(), Some("confluence"));
        assert_eq!(callback.cloud_id, None);
        assert!(!format!("{callback:?}").contains("not-a-real-secret"));
        assert_eq!(
            callback.shared_secret.unwrap().expose_secret(),
            "not-a-real-secret"
        );
    }

    #[test]
    fn what_an_installation_lacks_is_named() {
        for (field, body) in [
            ("clientKey", r#"{"sharedSecret":"s","baseUrl":"https://x"}"#),
            (
                "clientKey",
                r#"{"clientKey":"a#b","sharedSecret":"s","baseUrl":"https://x"}"#,
            ),
            (
                "sharedSecret",
                r#"{"clientKey":"k","sharedSecret":"","baseUrl":"https://x"}"#,
            ),
            ("baseUrl", r#"{"clientKey":"k","sharedSecret":"s"}"#),
        ] {
            assert_eq!(
                Callback::installed(body.as_bytes()).unwrap_err(),
                CallbackError::Field { field }
            );
        }
        assert_eq!(
            Callback::installed(b"[]").unwrap_err(),
            CallbackError::NotJson
        );
    }

    #[test]
    fn an_uninstallation_needs_the_tenant_only() {
        assert!(Callback::uninstalled(br#"{"clientKey":"k"}"#).is_ok());
    }
}
