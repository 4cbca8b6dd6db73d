use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn manifest() -> Input {
    ended(FileOutcome::Imported, Counts::default(), true)
}

fn found(evidence: Evidence) -> Input {
    Input::ExportComplete {
        evidence,
        missing: Vec::new(),
    }
}

#[test]
fn a_transfer_without_a_file_is_looked_at_an_hour_after_its_listener_was_started() {
    let seen = given([]);
    assert!(!seen.is_quiet(at(60) - MILLISECOND, &clocks()));
    assert_ne!(owed(&seen, at(60) - MILLISECOND), Step::CheckCompleteness);
    assert_eq!(owed(&seen, at(60)), Step::CheckCompleteness);
    let triggered = given([
        (30, Input::ListenerTriggered),
        (80, Input::ListenerTriggered),
    ]);
    assert!(!triggered.is_quiet(at(90) - MILLISECOND, &clocks()));
    assert!(triggered.is_quiet(at(90), &clocks()));
    assert_eq!(owed(&triggered, at(90)), Step::CheckCompleteness);
}

#[test]
fn a_file_list_without_any_file_is_a_failure_that_says_so() {
    let transfer = given([
        (5, Input::ListenerTriggered),
        (65, found(Evidence::FileList)),
    ]);
    let verdict = verdict(&transfer);
    assert_eq!(
        (verdict.status, verdict.cause),
        (Status::Failed, Cause::NoFile)
    );
    assert_eq!(
        verdict.message,
        "The server app uploaded no file since 22 Nov 00:05 UTC. Re-run the app migration from the migration assistant once the \
         server app's log shows why. If there was nothing to migrate, nothing is lost. 0 records read: 0 applied, 0 unchanged, \
         0 held, 0 rejected; 0 files. Decided by the platform's file list after a quiet period."
    );
}

#[test]
fn a_manifest_of_nothing_is_a_success_that_says_so() {
    let transfer = given([(0, seen()), (1, manifest()), (1, found(Evidence::Manifest))]);
    let verdict = verdict(&transfer);
    assert_eq!(
        (verdict.status, verdict.cause),
        (Status::Success, Cause::Complete)
    );
    assert!(
        verdict
            .message
            .starts_with("Nothing to migrate: the server app exported no file. 0 records")
            && verdict
                .message
                .ends_with("; 0 files. Complete by the export's manifest."),
        "{}",
        verdict.message
    );
}

#[test]
fn the_platforms_word_that_the_export_is_complete_is_looked_into_at_once() {
    let none = given([(3, Input::ExportPhaseCompleted)]);
    assert_eq!(none.due_at(&clocks()), Some(at(3)));
    assert_eq!(owed(&none, at(3)), Step::CheckCompleteness);
    let mut one = given([(0, seen()), (3, Input::ExportPhaseCompleted)]);
    assert_eq!(one.next_step(at(3), &clocks()), Step::CountFiles);
    assert_eq!(owed(&one, at(3)), Step::Wait);
    one.happens(imported(1, 0), at(4), &clocks());
    assert_eq!(owed(&one, at(4)), Step::CheckCompleteness);
    one.happens(found(Evidence::ExportComplete), at(4), &clocks());
    assert_eq!(verdict(&one).status, Status::Success);
    assert!(
        verdict(&one)
            .message
            .ends_with("Complete by the platform's word that the export is complete.")
    );
}

#[test]
fn the_platforms_word_is_taken_once_and_is_a_sign_of_life() {
    let transfer = given([
        (3, Input::ExportPhaseCompleted),
        (9, Input::ExportPhaseCompleted),
    ]);
    assert_eq!(transfer.exporter.completed_at, Some(at(3)));
    assert_eq!(transfer.exporter.last_heard_at, at(9));
}

#[test]
fn nothing_to_migrate_by_the_platforms_word_is_a_success() {
    let transfer = given([
        (3, Input::ExportPhaseCompleted),
        (3, found(Evidence::ExportComplete)),
    ]);
    assert_eq!(verdict(&transfer).status, Status::Success);
    assert!(verdict(&transfer).message.starts_with("Nothing to migrate"));
}

#[test]
fn the_strongest_sign_that_nothing_more_comes_is_the_evidence() {
    let evidence =
        |inputs: Vec<(u64, Input)>, minutes| given(inputs).evidence(at(minutes), &clocks());
    let errored = || (1, Input::ListenerErrored { exception: None });
    let exported = || (1, Input::ExportPhaseCompleted);
    let file = || vec![(1, seen()), (1, imported(1, 0))];
    let day = 24 * 60;
    assert_eq!(evidence(file(), day), None);
    assert_eq!(evidence(file(), day + 1), Some(Evidence::FileList));
    assert_eq!(
        evidence(vec![exported()], day + 1),
        Some(Evidence::ExportComplete)
    );
    assert_eq!(
        evidence(vec![errored(), exported()], 1),
        Some(Evidence::ListenerError)
    );
}

#[test]
fn the_platforms_list_is_needed_unless_a_manifest_alone_decides() {
    let needs = |more: Vec<(u64, Input)>| {
        let mut inputs = vec![(0, seen())];
        inputs.extend(more);
        given(inputs).needs_file_list()
    };
    assert!(needs(vec![]));
    assert!(!needs(vec![(0, manifest())]));
    assert!(needs(vec![
        (0, manifest()),
        (0, Input::ExportPhaseCompleted)
    ]));
    assert!(needs(vec![
        (0, manifest()),
        (0, Input::ListenerErrored { exception: None })
    ]));
}

#[test]
fn a_look_whose_evidence_is_void_meanwhile_decides_nothing() {
    let quiet_once = given([(0, seen()), (1, imported(1, 0))]);
    let look = at(1 + 24 * 60);
    for (meanwhile, evidence) in [
        // Heard again: no longer quiet.
        (Some(Input::ListenerTriggered), Evidence::FileList),
        // A file was announced: work is open.
        (Some(seen()), Evidence::FileList),
        // Broken off: another evidence.
        (
            Some(Input::ListenerErrored { exception: None }),
            Evidence::FileList,
        ),
        (None, Evidence::Manifest),
        (None, Evidence::ExportComplete),
        (None, Evidence::ListenerError),
    ] {
        let mut transfer = quiet_once.clone();
        if let Some(input) = meanwhile {
            transfer.happens(input, look, &clocks());
        }
        assert!(!transfer.happens(found(evidence), look, &clocks()));
        assert!(transfer.is_open(), "{evidence:?}");
    }
    let mut still = quiet_once.clone();
    assert!(!still.happens(found(Evidence::FileList), look - MILLISECOND, &clocks()));
    assert!(still.happens(found(Evidence::FileList), look, &clocks()));
}

#[test]
fn a_poisoned_file_outweighs_a_complete_export() {
    let poisoned = ended(
        FileOutcome::Poisoned {
            reason: "five".to_owned(),
        },
        Counts::default(),
        false,
    );
    let transfer = given([
        (0, seen()),
        (1, poisoned),
        (1, Input::ExportPhaseCompleted),
        (1, found(Evidence::ExportComplete)),
    ]);
    assert!(transfer.is_open());
    assert_eq!(owed(&transfer, at(1)), Step::Stop(StopReason::Poison));
}

#[test]
fn a_listener_error_before_any_file_names_the_exception_and_that_no_file_came() {
    let transfer = given([
        (
            1,
            Input::ListenerErrored {
                exception: Some("java.lang.Broken".to_owned()),
            },
        ),
        (1, found(Evidence::ListenerError)),
    ]);
    assert!(
        verdict(&transfer).message.starts_with(
            "The export failed on the server before it uploaded any file (java.lang.Broken). Re-run"
        ),
        "{}",
        verdict(&transfer).message
    );
}

#[test]
fn a_missing_file_is_the_reason_when_nothing_else_went_wrong() {
    let transfer = given([
        (0, seen()),
        (1, imported(10, 0)),
        (1, Input::ExportPhaseCompleted),
        (
            1,
            Input::ExportComplete {
                evidence: Evidence::ExportComplete,
                missing: vec!["b".to_owned()],
            },
        ),
    ]);
    assert_eq!(verdict(&transfer).status, Status::Incomplete);
    assert!(
        verdict(&transfer)
            .message
            .starts_with("10 of 10 records arrived (missing: b). Re-run"),
        "{}",
        verdict(&transfer).message
    );
    assert!(
        verdict(&transfer)
            .message
            .contains(". Missing: b. Complete")
    );
}

#[test]
fn the_admin_is_told_what_an_idle_transfer_waits_for() {
    let mut transfer = given([(0, Input::ListenerTriggered)]);
    let told = |transfer: &Transfer| transfer.report(0).message;
    assert!(
        told(&transfer)
            .starts_with("Waiting for the server app's first file since 22 Nov 00:00 UTC")
    );
    transfer.happens(seen(), at(1), &clocks());
    transfer.happens(imported(1, 0), at(2), &clocks());
    assert!(told(&transfer).starts_with("Waiting for the server app since 22 Nov 00:02 UTC"));
    transfer.happens(
        Input::ExportIncomplete {
            waiting_for: "more".to_owned(),
            files_ended: 1,
        },
        at(3),
        &clocks(),
    );
    assert!(told(&transfer).starts_with("Waiting for more since"));
}
