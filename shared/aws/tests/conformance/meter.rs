//! The model's meter counts what DynamoDB reports as consumed capacity.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity,
};
use landfall_aws::DynamoDb;
use landfall_clock::Clock;
use landfall_embedded::TABLE;
use landfall_models::{Meter, TableModel};
use landfall_tracking::{Item, Key, Returning, Table, Value, Which, Write};

/// The same rows in the model and in DynamoDB.
struct Pair {
    model: TableModel,
    dynamodb: DynamoDb,
    client: Client,
}

fn key(sort: &str) -> Key {
    Key::new("P", sort)
}

impl Pair {
    async fn new() -> Self {
        let url = landfall_embedded::tables().await;
        let client = landfall_embedded::dynamodb_client(&url);
        let table = landfall_embedded::table(&url);
        Self {
            model: TableModel::new(Clock::system()),
            dynamodb: DynamoDb::clone(&table),
            client,
        }
    }

    async fn put(&self, sort: &str, item: &Item) {
        for table in [&self.model as &dyn Table, &self.dynamodb] {
            let put = Write::put(key(sort), item.clone());
            table.write(put, Returning::Nothing).await.unwrap();
        }
    }

    /// What a call adds to the model's meter.
    async fn metered<F: Future>(&self, call: impl FnOnce(TableModel) -> F) -> Meter {
        let before = self.model.meter();
        call(self.model.clone()).await;
        self.model.meter().since(before)
    }
}

/// Rows on both sides of the 4 KB that a read unit has, and one of every kind of value.
fn rows() -> Vec<(&'static str, Item)> {
    // `pkPsk`, the sort key's one byte, and the attribute's name.
    let beside = "pkPsk1".len() + "a".len();
    let padded = |bytes: usize| {
        let text = Value::Text("x".repeat(bytes - beside));
        Item::from([("a".into(), text)])
    };
    let mut rows = vec![
        ("0", Item::new()),
        ("1", padded(4_096)),
        ("2", padded(4_097)),
        ("3", padded(8_192)),
        ("4", padded(8_193)),
        ("5", padded(300_000)),
    ];
    // Numbers and flags that end right at the limit, as the documentation counts them.
    for (sort, value, bytes) in [
        ("6", Value::Number(0), 1),
        ("7", Value::Number(7), 2),
        ("8", Value::Number(-7), 3),
        ("9", Value::Number(1_763_769_600_000), 5),
        ("A", Value::Number(i64::MIN), 12),
        ("B", Value::Flag(true), 1),
        ("C", Value::Bytes(vec![0; 9]), 9),
        ("D", Value::Number(123), 3),
    ] {
        let mut item = padded(4_096 - bytes - "n".len());
        item.insert("n".into(), value);
        rows.push((sort, item));
    }
    rows
}

fn units(consumed: Option<&ConsumedCapacity>) -> f64 {
    consumed.unwrap().capacity_units().unwrap()
}

#[track_caller]
fn assert_units(metered: Meter, consumed: f64, what: &str) {
    assert!(
        (metered.read_units() - consumed).abs() < f64::EPSILON,
        "{what}: {} metered, {consumed} consumed",
        metered.read_units()
    );
}

fn attributes(key: &Key) -> HashMap<String, AttributeValue> {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.partition.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

#[tokio::test]
async fn a_read_is_metered_as_dynamodb_does() {
    let pair = Pair::new().await;
    let mut keys = vec![key("nobody")];
    for (sort, item) in rows() {
        pair.put(sort, &item).await;
        keys.push(key(sort));
    }
    for key in &keys {
        for consistent in [true, false] {
            let metered = pair
                .metered(|model| async move { model.get(key, consistent).await.unwrap() })
                .await;
            let answer = pair
                .client
                .get_item()
                .table_name(TABLE)
                .set_key(Some(attributes(key)))
                .consistent_read(consistent)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .unwrap();
            let what = format!("{key:?}, consistent: {consistent}");
            assert_units(metered, units(answer.consumed_capacity()), &what);
        }
    }
}

#[tokio::test]
async fn a_read_of_many_is_metered_row_by_row_as_dynamodb_does() {
    let pair = Pair::new().await;
    let mut keys = vec![key("nobody")];
    for (sort, item) in rows() {
        pair.put(sort, &item).await;
        keys.push(key(sort));
    }
    let asked = keys.clone();
    let metered = pair
        .metered(|model| async move {
            let many = model.get_many(Which::Tracking, asked, &["n"]);
            many.await.unwrap()
        })
        .await;
    let request = KeysAndAttributes::builder()
        .set_keys(Some(keys.iter().map(attributes).collect()))
        .consistent_read(true)
        .projection_expression("pk, sk, n")
        .build()
        .unwrap();
    let answer = pair
        .client
        .batch_get_item()
        .request_items(TABLE, request)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_units(metered, units(answer.consumed_capacity().first()), "many");
}

#[tokio::test]
async fn a_query_is_metered_by_the_sum_of_its_rows_as_dynamodb_does() {
    let pair = Pair::new().await;
    for (sort, item) in rows() {
        pair.put(sort, &item).await;
        let small = Item::from([("n".into(), Value::Number(1))]);
        pair.put(&format!("small{sort}"), &small).await;
    }
    for prefix in ["small", "s", "1", "2", "6", "nobody"] {
        let metered = pair
            .metered(|model| async move { model.query("P", prefix, None, None).await.unwrap() })
            .await;
        let answer = pair
            .client
            .query()
            .table_name(TABLE)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", AttributeValue::S("P".to_owned()))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .unwrap();
        assert_units(metered, units(answer.consumed_capacity()), prefix);
    }
}

#[tokio::test]
async fn a_query_of_the_index_is_metered_by_its_entries_as_dynamodb_does() {
    let pair = Pair::new().await;
    for number in 0..120 {
        let sort = format!("{number:03}{}", "k".repeat(40));
        let item = Item::from([
            ("due_shard".into(), Value::Text("D".to_owned())),
            ("due_at".into(), Value::Number(1_763_769_600_001 + number)),
            // Not projected: entries have keys only.
            ("a".into(), Value::Text("x".repeat(2_000))),
        ]);
        pair.put(&sort, &item).await;
    }
    for limit in [1, 45, 46, 47, 48, 49, 50, 51, 52, 100, 120, 1_000] {
        let metered = pair
            .metered(|model| async move { model.due("D", i64::MAX, limit, None).await.unwrap() })
            .await;
        let answer = pair
            .client
            .query()
            .table_name(TABLE)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :until")
            .expression_attribute_values(":shard", AttributeValue::S("D".to_owned()))
            .expression_attribute_values(":until", AttributeValue::N(i64::MAX.to_string()))
            .limit(i32::try_from(limit).unwrap())
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .unwrap();
        let what = format!("{limit} entries");
        assert_units(metered, units(answer.consumed_capacity()), &what);
    }
}

fn sized(bytes: usize, due_at: Option<i64>) -> Item {
    let mut item = Item::from([("a".into(), Value::Text("x".repeat(bytes)))]);
    if let Some(at) = due_at {
        item.insert("due_shard".into(), Value::Text("D".to_owned()));
        item.insert("due_at".into(), Value::Number(at));
    }
    item
}

#[tokio::test]
async fn a_write_is_metered_by_the_larger_row_and_by_its_moves_in_the_index_as_dynamodb_does() {
    let pair = Pair::new().await;
    // Rows that grow and shrink, and enter, move in and leave the index.
    for (step, item) in [
        sized(10, None),
        sized(1_100, None),
        sized(5_000, Some(5)),
        sized(10, Some(5)),
        sized(10, Some(6)),
        sized(10, None),
    ]
    .into_iter()
    .enumerate()
    {
        let put = Write::put(key("row"), item.clone());
        let metered = pair
            .metered(|model| async move { model.write(put, Returning::Nothing).await.unwrap() })
            .await;
        let mut all = attributes(&key("row"));
        for (name, value) in item {
            let value = match value {
                Value::Text(text) => AttributeValue::S(text),
                Value::Number(number) => AttributeValue::N(number.to_string()),
                other => panic!("{other:?}"),
            };
            all.insert(name.into_owned(), value);
        }
        let answer = pair
            .client
            .put_item()
            .table_name(TABLE)
            .set_item(Some(all))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .unwrap();
        let metered = metered.write_units + metered.index_write_units;
        let consumed = units(answer.consumed_capacity());
        let metered = f64::from(u32::try_from(metered).unwrap());
        assert!(
            (metered - consumed).abs() < f64::EPSILON,
            "step {step}: {metered} metered, {consumed} consumed"
        );
    }
}
