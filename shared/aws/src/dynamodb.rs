use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, KeysAndAttributes, Put, ReturnValue,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use landfall_tracking::{
    Change, DueEntries, DueEntry, Error, Item, Key, Page, Returning, Table, Value, Which, Write,
    WriteError,
};

use crate::error::{sort, sort_transaction, unbuildable};

mod expressions;

use expressions::Expressions;

type Attributes = HashMap<String, AttributeValue>;

/// The two tables in DynamoDB.
#[derive(Clone, Debug)]
pub struct DynamoDb {
    client: Client,
    tracking: String,
    records: String,
}

/// Name of the sparse index.
const DUE_INDEX: &str = "due";

impl DynamoDb {
    /// Works on the tables of these names. The client brings time-outs and retries.
    pub fn new(client: Client, tracking: impl Into<String>, records: impl Into<String>) -> Self {
        Self {
            client,
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
        let answer = self
            .client
            .get_item()
            .table_name(&self.tracking)
            .set_key(Some(key_attributes(key)))
            .consistent_read(consistent)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        answer.item.map(item).transpose()
    }

    async fn get_many(
        &self,
        which: Which,
        keys: Vec<Key>,
        attributes: &'static [&'static str],
    ) -> Result<(Vec<(Key, Item)>, Vec<Key>), Error> {
        let table = self.name(which);
        let request = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(key_attributes).collect()))
            .consistent_read(true)
            // By placeholder, as everywhere: `state` and `count` are among the reserved words.
            .projection_expression(format!("pk, sk, #{}", attributes.join(", #")))
            .set_expression_attribute_names(Some(
                attributes
                    .iter()
                    .map(|name| (format!("#{name}"), (*name).to_owned()))
                    .collect(),
            ))
            .build()
            .map_err(unbuildable)?;
        let answer = self
            .client
            .batch_get_item()
            .request_items(table, request)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        let found = answer.responses.unwrap_or_default().remove(table);
        let unprocessed = answer.unprocessed_keys.unwrap_or_default().remove(table);
        Ok((
            found
                .unwrap_or_default()
                .into_iter()
                .map(row)
                .collect::<Result<_, _>>()?,
            unprocessed
                .map(|rest| rest.keys)
                .unwrap_or_default()
                .into_iter()
                .map(|mut attributes| take_key(&mut attributes))
                .collect::<Result<_, _>>()?,
        ))
    }

    async fn query(
        &self,
        partition: &str,
        prefix: &str,
        after: Option<Key>,
    ) -> Result<Page, Error> {
        let page = self
            .client
            .query()
            .table_name(&self.tracking)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", AttributeValue::S(partition.to_owned()))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
            .set_exclusive_start_key(after.as_ref().map(key_attributes))
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(Page {
            rows: page
                .items
                .unwrap_or_default()
                .into_iter()
                .map(row)
                .collect::<Result<_, _>>()?,
            next: page
                .last_evaluated_key
                .filter(|key| !key.is_empty())
                .map(|mut key| take_key(&mut key))
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
        let start = after.map(|entry| {
            let mut start = key_attributes(&entry.key);
            start.insert("due_shard".to_owned(), AttributeValue::S(shard.to_owned()));
            start.insert("due_at".to_owned(), AttributeValue::N(entry.at.to_string()));
            start
        });
        let page = self
            .client
            .query()
            .table_name(&self.tracking)
            .index_name(DUE_INDEX)
            .key_condition_expression("due_shard = :shard AND due_at <= :until")
            .expression_attribute_values(":shard", AttributeValue::S(shard.to_owned()))
            .expression_attribute_values(":until", AttributeValue::N(until.to_string()))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| sort(&error))?;
        Ok(DueEntries {
            entries: page
                .items
                .unwrap_or_default()
                .into_iter()
                .map(due_entry)
                .collect::<Result<_, _>>()?,
            next: page
                .last_evaluated_key
                .filter(|key| !key.is_empty())
                .map(due_entry)
                .transpose()?,
        })
    }

    async fn write(&self, write: Write, returning: Returning) -> Result<Item, WriteError> {
        let table = self.name(write.which);
        let old = match returning {
            Returning::Nothing => ReturnValuesOnConditionCheckFailure::None,
            Returning::Row => ReturnValuesOnConditionCheckFailure::AllOld,
        };
        let mut expressions = Expressions::of(&write.only_if);
        match write.change {
            Change::Put(row) => {
                let mut attributes = item_attributes(row);
                attributes.extend(key_attributes(&write.key));
                self.client
                    .put_item()
                    .table_name(table)
                    .set_item(Some(attributes))
                    .set_condition_expression(expressions.condition())
                    .set_expression_attribute_names(expressions.names())
                    .set_expression_attribute_values(expressions.values())
                    .return_values_on_condition_check_failure(old)
                    .send()
                    .await
                    .map_err(|error| match error.as_service_error() {
                        Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                            condition_failed(failed.item.clone())
                        }
                        _ => WriteError::Failed(sort(&error)),
                    })?;
                Ok(Item::new())
            }
            Change::Update(assignments) => {
                let update = expressions.update(&assignments);
                let answer = self
                    .client
                    .update_item()
                    .table_name(table)
                    .set_key(Some(key_attributes(&write.key)))
                    .update_expression(update)
                    .set_condition_expression(expressions.condition())
                    .set_expression_attribute_names(expressions.names())
                    .set_expression_attribute_values(expressions.values())
                    .return_values_on_condition_check_failure(old)
                    .return_values(match returning {
                        Returning::Nothing => ReturnValue::None,
                        Returning::Row => ReturnValue::AllNew,
                    })
                    .send()
                    .await
                    .map_err(|error| match error.as_service_error() {
                        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                            condition_failed(failed.item.clone())
                        }
                        _ => WriteError::Failed(sort(&error)),
                    })?;
                item(answer.attributes.unwrap_or_default()).map_err(WriteError::Failed)
            }
            Change::Check => Err(WriteError::Failed(unbuildable(
                "a check is no write of its own",
            ))),
        }
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), Error> {
        let writes = writes
            .into_iter()
            .map(|write| self.in_transaction(write))
            .collect::<Result<_, _>>()?;
        self.client
            .transact_write_items()
            .set_transact_items(Some(writes))
            .send()
            .await
            .map_err(|error| sort_transaction(&error))?;
        Ok(())
    }

    fn in_transaction(&self, write: Write) -> Result<TransactWriteItem, Error> {
        let table = self.name(write.which);
        let mut expressions = Expressions::of(&write.only_if);
        let item = TransactWriteItem::builder();
        Ok(match write.change {
            Change::Put(row) => {
                let mut attributes = item_attributes(row);
                attributes.extend(key_attributes(&write.key));
                item.put(
                    Put::builder()
                        .table_name(table)
                        .set_item(Some(attributes))
                        .set_condition_expression(expressions.condition())
                        .set_expression_attribute_names(expressions.names())
                        .set_expression_attribute_values(expressions.values())
                        .build()
                        .map_err(unbuildable)?,
                )
            }
            Change::Update(assignments) => {
                let update = expressions.update(&assignments);
                item.update(
                    Update::builder()
                        .table_name(table)
                        .set_key(Some(key_attributes(&write.key)))
                        .update_expression(update)
                        .set_condition_expression(expressions.condition())
                        .set_expression_attribute_names(expressions.names())
                        .set_expression_attribute_values(expressions.values())
                        .build()
                        .map_err(unbuildable)?,
                )
            }
            Change::Check => item.condition_check(
                ConditionCheck::builder()
                    .table_name(table)
                    .set_key(Some(key_attributes(&write.key)))
                    .set_condition_expression(expressions.condition())
                    .set_expression_attribute_names(expressions.names())
                    .set_expression_attribute_values(expressions.values())
                    .build()
                    .map_err(unbuildable)?,
            ),
        }
        .build())
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
    ) -> BoxFuture<'a, Result<Page, Error>> {
        self.query(partition, prefix, after).boxed()
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

fn condition_failed(old: Option<Attributes>) -> WriteError {
    match old.filter(|old| !old.is_empty()).map(item).transpose() {
        Ok(old) => WriteError::ConditionFailed(old),
        Err(error) => WriteError::Failed(error),
    }
}

fn key_attributes(key: &Key) -> Attributes {
    Attributes::from([
        ("pk".to_owned(), AttributeValue::S(key.partition.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

fn item_attributes(item: Item) -> Attributes {
    item.into_iter()
        .map(|(name, value)| (name.into_owned(), attribute(value)))
        .collect()
}

fn attribute(value: Value) -> AttributeValue {
    match value {
        Value::Text(text) => AttributeValue::S(text),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::Flag(flag) => AttributeValue::Bool(flag),
        Value::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
    }
}

fn value(attribute: AttributeValue) -> Option<Value> {
    Some(match attribute {
        AttributeValue::S(text) => Value::Text(text),
        AttributeValue::N(digits) => Value::Number(digits.parse().ok()?),
        AttributeValue::Bool(flag) => Value::Flag(flag),
        AttributeValue::B(bytes) => Value::Bytes(bytes.into_inner()),
        _ => return None,
    })
}

/// A row's attributes without its key and those of the index.
fn item(mut attributes: Attributes) -> Result<Item, Error> {
    attributes.remove("pk");
    attributes.remove("sk");
    attributes
        .into_iter()
        .map(|(name, attribute)| match value(attribute) {
            Some(value) => Ok((name.into(), value)),
            None => Err(Error::Unreadable {
                what: "a row".to_owned(),
                problem: format!("attribute {name} has a type that this release never writes"),
            }),
        })
        .collect()
}

fn row(mut attributes: Attributes) -> Result<(Key, Item), Error> {
    Ok((take_key(&mut attributes)?, item(attributes)?))
}

fn take_key(attributes: &mut Attributes) -> Result<Key, Error> {
    let mut part = |name: &str| match attributes.remove(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(Error::Unreadable {
            what: "a row".to_owned(),
            problem: format!("attribute {name} is missing or of another type"),
        }),
    };
    Ok(Key {
        partition: part("pk")?,
        sort: part("sk")?,
    })
}

fn due_entry(mut attributes: Attributes) -> Result<DueEntry, Error> {
    let Some(Value::Number(at)) = attributes.remove("due_at").and_then(value) else {
        return Err(Error::Unreadable {
            what: "a row of the due index".to_owned(),
            problem: "attribute due_at is missing or of another type".to_owned(),
        });
    };
    Ok(DueEntry {
        at,
        key: take_key(&mut attributes)?,
    })
}
