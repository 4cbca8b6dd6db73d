//! What AWS would answer, canned: JSON, and as little work as possible.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_tracking::DataKeys as _;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::tenant::Tenant;

/// An answer's status and body.
pub(crate) type Said = (u16, String);

/// Answers a request by its `X-Amz-Target`. There is one tenant; every other row is absent, and every write takes effect.
pub(crate) async fn answer(operation: &str, body: &[u8], tenant: &Tenant) -> Said {
    let said = match operation {
        "DynamoDB.GetItem" if tenant.is_asked_for(body) => json!({ "Item": tenant.row() }),
        "DynamoDB.GetItem"
        | "DynamoDB.PutItem"
        | "DynamoDB.UpdateItem"
        | "DynamoDB.TransactWriteItems"
        // Of an empty queue, or one of which nothing is told.
        | "SQS.ReceiveMessage"
        | "SQS.GetQueueAttributes" => json!({}),
        "DynamoDB.Query" => json!({ "Items": [], "Count": 0, "ScannedCount": 0 }),
        "SQS.SendMessage" => match serde_json::from_slice(body) {
            Ok(message) => sent(&message),
            Err(_) => return refused("the body is no JSON"),
        },
        "KMS.Decrypt" => match decrypted(body, tenant).await {
            Some(plain) => plain,
            None => return refused("not sealed with this key"),
        },
        _ => return refused(&format!("{operation} is not among what a function calls")),
    };
    (200, said.to_string())
}

/// The name of an operation from `X-Amz-Target`, without its service's version: `DynamoDB.PutItem`.
pub(crate) fn operation(target: &str) -> String {
    let (service, operation) = target.split_once('.').unwrap_or(("", target));
    let service = match service {
        "DynamoDB_20120810" => "DynamoDB",
        "AmazonSQS" => "SQS",
        "TrentService" => "KMS",
        other => other,
    };
    format!("{service}.{operation}")
}

fn refused(why: &str) -> Said {
    let said = json!({ "__type": "com.amazon.coral.validate#ValidationException", "message": why });
    (400, said.to_string())
}

fn sent(message: &Value) -> Value {
    let body = message["MessageBody"].as_str().unwrap_or_default();
    let mut said = json!({
        "MD5OfMessageBody": hex::encode(Md5::digest(body)),
        "MessageId": "c6f5bd5e-4d20-4a61-a5c9-1c1d4f1a0001",
    });
    if let Some(attributes) = message["MessageAttributes"].as_object() {
        let mut digest = Md5::new();
        let mut names: Vec<_> = attributes.keys().collect();
        names.sort();
        for name in names {
            digest_attribute(&mut digest, name, &attributes[name]);
        }
        said["MD5OfMessageAttributes"] = hex::encode(digest.finalize()).into();
    }
    said
}

/// As the SQS developer guide has it: lengths before texts, and a byte for the kind of the value.
fn digest_attribute(digest: &mut Md5, name: &str, attribute: &Value) {
    let kind = attribute["DataType"].as_str().unwrap_or_default();
    let text = |name: &str| attribute[name].as_str();
    let (tag, value) = if let Some(binary) = text("BinaryValue") {
        (2, STANDARD.decode(binary).unwrap_or_default())
    } else {
        (
            1,
            text("StringValue").unwrap_or_default().as_bytes().to_vec(),
        )
    };
    let mut part = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        digest.update(length.to_be_bytes());
        digest.update(bytes);
    };
    part(name.as_bytes());
    part(kind.as_bytes());
    digest.update([tag]);
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    digest.update(length.to_be_bytes());
    digest.update(value);
}

async fn decrypted(body: &[u8], tenant: &Tenant) -> Option<Value> {
    use secrecy::ExposeSecret as _;
    let request: Value = serde_json::from_slice(body).ok()?;
    let sealed = STANDARD.decode(request["CiphertextBlob"].as_str()?).ok()?;
    let plain = tenant.data_keys().decrypt(&sealed).await.ok()??;
    Some(json!({
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "KeyId": crate::tenant::KMS_KEY,
        "Plaintext": STANDARD.encode(plain.expose_secret()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_named_without_its_services_version() {
        assert_eq!(operation("DynamoDB_20120810.PutItem"), "DynamoDB.PutItem");
        assert_eq!(operation("AmazonSQS.SendMessage"), "SQS.SendMessage");
        assert_eq!(operation("TrentService.Decrypt"), "KMS.Decrypt");
        assert_eq!(operation("nonsense"), ".nonsense");
    }

    /// The digest of the body is RFC 1321's of "abc"; that of the attributes was computed with botocore's algorithm.
    #[test]
    fn a_message_is_acknowledged_with_the_digests_that_clients_compute() {
        let said = sent(&json!({ "MessageBody": "abc" }));
        assert_eq!(said["MD5OfMessageBody"], "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(said["MD5OfMessageAttributes"], Value::Null);
        let attributes = json!({
            "b": { "DataType": "Binary", "BinaryValue": "AAEC" },
            "a": { "DataType": "String", "StringValue": "x" },
        });
        let said = sent(&json!({ "MessageBody": "", "MessageAttributes": attributes }));
        assert_eq!(
            said["MD5OfMessageAttributes"],
            "c7b075151a8e2e09ccb36b393bdb284a"
        );
    }
}
