//! The promises of [`Table`], one by one, on empty tables.
//!
//! Left open, because the service leaves it open: in which order the index lists entries that are due at the same instant,
//! where exactly a page ends, and whether a page that names a next one is followed by anything.

use landfall_tracking::{
    DueEntry, Error, Item, Key, Returning, Table, Value, Which, Write, WriteError,
};

use crate::checks::checks;

checks! {
    $ table_conformance(&dyn Table):
    a_row_that_was_put_is_read_back_with_every_kind_of_value,
    a_row_that_is_not_there_is_none,
    a_read_sees_the_write_before_it,
    empty_texts_and_bytes_are_values,
    numbers_keep_all_their_sixty_four_bits,
    keys_with_any_character_stay_apart,
    a_put_replaces_the_whole_row,
    an_update_changes_what_it_names_and_leaves_the_rest,
    an_update_makes_a_row_that_is_not_there,
    adding_to_an_absent_attribute_counts_from_zero,
    adding_to_a_text_is_refused_and_changes_nothing,
    removing_takes_an_attribute_away_and_an_absent_one_is_no_error,
    an_update_that_changes_nothing_is_refused,
    an_attribute_changes_once_in_an_update,
    a_rows_key_never_changes,
    names_that_the_service_reserves_are_names_like_others,
    if_absent_holds_for_a_row_that_is_not_there,
    if_present_holds_for_a_row_that_is_there,
    an_attribute_that_must_equal_is_compared_by_kind_and_value,
    nothing_equals_an_attribute_of_a_row_that_is_not_there,
    the_key_can_be_demanded_like_an_attribute,
    all_conditions_must_hold,
    the_old_row_comes_back_from_a_failed_condition_only_when_it_was_asked_for,
    the_old_row_comes_back_from_a_failed_put_too,
    a_condition_that_failed_on_an_absent_row_gives_no_row,
    the_new_row_comes_back_from_an_update_only_when_it_was_asked_for,
    a_put_gives_nothing_back,
    nothing_of_a_failed_write_is_visible,
    a_check_is_no_write_of_its_own,
    a_row_of_more_than_400_kilobytes_is_refused,
    an_update_can_not_make_a_row_too_large,
    a_key_that_is_empty_or_too_long_is_refused,
    a_transaction_writes_everything,
    a_transaction_whose_condition_fails_writes_nothing,
    a_transaction_whose_check_fails_writes_nothing,
    a_check_in_a_transaction_leaves_its_row_as_it_is,
    a_check_without_a_condition_is_refused,
    a_transaction_sees_the_rows_as_they_were_before_it,
    a_transaction_spans_both_tables,
    a_transaction_with_a_refused_write_writes_nothing,
    a_row_is_in_a_transaction_once,
    the_same_key_in_both_tables_is_two_rows,
    a_transaction_of_none_is_refused,
    a_transaction_of_a_hundred_is_made_and_of_more_refused,
    a_transaction_of_more_than_four_megabytes_is_refused,
    many_rows_are_read_with_just_the_attributes_asked_for,
    rows_that_are_not_there_are_left_out_of_many,
    a_row_without_any_attribute_asked_for_is_there_all_the_same,
    many_rows_are_a_hundred_different_ones_at_most,
    what_is_too_much_for_one_read_of_many_comes_back_to_be_asked_again,
    a_query_finds_the_prefix_in_its_partition_and_nothing_else,
    a_query_lists_rows_by_the_bytes_of_their_sort_key,
    a_query_of_nothing_is_one_empty_page,
    a_large_partition_takes_several_pages_and_every_row_is_on_one,
    a_page_goes_on_after_a_row_that_is_not_there,
    a_query_reads_no_more_rows_than_its_limit_and_goes_on_behind_them,
    the_index_holds_only_rows_with_both_attributes,
    the_index_lists_a_shard_by_instant_up_to_and_with_the_last,
    the_index_knows_instants_before_the_epoch,
    the_index_goes_on_page_by_page_through_entries_of_one_instant,
    the_index_goes_on_after_an_entry_that_has_left_it,
    a_row_that_is_moved_on_is_listed_once_and_in_its_new_place,
    a_row_that_loses_an_attribute_leaves_the_index,
    a_put_without_the_attributes_takes_a_row_out_of_the_index,
    a_transaction_moves_its_rows_in_the_index,
    what_the_index_is_keyed_by_has_one_kind,
    a_page_of_the_index_has_room_for_one_entry_at_least,
    the_records_table_has_no_index,
}

type Outcome<T> = Result<T, Error>;

fn key(sort: &str) -> Key {
    Key::new("P", sort)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn item<const N: usize>(attributes: [(&'static str, Value); N]) -> Item {
    attributes
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect()
}

fn sample() -> Item {
    item([("a", text("one")), ("n", Value::Number(1))])
}

/// Due at that instant, in one shard.
fn due(at: i64) -> Item {
    item([("due_shard", text("D")), ("due_at", Value::Number(at))])
}

/// A row of about so many bytes.
fn large(bytes: usize) -> Item {
    item([("a", Value::Text("x".repeat(bytes)))])
}

async fn put(table: &dyn Table, key: Key, item: Item) {
    table
        .write(Write::put(key, item), Returning::Nothing)
        .await
        .unwrap();
}

async fn write(table: &dyn Table, write: Write) -> Result<Item, WriteError> {
    table.write(write, Returning::Nothing).await
}

async fn row(table: &dyn Table, key: &Key) -> Option<Item> {
    table.get(key, true).await.unwrap()
}

async fn record(table: &dyn Table, key: &Key) -> Option<Item> {
    let asked = table.get_many(Which::Records, vec![key.clone()], &["a", "n"]);
    let (mut found, unprocessed) = asked.await.unwrap();
    assert_eq!(unprocessed, []);
    found.pop().map(|(_, item)| item)
}

/// The sort keys of all pages of a query, and how many pages there were.
async fn query(table: &dyn Table, partition: &str, prefix: &str) -> (Vec<String>, usize) {
    let (mut sorts, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = table.query(partition, prefix, after, None).await.unwrap();
        pages += 1;
        sorts.extend(page.rows.into_iter().map(|(key, _)| key.sort));
        after = page.next;
        if after.is_none() {
            return (sorts, pages);
        }
    }
}

/// Instants and sort keys of all pages of a shard. Entries of one instant come in any order, so they are put into one.
async fn listed(table: &dyn Table, shard: &str, until: i64, limit: usize) -> Vec<(i64, String)> {
    let (mut entries, mut after) = (Vec::<DueEntry>::new(), None);
    loop {
        let page = table.due(shard, until, limit, after).await.unwrap();
        assert!(page.entries.len() <= limit, "{page:?}");
        entries.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(entries.is_sorted_by_key(|entry| entry.at), "{entries:?}");
    entries.sort_unstable();
    entries
        .into_iter()
        .map(|entry| (entry.at, entry.key.sort))
        .collect()
}

fn entries<const N: usize>(expected: [(i64, &str); N]) -> Vec<(i64, String)> {
    expected
        .into_iter()
        .map(|(at, sort)| (at, sort.to_owned()))
        .collect()
}

#[track_caller]
fn assert_failed<T: std::fmt::Debug>(outcome: Result<T, WriteError>) {
    assert!(
        matches!(outcome, Err(WriteError::ConditionFailed(None))),
        "{outcome:?}"
    );
}

#[track_caller]
fn assert_write_refused<T: std::fmt::Debug>(outcome: Result<T, WriteError>) {
    assert!(
        matches!(outcome, Err(WriteError::Failed(Error::Refused(_)))),
        "{outcome:?}"
    );
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: Outcome<T>) {
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(outcome: Outcome<T>) {
    assert!(matches!(outcome, Err(Error::Conflict)), "{outcome:?}");
}

// Rows and values.

async fn a_row_that_was_put_is_read_back_with_every_kind_of_value(table: &dyn Table) {
    let all = item([
        ("text", text("ünïcode \u{1F600} \"quoted\"\n")),
        ("number", Value::Number(-42)),
        ("true", Value::Flag(true)),
        ("false", Value::Flag(false)),
        ("bytes", Value::Bytes((0..=255).collect())),
    ]);
    put(table, key("all"), all.clone()).await;
    assert_eq!(row(table, &key("all")).await, Some(all));
}

async fn a_row_that_is_not_there_is_none(table: &dyn Table) {
    put(table, key("other"), sample()).await;
    assert_eq!(table.get(&key("nobody"), true).await.unwrap(), None);
    assert_eq!(table.get(&key("nobody"), false).await.unwrap(), None);
}

async fn a_read_sees_the_write_before_it(table: &dyn Table) {
    for number in 0..10 {
        let counted = item([("n", Value::Number(number))]);
        put(table, key("row"), counted.clone()).await;
        assert_eq!(row(table, &key("row")).await, Some(counted));
    }
}

async fn empty_texts_and_bytes_are_values(table: &dyn Table) {
    let empty = item([("text", text("")), ("bytes", Value::Bytes(Vec::new()))]);
    put(table, key("row"), empty.clone()).await;
    assert_eq!(row(table, &key("row")).await, Some(empty));
    let held = Write::update(key("row"))
        .only_if("text", text(""))
        .set("text", text("full"));
    write(table, held).await.unwrap();
}

async fn numbers_keep_all_their_sixty_four_bits(table: &dyn Table) {
    for number in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        let counted = item([("n", Value::Number(number))]);
        put(table, key("row"), counted.clone()).await;
        assert_eq!(row(table, &key("row")).await, Some(counted));
        let same = Write::update(key("row"))
            .only_if("n", Value::Number(number))
            .set("a", text("seen"));
        write(table, same).await.unwrap();
        let other = Write::update(key("row"))
            .only_if("n", Value::Number(number.wrapping_add(1)))
            .set("a", text("wrong"));
        assert_failed(write(table, other).await);
    }
    put(
        table,
        key("row"),
        item([("n", Value::Number(i64::MAX - 1))]),
    )
    .await;
    write(table, Write::update(key("row")).add("n", 1))
        .await
        .unwrap();
    let most = item([("n", Value::Number(i64::MAX))]);
    assert_eq!(row(table, &key("row")).await, Some(most));
}

async fn keys_with_any_character_stay_apart(table: &dyn Table) {
    let sorts = [
        "#",
        "%",
        "%23",
        "\"",
        "\\",
        "'",
        "--",
        ":0",
        "a b",
        "a\nb",
        "ä",
        "a\u{308}",
        "\u{1F600}",
        "\u{0}",
        "FILE#a/b.c?d=e&f",
        "file#a/b.c?d=e&f",
    ];
    for sort in sorts {
        for partition in ["P#1", "P%231"] {
            let own = item([("a", text(&format!("{partition} {sort}")))]);
            put(table, Key::new(partition, sort), own).await;
        }
    }
    for sort in sorts {
        for partition in ["P#1", "P%231"] {
            let own = item([("a", text(&format!("{partition} {sort}")))]);
            assert_eq!(row(table, &Key::new(partition, sort)).await, Some(own));
        }
    }
}

// Puts and updates.

async fn a_put_replaces_the_whole_row(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let other = item([("b", text("two"))]);
    put(table, key("row"), other.clone()).await;
    assert_eq!(row(table, &key("row")).await, Some(other));
    put(table, key("row"), Item::new()).await;
    assert_eq!(row(table, &key("row")).await, Some(Item::new()));
}

async fn an_update_changes_what_it_names_and_leaves_the_rest(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let changed = Write::update(key("row"))
        .set("a", text("two"))
        .set("b", Value::Flag(true))
        .add("m", 3);
    write(table, changed).await.unwrap();
    assert_eq!(
        row(table, &key("row")).await,
        Some(item([
            ("a", text("two")),
            ("b", Value::Flag(true)),
            ("m", Value::Number(3)),
            ("n", Value::Number(1)),
        ]))
    );
}

async fn an_update_makes_a_row_that_is_not_there(table: &dyn Table) {
    write(table, Write::update(key("row")).set("a", text("one")))
        .await
        .unwrap();
    assert_eq!(
        row(table, &key("row")).await,
        Some(item([("a", text("one"))]))
    );
    write(table, Write::update(key("bare")).remove("a"))
        .await
        .unwrap();
    assert_eq!(row(table, &key("bare")).await, Some(Item::new()));
}

async fn adding_to_an_absent_attribute_counts_from_zero(table: &dyn Table) {
    for (by, sum) in [(5, 5), (-7, -2), (0, -2)] {
        write(table, Write::update(key("row")).add("n", by))
            .await
            .unwrap();
        assert_eq!(
            row(table, &key("row")).await,
            Some(item([("n", Value::Number(sum))]))
        );
    }
}

async fn adding_to_a_text_is_refused_and_changes_nothing(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let added = Write::update(key("row"))
        .set("n", Value::Number(9))
        .add("a", 1);
    assert_write_refused(write(table, added.clone()).await);
    assert_refused(table.transact(vec![added]).await);
    assert_eq!(row(table, &key("row")).await, Some(sample()));
}

async fn removing_takes_an_attribute_away_and_an_absent_one_is_no_error(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let removed = Write::update(key("row")).remove("n").remove("nothing");
    write(table, removed).await.unwrap();
    assert_eq!(
        row(table, &key("row")).await,
        Some(item([("a", text("one"))]))
    );
}

async fn an_update_that_changes_nothing_is_refused(table: &dyn Table) {
    assert_write_refused(write(table, Write::update(key("row"))).await);
    assert_refused(table.transact(vec![Write::update(key("row"))]).await);
    assert_eq!(row(table, &key("row")).await, None);
}

async fn an_attribute_changes_once_in_an_update(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    for twice in [
        Write::update(key("row"))
            .set("n", Value::Number(5))
            .add("n", 1),
        Write::update(key("row"))
            .set("n", Value::Number(5))
            .remove("n"),
        Write::update(key("row"))
            .set("n", Value::Number(5))
            .set("n", Value::Number(6)),
    ] {
        assert_write_refused(write(table, twice).await);
    }
    assert_eq!(row(table, &key("row")).await, Some(sample()));
}

async fn a_rows_key_never_changes(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    for change in [
        Write::update(key("row")).set("pk", text("other")),
        Write::update(key("row")).set("sk", text("other")),
        Write::update(key("row")).remove("sk"),
    ] {
        assert_write_refused(write(table, change).await);
    }
    put(
        table,
        key("put"),
        item([("pk", text("x")), ("sk", text("y"))]),
    )
    .await;
    assert_eq!(row(table, &key("put")).await, Some(Item::new()));
    assert_eq!(row(table, &key("row")).await, Some(sample()));
}

async fn names_that_the_service_reserves_are_names_like_others(table: &dyn Table) {
    let reserved = Write::update(key("row"))
        .set("state", text("OPEN"))
        .set("key", text("k"))
        .add("count", 1);
    write(table, reserved).await.unwrap();
    let demanded = Write::update(key("row"))
        .only_if("state", text("OPEN"))
        .only_if("count", Value::Number(1))
        .remove("key");
    write(table, demanded).await.unwrap();
    assert_eq!(
        row(table, &key("row")).await,
        Some(item([("state", text("OPEN")), ("count", Value::Number(1))]))
    );
    let asked = table.get_many(Which::Tracking, vec![key("row")], &["state", "count"]);
    let (found, _) = asked.await.unwrap();
    assert_eq!(
        found,
        [(
            key("row"),
            item([("state", text("OPEN")), ("count", Value::Number(1))])
        )]
    );
}

// Conditions.

async fn if_absent_holds_for_a_row_that_is_not_there(table: &dyn Table) {
    let first = Write::put(key("row"), sample()).if_absent();
    write(table, first).await.unwrap();
    let second = Write::put(key("row"), Item::new()).if_absent();
    assert_failed(write(table, second).await);
    let update = Write::update(key("row")).if_absent().set("a", text("two"));
    assert_failed(write(table, update).await);
    assert_eq!(row(table, &key("row")).await, Some(sample()));
    let update = Write::update(key("new")).if_absent().set("a", text("two"));
    write(table, update).await.unwrap();
}

async fn if_present_holds_for_a_row_that_is_there(table: &dyn Table) {
    let update = Write::update(key("row")).if_present().set("a", text("two"));
    assert_failed(write(table, update.clone()).await);
    let replaced = Write::put(key("row"), Item::new()).if_present();
    assert_failed(write(table, replaced).await);
    assert_eq!(row(table, &key("row")).await, None);
    put(table, key("row"), Item::new()).await;
    write(table, update).await.unwrap();
}

async fn an_attribute_that_must_equal_is_compared_by_kind_and_value(table: &dyn Table) {
    let values = [
        text("1"),
        text("01"),
        text(""),
        text("a"),
        text("A"),
        Value::Number(1),
        Value::Number(0),
        Value::Flag(true),
        Value::Flag(false),
        Value::Bytes(b"1".to_vec()),
        Value::Bytes(Vec::new()),
    ];
    for stored in &values {
        put(table, key("row"), item([("v", stored.clone())])).await;
        for wanted in &values {
            let demanded =
                Write::put(key("row"), item([("v", stored.clone())])).only_if("v", wanted.clone());
            let outcome = write(table, demanded).await;
            assert_eq!(outcome.is_ok(), stored == wanted, "{stored:?} {wanted:?}");
        }
        let absent = Write::update(key("row"))
            .only_if("w", stored.clone())
            .set("a", text("wrong"));
        assert_failed(write(table, absent).await);
    }
}

async fn nothing_equals_an_attribute_of_a_row_that_is_not_there(table: &dyn Table) {
    let update = Write::update(key("row"))
        .only_if("a", text(""))
        .set("a", text("two"));
    assert_failed(write(table, update).await);
    assert_eq!(row(table, &key("row")).await, None);
}

async fn the_key_can_be_demanded_like_an_attribute(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let own = Write::update(key("row"))
        .only_if("pk", text("P"))
        .only_if("sk", text("row"))
        .set("a", text("two"));
    write(table, own).await.unwrap();
    let other = Write::update(key("row"))
        .only_if("sk", text("other"))
        .set("a", text("three"));
    assert_failed(write(table, other).await);
    let nobody = Write::update(key("nobody"))
        .only_if("sk", text("nobody"))
        .set("a", text("three"));
    assert_failed(write(table, nobody).await);
}

async fn all_conditions_must_hold(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    for (a, n, holds) in [
        ("one", 1, true),
        ("one", 2, false),
        ("two", 1, false),
        ("two", 2, false),
    ] {
        let update = Write::update(key("row"))
            .if_present()
            .only_if("a", text(a))
            .only_if("n", Value::Number(n))
            .set("b", text("seen"));
        assert_eq!(write(table, update).await.is_ok(), holds, "{a} {n}");
    }
    let twice = Write::update(key("row"))
        .only_if("a", text("one"))
        .only_if("a", text("two"))
        .set("b", text("wrong"));
    assert_failed(write(table, twice).await);
}

async fn the_old_row_comes_back_from_a_failed_condition_only_when_it_was_asked_for(
    table: &dyn Table,
) {
    put(table, key("row"), sample()).await;
    let update = Write::update(key("row"))
        .only_if("n", Value::Number(2))
        .set("a", text("two"));
    assert_failed(table.write(update.clone(), Returning::Nothing).await);
    let outcome = table.write(update, Returning::Row).await;
    let Err(WriteError::ConditionFailed(Some(old))) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(old, sample());
}

async fn the_old_row_comes_back_from_a_failed_put_too(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let second = Write::put(key("row"), Item::new()).if_absent();
    assert_failed(table.write(second.clone(), Returning::Nothing).await);
    let outcome = table.write(second, Returning::Row).await;
    let Err(WriteError::ConditionFailed(Some(old))) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(old, sample());
}

async fn a_condition_that_failed_on_an_absent_row_gives_no_row(table: &dyn Table) {
    let update = Write::update(key("row")).if_present().set("a", text("two"));
    assert_failed(table.write(update, Returning::Row).await);
    let replaced = Write::put(key("row"), sample()).only_if("a", text("one"));
    assert_failed(table.write(replaced, Returning::Row).await);
}

async fn the_new_row_comes_back_from_an_update_only_when_it_was_asked_for(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let update = Write::update(key("row")).add("n", 1);
    let nothing = table.write(update.clone(), Returning::Nothing).await;
    assert_eq!(nothing.unwrap(), Item::new());
    let new = table.write(update, Returning::Row).await;
    assert_eq!(
        new.unwrap(),
        item([("a", text("one")), ("n", Value::Number(3))])
    );
}

async fn a_put_gives_nothing_back(table: &dyn Table) {
    for returning in [Returning::Nothing, Returning::Row] {
        for _ in 0..2 {
            let gives = table
                .write(Write::put(key("row"), sample()), returning)
                .await;
            assert_eq!(gives.unwrap(), Item::new());
        }
    }
}

async fn nothing_of_a_failed_write_is_visible(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let update = Write::update(key("row"))
        .only_if("n", Value::Number(7))
        .set("due_shard", text("D"))
        .set("due_at", Value::Number(5))
        .remove("a")
        .add("n", 1);
    assert_failed(write(table, update).await);
    let replaced = Write::put(key("row"), due(5)).only_if("n", Value::Number(7));
    assert_failed(write(table, replaced).await);
    assert_eq!(row(table, &key("row")).await, Some(sample()));
    assert_eq!(listed(table, "D", 10, 10).await, []);
}

async fn a_check_is_no_write_of_its_own(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let check = Write::check(key("row")).if_present();
    assert_write_refused(write(table, check).await);
}

// Limits of a row.

/// What a row of [`large`] has beside its text, with a sort key of three bytes: the key and three names.
const BESIDE: usize = "pk".len() + "P".len() + "sk".len() + "row".len() + "a".len();

async fn a_row_of_more_than_400_kilobytes_is_refused(table: &dyn Table) {
    let most = 400 * 1_024 - BESIDE;
    put(table, key("row"), large(most)).await;
    let more = Write::put(key("new"), large(most + 1));
    assert_write_refused(write(table, more.clone()).await);
    assert_refused(table.transact(vec![more]).await);
    assert_eq!(row(table, &key("new")).await, None);
}

async fn an_update_can_not_make_a_row_too_large(table: &dyn Table) {
    let most = large(400 * 1_024 - BESIDE);
    put(table, key("row"), most.clone()).await;
    let update = Write::update(key("row")).set("b", text(""));
    assert_write_refused(write(table, update.clone()).await);
    assert_refused(table.transact(vec![update]).await);
    assert_eq!(row(table, &key("row")).await, Some(most));
    let smaller = Write::update(key("row"))
        .set("a", text(""))
        .set("b", text(""));
    write(table, smaller).await.unwrap();
}

async fn a_key_that_is_empty_or_too_long_is_refused(table: &dyn Table) {
    let longest = Key::new("p".repeat(2_048), "s".repeat(1_024));
    put(table, longest.clone(), sample()).await;
    assert_eq!(row(table, &longest).await, Some(sample()));
    for key in [
        Key::new("", "s"),
        Key::new("p", ""),
        Key::new("p".repeat(2_049), "s"),
        Key::new("p", "s".repeat(1_025)),
        // Bytes count, not characters.
        Key::new("p", "ä".repeat(513)),
    ] {
        assert_refused(table.get(&key, true).await);
        assert_refused(
            table
                .get_many(Which::Tracking, vec![key.clone()], &["a"])
                .await,
        );
        assert_write_refused(write(table, Write::put(key.clone(), sample())).await);
        assert_write_refused(write(table, Write::update(key.clone()).add("n", 1)).await);
        assert_refused(table.transact(vec![Write::put(key, sample())]).await);
    }
}

// Transactions.

async fn a_transaction_writes_everything(table: &dyn Table) {
    put(table, key("old"), sample()).await;
    let writes = vec![
        Write::put(key("new"), sample()).if_absent(),
        Write::update(key("old"))
            .only_if("a", text("one"))
            .add("n", 1)
            .remove("a"),
        Write::update(key("made")).set("a", text("x")),
    ];
    table.transact(writes).await.unwrap();
    assert_eq!(row(table, &key("new")).await, Some(sample()));
    assert_eq!(
        row(table, &key("old")).await,
        Some(item([("n", Value::Number(2))]))
    );
    assert_eq!(
        row(table, &key("made")).await,
        Some(item([("a", text("x"))]))
    );
}

async fn a_transaction_whose_condition_fails_writes_nothing(table: &dyn Table) {
    put(table, key("old"), sample()).await;
    for demanded in [
        Write::put(key("old"), Item::new()).if_absent(),
        Write::update(key("nobody")).if_present().add("n", 1),
        Write::update(key("old"))
            .only_if("n", Value::Number(2))
            .add("n", 1),
    ] {
        let (first, last) = (
            Write::put(key("first"), sample()),
            Write::put(key("last"), sample()),
        );
        assert_conflict(table.transact(vec![first, demanded, last]).await);
        for sort in ["first", "last", "nobody"] {
            assert_eq!(row(table, &key(sort)).await, None, "{sort}");
        }
        assert_eq!(row(table, &key("old")).await, Some(sample()));
    }
}

async fn a_transaction_whose_check_fails_writes_nothing(table: &dyn Table) {
    put(table, key("old"), sample()).await;
    for check in [
        Write::check(key("old")).if_absent(),
        Write::check(key("old")).only_if("a", text("two")),
        Write::check(key("nobody")).if_present(),
        Write::check(key("nobody")).only_if("a", text("two")),
    ] {
        let written = Write::put(key("new"), sample());
        assert_conflict(table.transact(vec![written, check]).await);
        assert_eq!(row(table, &key("new")).await, None);
    }
}

async fn a_check_in_a_transaction_leaves_its_row_as_it_is(table: &dyn Table) {
    put(table, key("old"), sample()).await;
    let writes = vec![
        Write::check(key("old")).only_if("a", text("one")),
        Write::check(key("nobody")).if_absent(),
        Write::put(key("new"), sample()),
    ];
    table.transact(writes).await.unwrap();
    assert_eq!(row(table, &key("old")).await, Some(sample()));
    assert_eq!(row(table, &key("nobody")).await, None);
    assert_eq!(row(table, &key("new")).await, Some(sample()));
}

async fn a_check_without_a_condition_is_refused(table: &dyn Table) {
    let writes = vec![Write::put(key("new"), sample()), Write::check(key("old"))];
    assert_refused(table.transact(writes).await);
    assert_eq!(row(table, &key("new")).await, None);
}

async fn a_transaction_sees_the_rows_as_they_were_before_it(table: &dyn Table) {
    let writes = vec![
        Write::put(key("new"), sample()),
        Write::check(key("other")).if_absent(),
    ];
    table.transact(writes).await.unwrap();
    let dependent = vec![
        Write::put(key("other"), sample()),
        Write::update(key("third"))
            .only_if("a", text("one"))
            .add("n", 1),
    ];
    assert_conflict(table.transact(dependent).await);
    assert_eq!(row(table, &key("other")).await, None);
}

async fn a_transaction_spans_both_tables(table: &dyn Table) {
    let writes = |n| {
        vec![
            Write::put(key("row"), item([("n", Value::Number(n))])),
            Write::put(key("record"), item([("n", Value::Number(n))])).within(Which::Records),
        ]
    };
    table.transact(writes(1)).await.unwrap();
    let mut failing = writes(2);
    failing.push(
        Write::check(key("third"))
            .if_present()
            .within(Which::Records),
    );
    assert_conflict(table.transact(failing).await);
    let one = Some(item([("n", Value::Number(1))]));
    assert_eq!(row(table, &key("row")).await, one);
    assert_eq!(record(table, &key("record")).await, one);
    assert_eq!(row(table, &key("record")).await, None);
}

async fn a_transaction_with_a_refused_write_writes_nothing(table: &dyn Table) {
    put(table, key("old"), sample()).await;
    for refused in [
        Write::update(key("old")).add("a", 1),
        Write::update(key("old")).set("due_at", text("soon")),
        Write::put(key("new"), item([("due_shard", Value::Number(1))])),
    ] {
        let written = Write::put(key("first"), sample());
        assert_refused(table.transact(vec![written, refused]).await);
        assert_eq!(row(table, &key("first")).await, None);
    }
    assert_eq!(row(table, &key("old")).await, Some(sample()));
    assert_eq!(row(table, &key("new")).await, None);
}

async fn a_row_is_in_a_transaction_once(table: &dyn Table) {
    let twice = vec![
        Write::put(key("row"), sample()),
        Write::check(key("row")).if_absent(),
    ];
    assert_refused(table.transact(twice).await);
    assert_eq!(row(table, &key("row")).await, None);
}

async fn the_same_key_in_both_tables_is_two_rows(table: &dyn Table) {
    let both = vec![
        Write::put(key("row"), sample()),
        Write::update(key("row")).add("n", 5).within(Which::Records),
    ];
    table.transact(both).await.unwrap();
    assert_eq!(row(table, &key("row")).await, Some(sample()));
    let five = Some(item([("n", Value::Number(5))]));
    assert_eq!(record(table, &key("row")).await, five);
    let absent = Write::put(key("row"), sample())
        .if_absent()
        .within(Which::Records);
    assert_failed(write(table, absent).await);
    let elsewhere = Write::put(key("only"), sample())
        .if_absent()
        .within(Which::Records);
    write(table, elsewhere).await.unwrap();
    assert_eq!(row(table, &key("only")).await, None);
    assert_eq!(query(table, "P", "o").await.0, [""; 0]);
}

async fn a_transaction_of_none_is_refused(table: &dyn Table) {
    assert_refused(table.transact(Vec::new()).await);
}

async fn a_transaction_of_a_hundred_is_made_and_of_more_refused(table: &dyn Table) {
    let writes = |count: usize, prefix: &str| -> Vec<Write> {
        (0..count)
            .map(|number| Write::put(key(&format!("{prefix}{number:03}")), sample()))
            .collect()
    };
    table.transact(writes(100, "a#")).await.unwrap();
    assert_eq!(query(table, "P", "a#").await.0.len(), 100);
    assert_refused(table.transact(writes(101, "b#")).await);
    assert_eq!(query(table, "P", "b#").await.0.len(), 0);
}

async fn a_transaction_of_more_than_four_megabytes_is_refused(table: &dyn Table) {
    let writes = |count: usize, prefix: &str| -> Vec<Write> {
        (0..count)
            .map(|number| Write::put(key(&format!("{prefix}{number:03}")), large(390 * 1_024)))
            .collect()
    };
    table.transact(writes(10, "a#")).await.unwrap();
    assert_refused(table.transact(writes(11, "b#")).await);
    assert_eq!(query(table, "P", "b#").await.0.len(), 0);
}

// Many at once.

async fn many_rows_are_read_with_just_the_attributes_asked_for(table: &dyn Table) {
    for (which, sort) in [
        (Which::Tracking, "a"),
        (Which::Tracking, "b"),
        (Which::Records, "a"),
    ] {
        let own = item([
            ("a", text(sort)),
            ("n", Value::Number(1)),
            ("which", text(&format!("{which:?}"))),
        ]);
        write(table, Write::put(key(sort), own).within(which))
            .await
            .unwrap();
    }
    let asked = table.get_many(Which::Tracking, vec![key("b"), key("a")], &["a", "which"]);
    let (mut found, unprocessed) = asked.await.unwrap();
    found.sort();
    let expected =
        |sort: &str, which: &str| (key(sort), item([("a", text(sort)), ("which", text(which))]));
    assert_eq!(
        found,
        [expected("a", "Tracking"), expected("b", "Tracking")]
    );
    assert_eq!(unprocessed, []);
    let asked = table.get_many(Which::Records, vec![key("a"), key("b")], &["a", "which"]);
    assert_eq!(asked.await.unwrap().0, [expected("a", "Records")]);
}

async fn rows_that_are_not_there_are_left_out_of_many(table: &dyn Table) {
    put(table, key("b"), sample()).await;
    let asked = vec![key("a"), key("b"), Key::new("Q", "b")];
    let (found, unprocessed) = table
        .get_many(Which::Tracking, asked, &["a", "n"])
        .await
        .unwrap();
    assert_eq!((found, unprocessed), (vec![(key("b"), sample())], vec![]));
}

async fn a_row_without_any_attribute_asked_for_is_there_all_the_same(table: &dyn Table) {
    put(table, key("row"), sample()).await;
    let asked = table.get_many(Which::Tracking, vec![key("row")], &["other"]);
    assert_eq!(asked.await.unwrap().0, [(key("row"), Item::new())]);
}

async fn many_rows_are_a_hundred_different_ones_at_most(table: &dyn Table) {
    let keys = |count: usize| -> Vec<Key> {
        (0..count)
            .map(|number| key(&format!("{number:03}")))
            .collect()
    };
    for key in keys(100) {
        put(table, key, sample()).await;
    }
    let ask = |keys| table.get_many(Which::Tracking, keys, &["a"]);
    assert_eq!(ask(keys(100)).await.unwrap().0.len(), 100);
    assert_refused(ask(keys(101)).await);
    assert_refused(ask(Vec::new()).await);
    assert_refused(ask(vec![key("a"), key("b"), key("a")]).await);
    assert_refused(table.get_many(Which::Tracking, keys(1), &[]).await);
    assert_refused(table.get_many(Which::Tracking, keys(1), &["a", "a"]).await);
}

async fn what_is_too_much_for_one_read_of_many_comes_back_to_be_asked_again(table: &dyn Table) {
    let keys: Vec<Key> = (0..42).map(|number| key(&format!("{number:03}"))).collect();
    for key in &keys {
        put(table, key.clone(), large(399 * 1_024)).await;
    }
    let (mut found, mut asked, mut left) = (Vec::new(), 0, keys.clone());
    while !left.is_empty() {
        let before = left.len();
        let answer = table.get_many(Which::Tracking, left, &["n"]).await.unwrap();
        assert_eq!(answer.0.len() + answer.1.len(), before);
        assert!(!answer.0.is_empty(), "nobody would ever get on");
        found.extend(answer.0.into_iter().map(|(key, _)| key));
        left = answer.1;
        asked += 1;
    }
    found.sort();
    assert_eq!((found, asked), (keys, 2));
}

// Queries.

async fn a_query_finds_the_prefix_in_its_partition_and_nothing_else(table: &dyn Table) {
    for (partition, sort) in [
        ("P", "FILE"),
        ("P", "FILE#"),
        ("P", "FILE#a"),
        ("P", "FILE#a#b"),
        ("P", "FILE%"),
        ("P", "FILEX#a"),
        ("P", "file#a"),
        ("P", "EVENT#a"),
        ("P#", "FILE#other"),
        ("Q", "FILE#other"),
    ] {
        put(table, Key::new(partition, sort), sample()).await;
    }
    let (sorts, _) = query(table, "P", "FILE#").await;
    assert_eq!(sorts, ["FILE#", "FILE#a", "FILE#a#b"]);
    let page = table.query("P", "FILE#a#", None, None).await.unwrap();
    let expected = (Key::new("P", "FILE#a#b"), sample());
    assert_eq!(page.rows, [expected]);
}

async fn a_query_lists_rows_by_the_bytes_of_their_sort_key(table: &dyn Table) {
    // UTF-16, or a dictionary, would order the last ones otherwise.
    let sorts = [
        "#",
        "##",
        "#%",
        "#+",
        "#0",
        "#10",
        "#9",
        "#A",
        "#Z",
        "#_",
        "#a",
        "#z",
        "#~",
        "#\u{7F}",
        "#ß",
        "#ä",
        "#ö",
        "#\u{3A9}",
        "#\u{20AC}",
        "#\u{E000}",
        "#\u{FB01}",
        "#\u{FFFD}",
        "#\u{10000}",
        "#\u{1F600}",
    ];
    for sort in sorts.iter().rev() {
        put(table, key(sort), Item::new()).await;
    }
    assert_eq!(query(table, "P", "#").await.0, sorts);
}

async fn a_query_of_nothing_is_one_empty_page(table: &dyn Table) {
    put(table, key("a"), sample()).await;
    assert_eq!(query(table, "P", "b").await, (Vec::new(), 1));
    assert_eq!(query(table, "Q", "a").await, (Vec::new(), 1));
}

async fn a_large_partition_takes_several_pages_and_every_row_is_on_one(table: &dyn Table) {
    let expected: Vec<String> = (0..9).map(|number| format!("F#{number}")).collect();
    for sort in &expected {
        put(table, key(sort), large(300 * 1_024)).await;
    }
    put(table, key("G"), sample()).await;
    let (sorts, pages) = query(table, "P", "F#").await;
    assert_eq!(sorts, expected);
    assert!((3..=4).contains(&pages), "{pages} pages of at most 1 MB");
}

async fn a_page_goes_on_after_a_row_that_is_not_there(table: &dyn Table) {
    for sort in ["F#a", "F#c", "F#e"] {
        put(table, key(sort), Item::new()).await;
    }
    for (after, expected) in [
        ("F#a", vec!["F#c", "F#e"]),
        ("F#b", vec!["F#c", "F#e"]),
        ("F#e", vec![]),
    ] {
        let page = table.query("P", "F#", Some(key(after)), None).await;
        let page = page.unwrap();
        let sorts: Vec<&str> = page.rows.iter().map(|(key, _)| key.sort.as_str()).collect();
        assert_eq!(sorts, expected, "after {after}");
    }
}

async fn a_query_reads_no_more_rows_than_its_limit_and_goes_on_behind_them(table: &dyn Table) {
    let expected: Vec<String> = (0..5).map(|number| format!("F#{number}")).collect();
    for sort in &expected {
        put(table, key(sort), sample()).await;
    }
    put(table, key("G"), sample()).await;
    let (mut sorts, mut after) = (Vec::new(), None);
    loop {
        let page = table.query("P", "F#", after, Some(2)).await.unwrap();
        assert!(page.rows.len() <= 2);
        sorts.extend(page.rows.into_iter().map(|(key, _)| key.sort));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(sorts, expected);
}

// The sparse index.

async fn the_index_holds_only_rows_with_both_attributes(table: &dyn Table) {
    put(table, key("both"), due(5)).await;
    put(table, key("neither"), sample()).await;
    put(table, key("shard"), item([("due_shard", text("D"))])).await;
    put(table, key("instant"), item([("due_at", Value::Number(5))])).await;
    assert_eq!(listed(table, "D", 10, 10).await, entries([(5, "both")]));
    // Each is completed by an update.
    for (sort, name, value) in [
        ("shard", "due_at", Value::Number(4)),
        ("instant", "due_shard", text("D")),
    ] {
        write(table, Write::update(key(sort)).set(name, value))
            .await
            .unwrap();
    }
    assert_eq!(
        listed(table, "D", 10, 10).await,
        entries([(4, "shard"), (5, "both"), (5, "instant")])
    );
}

async fn the_index_lists_a_shard_by_instant_up_to_and_with_the_last(table: &dyn Table) {
    for (sort, at) in [("e", 30), ("a", 20), ("c", 9), ("b", 100), ("d", 21)] {
        put(table, key(sort), due(at)).await;
    }
    let mut other = due(1);
    other.insert("due_shard".into(), text("D2"));
    put(table, key("other"), other).await;
    let shown = |until| listed(table, "D", until, 50);
    assert_eq!(shown(8).await, []);
    assert_eq!(shown(20).await, entries([(9, "c"), (20, "a")]));
    assert_eq!(shown(21).await.len(), 3);
    let all = entries([(9, "c"), (20, "a"), (21, "d"), (30, "e"), (100, "b")]);
    assert_eq!(shown(i64::MAX).await, all);
    assert_eq!(listed(table, "D2", 10, 50).await, entries([(1, "other")]));
    assert_eq!(listed(table, "nobody", 10, 50).await, []);
}

async fn the_index_knows_instants_before_the_epoch(table: &dyn Table) {
    for (sort, at) in [
        ("a", -1),
        ("b", -10),
        ("c", 0),
        ("d", i64::MIN),
        ("e", i64::MAX),
    ] {
        put(table, key(sort), due(at)).await;
    }
    let early = entries([(i64::MIN, "d"), (-10, "b"), (-1, "a")]);
    assert_eq!(listed(table, "D", -1, 2).await, early);
    assert_eq!(listed(table, "D", i64::MAX, 2).await.len(), 5);
}

async fn the_index_goes_on_page_by_page_through_entries_of_one_instant(table: &dyn Table) {
    let mut expected = Vec::new();
    for number in 0..23 {
        let (at, sort) = (if number < 20 { 7 } else { 8 }, format!("{number:02}"));
        put(table, key(&sort), due(at)).await;
        expected.push((at, sort));
    }
    for limit in [1, 2, 7, 23, 24, 1_000] {
        assert_eq!(listed(table, "D", 8, limit).await, expected, "by {limit}");
    }
    let first = table.due("D", 8, 7, None).await.unwrap();
    assert_eq!(first.entries.len(), 7, "a page is as long as it may be");
    assert_eq!(first.next.as_ref(), first.entries.last());
}

async fn the_index_goes_on_after_an_entry_that_has_left_it(table: &dyn Table) {
    for number in 0..6 {
        put(table, key(&format!("{number}")), due(number)).await;
    }
    let page = table.due("D", 10, 2, None).await.unwrap();
    let last = page.next.unwrap();
    assert_eq!((last.at, last.key.sort.as_str()), (1, "1"));
    write(table, Write::update(key("1")).remove("due_at"))
        .await
        .unwrap();
    let rest = table.due("D", 10, 10, Some(last)).await.unwrap();
    let instants: Vec<i64> = rest.entries.iter().map(|entry| entry.at).collect();
    assert_eq!(instants, [2, 3, 4, 5]);
    assert_eq!(rest.next, None);
}

async fn a_row_that_is_moved_on_is_listed_once_and_in_its_new_place(table: &dyn Table) {
    put(table, key("a"), due(5)).await;
    put(table, key("b"), due(6)).await;
    let moved = Write::update(key("a"))
        .only_if("due_at", Value::Number(5))
        .set("due_at", Value::Number(7));
    write(table, moved.clone()).await.unwrap();
    assert_eq!(
        listed(table, "D", 10, 10).await,
        entries([(6, "b"), (7, "a")])
    );
    assert_failed(write(table, moved).await);
    let elsewhere = Write::update(key("a")).set("due_shard", text("D2"));
    write(table, elsewhere).await.unwrap();
    assert_eq!(listed(table, "D", 10, 10).await, entries([(6, "b")]));
    assert_eq!(listed(table, "D2", 10, 10).await, entries([(7, "a")]));
}

async fn a_row_that_loses_an_attribute_leaves_the_index(table: &dyn Table) {
    for name in ["due_at", "due_shard"] {
        put(table, key("row"), due(5)).await;
        write(table, Write::update(key("row")).remove(name))
            .await
            .unwrap();
        assert_eq!(listed(table, "D", 10, 10).await, [], "without {name}");
    }
}

async fn a_put_without_the_attributes_takes_a_row_out_of_the_index(table: &dyn Table) {
    put(table, key("row"), due(5)).await;
    put(table, key("row"), sample()).await;
    assert_eq!(listed(table, "D", 10, 10).await, []);
    put(table, key("row"), due(6)).await;
    assert_eq!(listed(table, "D", 10, 10).await, entries([(6, "row")]));
}

async fn a_transaction_moves_its_rows_in_the_index(table: &dyn Table) {
    put(table, key("a"), due(1)).await;
    put(table, key("b"), due(2)).await;
    let writes = |check: &str| {
        vec![
            Write::update(key("a")).set("due_at", Value::Number(3)),
            Write::update(key("b")).remove("due_at").remove("due_shard"),
            Write::put(key("c"), due(4)),
            Write::check(key(check)).if_absent(),
        ]
    };
    assert_refused(table.transact(writes("a")).await);
    let mut failing = writes("nobody");
    failing.push(Write::check(key("d")).if_present());
    assert_conflict(table.transact(failing).await);
    assert_eq!(
        listed(table, "D", 10, 10).await,
        entries([(1, "a"), (2, "b")])
    );
    table.transact(writes("nobody")).await.unwrap();
    assert_eq!(
        listed(table, "D", 10, 10).await,
        entries([(3, "a"), (4, "c")])
    );
}

async fn what_the_index_is_keyed_by_has_one_kind(table: &dyn Table) {
    put(table, key("row"), due(5)).await;
    for (name, value) in [
        ("due_at", text("5")),
        ("due_at", Value::Flag(true)),
        ("due_shard", Value::Number(5)),
        ("due_shard", text("")),
    ] {
        let update = Write::update(key("row")).set(name, value.clone());
        assert_write_refused(write(table, update).await);
        let replaced = Write::put(key("row"), item([(name, value)]));
        assert_write_refused(write(table, replaced).await);
    }
    assert_eq!(listed(table, "D", 10, 10).await, entries([(5, "row")]));
}

async fn a_page_of_the_index_has_room_for_one_entry_at_least(table: &dyn Table) {
    put(table, key("row"), due(5)).await;
    assert_refused(table.due("D", 10, 0, None).await);
    assert_eq!(table.due("D", 10, 1, None).await.unwrap().entries.len(), 1);
}

async fn the_records_table_has_no_index(table: &dyn Table) {
    let record = Write::put(key("row"), due(5)).within(Which::Records);
    write(table, record).await.unwrap();
    assert_eq!(listed(table, "D", 10, 10).await, []);
    let odd = item([("due_at", text("soon")), ("due_shard", text(""))]);
    write(table, Write::put(key("odd"), odd).within(Which::Records))
        .await
        .unwrap();
}
