//! Files of comma separated values.

use landfall_import::declaration::{ColumnType, Csv, Format, OnMiss};
use landfall_import::{Counts, FileProblem};

use crate::world::{World, applied, gzip, numbered};

const TEXT: &str = "id,user,text\r\n1,7,\"a, \"\"b\"\"\nc\"\r\n2,8,plain\r\n3,,\r\n";

fn world(text: &str) -> World {
    World::new("people.csv", text.to_owned())
}

#[tokio::test]
async fn each_row_is_a_record_with_the_headers_names() {
    let world = world(TEXT);
    assert_eq!(world.finish().await, (applied(3), None));
    assert_eq!(
        world.records(),
        [
            r#"{"id":"1","user":"7","text":"a, \"b\"\nc"}"#,
            r#"{"id":"2","user":"8","text":"plain"}"#,
            r#"{"id":"3","user":"","text":""}"#,
        ]
    );
    assert_eq!(world.landed(), ["1", "2", "3"]);
}

#[tokio::test]
async fn ids_in_columns_are_replaced() {
    let world = world(TEXT).maps_user(OnMiss::Keep).knows_user("7", "700");
    assert_eq!(world.finish().await, (applied(3), None));
    assert_eq!(
        world.records()[0],
        r#"{"id":"1","user":"700","text":"a, \"b\"\nc"}"#
    );
}

#[tokio::test]
async fn every_slice_goes_on_in_mid_file_without_the_header() {
    let rows = numbered(50, |id| format!("{id},\"x\n{id}\"\n"));
    let text = format!("id,text\n{rows}");
    for bytes in [text.clone().into_bytes(), gzip(&text, 2)] {
        let mut world = World::new("a.csv", bytes);
        world.hurried = true;
        assert_eq!(world.finish().await, (applied(50), None));
        let records = world.records();
        let expected = |id: usize| format!(r#"{{"id":"{id}","text":"x\n{id}"}}"#);
        assert!((0..50).all(|id| records.contains(&expected(id))));
        assert!(world.ledger.stored.lock().unwrap().commits.len() > 10);
    }
}

#[tokio::test]
async fn declared_columns_types_delimiter_and_null_decide_what_a_row_says() {
    let mut world = World::new("a.txt", "1;2.50;no\n2;\\N;yes\n3;x;yes\n");
    world.import.format = Format::Csv;
    world.import.csv = Csv {
        delimiter: Some(';'),
        columns: Some(["id", "price", "sold"].map(str::to_owned).into()),
        types: [("price".to_owned(), ColumnType::Number)].into(),
        null: Some("\\N".to_owned()),
    };
    let counts = Counts {
        read: 3,
        applied: 2,
        rejected: 1,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.records(),
        [
            r#"{"id":"1","price":2.50,"sold":"no"}"#,
            r#"{"id":"2","price":null,"sold":"yes"}"#,
        ]
    );
    assert_eq!(
        world.rejections(),
        ["3 - rejected: the column \"price\": holds no number"]
    );
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_rejected_and_the_file_goes_on() {
    let world = world("id,user\n1\n2,b,c\n3,d\n");
    let counts = Counts {
        read: 3,
        applied: 1,
        rejected: 2,
        ..Counts::default()
    };
    assert_eq!(world.finish().await, (counts, None));
    assert_eq!(
        world.rejections(),
        [
            "1 - rejected: the row has 1 fields, the header 2",
            "2 - rejected: the row has 3 fields, the header 2",
        ]
    );
}

#[tokio::test]
async fn a_header_that_names_no_columns_ends_the_file() {
    let problem = FileProblem::BadHeader {
        reason: "two columns are named \"id\"".to_owned(),
    };
    assert_eq!(
        world("id,id\n1,2\n").finish().await,
        (applied(0), Some(problem))
    );
    assert_eq!(world("").finish().await, (applied(0), None));
    assert_eq!(world("id\n").finish().await, (applied(0), None));
}

#[tokio::test]
async fn a_file_that_ends_between_quotes_keeps_what_was_good() {
    assert_eq!(
        world("id\n1\n\"2\n").finish().await,
        (applied(1), Some(FileProblem::QuoteNotClosed { offset: 5 }))
    );
}

#[tokio::test]
async fn a_row_that_its_columns_names_make_too_large_is_rejected() {
    let name = "n".repeat(150);
    let world = world(&format!("id,{name}\n1,{}\n", "x".repeat(60)));
    assert_eq!(world.finish().await.0.rejected, 1);
    assert!(world.rejections()[0].contains("with the names of its columns"));
}
