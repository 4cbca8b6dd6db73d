use std::collections::HashMap;

use aws_lc_rs::rand;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{
    Change, DueEntries, DueEntry, Error, Item, Key, Page, Returning, Table, Which, Write,
    WriteError,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::access::{Access, CallError};
use crate::error::{sort, sort_transaction};
use crate::json::JsonService;

mod attributes;
mod expressions;

use attributes::{Attribute, Attributes, Row};
use expressions::{Expressions, Names, Values};

/// The two tables in DynamoDB.
#[derive(Clone, Debug)]
pub struct DynamoDb {
    service: JsonService,
    tracking: String,
    records: String,
}

/// Name of the sparse index.
const DUE_INDEX: &str = "due";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetItem<'a> {
    table_name: &'a str,
    key: Attributes<'a>,
    consistent_read: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetItemAnswer {
    item: Option<Row>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetItem<'a> {
    request_items: HashMap<&'a str, Wanted<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted<'a> {
    keys: Vec<Attributes<'a>>,
    consistent_read: bool,
    projection_expression: String,
    expression_attribute_names: HashMap<String, &'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetItemAnswer {
    #[serde(default)]
    responses: HashMap<String, Vec<Row>>,
    #[serde(default)]
    unprocessed_keys: HashMap<String, UnprocessedKeys>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnprocessedKeys {
    #[serde(default)]
    keys: Vec<Row>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Query<'a> {
    table_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistent_read: Option<bool>,
    key_condition_expression: &'static str,
    expression_attribute_values: HashMap<&'static str, Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive_start_key: Option<Attributes<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueryAnswer {
    #[serde(default)]
    items: Vec<Row>,
    last_evaluated_key: Option<Row>,
}

/// A write: of its own, or one of a transaction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WriteItem<'a> {
    table_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Attributes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<Attributes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_expression: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition_expression: Option<String>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    expression_attribute_names: Names<'a>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    expression_attribute_values: Values<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values_on_condition_check_failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateItemAnswer {
    #[serde(default)]
    attributes: Row,
}

/// What a condition that did not hold found.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConditionFailed {
    #[serde(default)]
    item: Row,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TransactWriteItems<'a> {
    transact_items: Vec<TransactWriteItem<'a>>,
    client_request_token: String,
}

#[derive(Serialize)]
enum TransactWriteItem<'a> {
    Put(WriteItem<'a>),
    Update(WriteItem<'a>),
    ConditionCheck(WriteItem<'a>),
}

impl DynamoDb {
    /// Works on the tables of these names.
    pub fn new(access: Access, tracking: impl Into<String>, records: impl Into<String>) -> Self {
        Self {
            service: JsonService::dynamodb(access),
            tracking: tracking.into(),
            records: records.into(),
        }
    }

    fn name(&self, which: Which) -> &str {
        match which {
            Which::Tracking => &self.tracking,
            Which::Records => &self.records,
        }
    }

    async fn get(&self, key: &Key, consistent: bool) -> Result<Option<Item>, Error> {
        let input = GetItem {
            table_name: &self.tracking,
            key: Attributes::key(key),
            consistent_read: consistent,
        };
        let answer: GetItemAnswer = self.service.call("GetItem", &input).await.map_err(sort)?;
        answer.item.map(Row::item).transpose()
    }

    async fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> Result<(Vec<(Key, Item)>, Vec<Key>), Error> {
        let table = self.name(which);
        let wanted = Wanted {
            keys: keys.iter().map(Attributes::key).collect(),
            consistent_read: true,
            // By placeholder, as everywhere: `state` and `count` are among the reserved words.
            projection_expression: format!("pk, sk, #{}", attributes.join(", #")),
            expression_attribute_names: attributes
                .iter()
                .map(|name| (format!("#{name}"), *name))
                .collect(),
        };
        let input = BatchGetItem {
            request_items: HashMap::from([(table, wanted)]),
        };
        let mut answer: BatchGetItemAnswer = self
            .service
            .call("BatchGetItem", &input)
            .await
            .map_err(sort)?;
        let found = answer.responses.remove(table).unwrap_or_default();
        let left = answer.unprocessed_keys.remove(table);
        Ok((
            found
                .into_iter()
                .map(Row::with_key)
                .collect::<Result<_, _>>()?,
            left.map(|left| left.keys)
                .unwrap_or_default()
                .into_iter()
                .map(|mut row| row.take_key())
                .collect::<Result<_, _>>()?,
        ))
    }

    async fn query(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> Result<Page, Error> {
        let input = Query {
            table_name: &self.tracking,
            limit: limit.map(limited),
            consistent_read: Some(true),
            key_condition_expression: "pk = :pk AND begins_with(sk, :prefix)",
            expression_attribute_values: HashMap::from([
                (":pk", Attribute::Text(partition)),
                (":prefix", Attribute::Text(prefix)),
            ]),
            exclusive_start_key: after.as_ref().map(Attributes::key),
            ..Query::default()
        };
        let page: QueryAnswer = self.service.call("Query", &input).await.map_err(sort)?;
        Ok(Page {
            rows: page
                .items
                .into_iter()
                .map(Row::with_key)
                .collect::<Result<_, _>>()?,
            next: page
                .last_evaluated_key
                .filter(|key| !key.is_empty())
                .map(|mut key| key.take_key())
                .transpose()?,
        })
    }

    async fn due(
        &self,
        shard: &str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> Result<DueEntries, Error> {
        let start = after.as_ref().map(|entry| Attributes {
            key: Some(&entry.key),
            due: Some((shard, entry.at)),
            item: None,
        });
        let input = Query {
            table_name: &self.tracking,
            index_name: Some(DUE_INDEX),
            key_condition_expression: "due_shard = :shard AND due_at <= :until",
            expression_attribute_values: HashMap::from([
                (":shard", Attribute::Text(shard)),
                (":until", Attribute::Number(until)),
            ]),
            limit: Some(limited(limit)),
            exclusive_start_key: start,
            ..Query::default()
        };
        let page: QueryAnswer = self.service.call("Query", &input).await.map_err(sort)?;
        Ok(DueEntries {
            entries: page
                .items
                .into_iter()
                .map(Row::due_entry)
                .collect::<Result<_, _>>()?,
            next: page
                .last_evaluated_key
                .filter(|key| !key.is_empty())
                .map(Row::due_entry)
                .transpose()?,
        })
    }

    async fn write(&self, write: Write, returning: Returning) -> Result<Item, WriteError> {
        let mut input = self.write_item(&write);
        input.return_values_on_condition_check_failure = match returning {
            Returning::Nothing => None,
            Returning::Row => Some("ALL_OLD"),
        };
        let outcome = match write.change {
            Change::Put(_) => {
                let put = self.service.call::<IgnoredAny>("PutItem", &input).await;
                put.map(|_| Row::default())
            }
            Change::Update(_) => {
                input.return_values = match returning {
                    Returning::Nothing => None,
                    Returning::Row => Some("ALL_NEW"),
                };
                let update = self.service.call("UpdateItem", &input).await;
                update.map(|answer: UpdateItemAnswer| answer.attributes)
            }
            Change::Check => Err(CallError::Unbuildable(
                "a check is no write of its own".to_owned(),
            )),
        };
        match outcome {
            Ok(row) => row.item().map_err(WriteError::Failed),
            Err(CallError::Answered(Some(code), body))
                if code == "ConditionalCheckFailedException" =>
            {
                Err(condition_failed(&body))
            }
            Err(error) => Err(WriteError::Failed(sort(error))),
        }
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), Error> {
        let transact_items = writes
            .iter()
            .map(|write| {
                let item = self.write_item(write);
                match write.change {
                    Change::Put(_) => TransactWriteItem::Put(item),
                    Change::Update(_) => TransactWriteItem::Update(item),
                    Change::Check => TransactWriteItem::ConditionCheck(item),
                }
            })
            .collect();
        let input = TransactWriteItems {
            transact_items,
            client_request_token: token()?,
        };
        let done = self
            .service
            .call::<IgnoredAny>("TransactWriteItems", &input);
        done.await.map(drop).map_err(sort_transaction)
    }

    fn write_item<'a>(&'a self, write: &'a Write) -> WriteItem<'a> {
        let mut expressions = Expressions::of(&write.only_if);
        let (mut item, mut key, mut update) = (None, None, None);
        match &write.change {
            Change::Put(row) => {
                item = Some(Attributes {
                    key: Some(&write.key),
                    due: None,
                    item: Some(row),
                });
            }
            Change::Update(assignments) => {
                update = Some(expressions.update(assignments));
                key = Some(Attributes::key(&write.key));
            }
            Change::Check => key = Some(Attributes::key(&write.key)),
        }
        WriteItem {
            table_name: self.name(write.which),
            key,
            item,
            update_expression: update,
            condition_expression: expressions.condition(),
            expression_attribute_names: expressions.names,
            expression_attribute_values: expressions.values,
            return_values_on_condition_check_failure: None,
            return_values: None,
        }
    }
}

impl Table for DynamoDb {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        consistent: bool,
    ) -> BoxFuture<'a, Result<Option<Item>, Error>> {
        self.get(key, consistent).boxed()
    }

    fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> BoxFuture<'_, Result<(Vec<(Key, Item)>, Vec<Key>), Error>> {
        self.get_many(which, keys, attributes).boxed()
    }

    fn query<'a>(
        &'a self,
        partition: &'a str,
        prefix: &'a str,
        after: Option<Key>,
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        self.query(partition, prefix, after, limit).boxed()
    }

    fn due<'a>(
        &'a self,
        shard: &'a str,
        until: i64,
        limit: usize,
        after: Option<DueEntry>,
    ) -> BoxFuture<'a, Result<DueEntries, Error>> {
        self.due(shard, until, limit, after).boxed()
    }

    fn write(&self, write: Write, returning: Returning) -> BoxFuture<'_, Result<Item, WriteError>> {
        self.write(write, returning).boxed()
    }

    fn transact(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        self.transact(writes).boxed()
    }
}

fn limited(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

fn condition_failed(answer: &Bytes) -> WriteError {
    let found = serde_json::from_slice::<ConditionFailed>(answer).unwrap_or_default();
    if found.item.is_empty() {
        return WriteError::ConditionFailed(None);
    }
    match found.item.item() {
        Ok(item) => WriteError::ConditionFailed(Some(item)),
        Err(error) => WriteError::Failed(error),
    }
}

/// Names a transaction, so that DynamoDB carries it out once however often the call is made (for ten minutes).
fn token() -> Result<String, Error> {
    let mut random = [0; 16];
    rand::fill(&mut random)
        .map_err(|_| Error::Unavailable("no randomness to name a transaction with".to_owned()))?;
    Ok(hex::encode(random))
}
