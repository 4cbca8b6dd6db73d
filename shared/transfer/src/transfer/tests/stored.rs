use super::*;

/// A row of version 1 as the first release wrote it, of each phase.
const VERSION_1: [(&str, &str); 4] = [
    ("OPEN", include_str!("stored/version-1-open.json")),
    ("STOPPING", include_str!("stored/version-1-stopping.json")),
    ("SETTLING", include_str!("stored/version-1-settling.json")),
    ("SETTLED", include_str!("stored/version-1-settled.json")),
];

#[test]
fn a_stored_state_reads_back_as_it_was() {
    let transfer = given([
        (0, seen()),
        (1, imported(10, 1)),
        (1, complete()),
        (1, Input::SettlementBegun),
    ]);
    let stored = serde_json::to_string(&transfer).unwrap();
    assert_eq!(serde_json::from_str::<Transfer>(&stored).unwrap(), transfer);
}

#[test]
fn rows_of_version_1_are_still_read_and_still_owe_their_step() {
    for (phase, stored) in VERSION_1 {
        let transfer: Transfer = serde_json::from_str(stored).unwrap();
        assert_eq!(transfer.phase.as_str(), phase);
        assert_eq!(transfer.exporter.completed_at, None);
        let step = transfer.next_step(at(30 * 24 * 60), &clocks());
        let owed = match phase {
            // Whoever wrote it has not counted its files as we do.
            "OPEN" => Step::CountFiles,
            "STOPPING" => Step::FenceFiles,
            "SETTLING" => Step::Settle,
            _ => Step::Wait,
        };
        assert_eq!(step, owed, "{phase}");
    }
}

#[test]
fn what_version_1_told_is_kept_when_its_rows_are_written_again() {
    for (phase, stored) in VERSION_1 {
        let before: serde_json::Value = serde_json::from_str(stored).unwrap();
        let transfer: Transfer = serde_json::from_str(stored).unwrap();
        let after = serde_json::to_value(&transfer).unwrap();
        assert_kept(&before, &after, phase);
    }
}

/// Everything of `before` is in `after`, which may have more.
fn assert_kept(before: &serde_json::Value, after: &serde_json::Value, at: &str) {
    match (before, after) {
        (serde_json::Value::Object(before), serde_json::Value::Object(after)) => {
            // What there was nothing of is left out, so that a row stays below a kilobyte.
            let there =
                |value: &serde_json::Value| !value.is_null() && *value != serde_json::json!({});
            for (name, value) in before.iter().filter(|(_, value)| there(value)) {
                let kept = after.get(name).unwrap_or_else(|| panic!("{at}.{name}"));
                assert_kept(value, kept, &format!("{at}.{name}"));
            }
        }
        _ => assert_eq!(before, after, "{at}"),
    }
}
