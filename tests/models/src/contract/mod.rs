//! What the store promises on top of its table: who may write what, and what stands afterwards.
//!
//! Each condition and each assignment of the store's writes has a check here that fails without it. Races are made by hand:
//! a meddled store lets something happen between what a call reads and what it writes.

#![allow(
    clippy::unwrap_used,
    reason = "a check says what went wrong by panicking"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "an outcome is handed over to be judged"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "the list of checks names each of them"
)]

mod due;
mod files;
mod meddling;
mod paces;
mod records;
mod segments;
mod tenants;
mod timeline;
mod tokens;
mod transfers;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use landfall_clock::Clock;
use landfall_tracking::{Due, DueItem, Item, Key, SecretKey, Store, Table, Told, Value, Vault};
use landfall_transfer::{Clocks, Input, StopReason, TenantId, Timestamp, Transfer, TransferId};
use secrecy::SecretString;

use crate::checks::checks;
use crate::data_keys::vault;
use due::*;
use files::*;
use meddling::Meddled;
use paces::*;
use records::*;
use segments::*;
use tenants::*;
use timeline::*;
use tokens::*;
use transfers::*;

checks! {
    $ store_contract(&Subject):
    // Files.
    an_upload_is_stored_as_announced_and_due_when_its_grace_is_over,
    an_upload_that_is_announced_twice_is_one_file_as_it_was_first,
    an_upload_whose_row_is_there_is_found_and_not_put,
    an_upload_of_which_only_the_message_survived_makes_its_row_once,
    a_file_that_was_found_announced_is_taken_up_as_it_stands_by_now,
    a_file_that_was_found_is_not_taken_up_once_its_transfer_has_been_stopped_and_its_files_fenced_off,
    an_upload_that_is_announced_again_after_it_was_taken_up_changes_nothing,
    of_two_workers_one_takes_the_file_and_it_is_counted_once,
    a_file_that_is_taken_up_is_held_and_due_when_its_lease_runs_out,
    a_file_that_is_taken_up_stays_due_when_it_was_if_its_lease_ends_later,
    a_file_that_is_moved_on_while_it_is_taken_up_is_due_when_its_lease_ends_at_the_latest,
    a_file_that_is_taken_up_while_a_sweep_looks_at_it_is_not_moved_behind_its_lease,
    a_file_is_taken_over_only_when_its_lease_has_run_out,
    the_timeline_tells_who_took_a_file_up_first_and_who_took_it_over,
    a_takeover_has_a_newer_token_and_counts_an_attempt_and_leaves_the_transfer_alone,
    a_file_that_the_index_had_lost_is_in_it_again_when_it_is_taken_up,
    a_file_or_transfer_that_is_not_there_can_not_be_taken_up,
    of_two_workers_that_take_over_at_once_the_slower_gets_nothing,
    a_file_that_is_dropped_while_it_is_taken_up_stays_dropped,
    taking_a_file_up_and_ending_it_leaves_its_transfer_alone,
    a_file_that_is_taken_up_while_its_transfer_is_stopped_is_fenced_off,
    a_file_is_not_taken_up_once_its_transfer_is_fenced,
    a_file_that_is_taken_over_while_its_transfer_is_stopped_is_fenced_off,
    a_file_is_not_taken_over_once_its_transfer_is_fenced,
    a_batch_that_is_committed_while_its_file_is_taken_over_is_gone_on_from,
    a_batch_moves_records_exceptions_and_checkpoint_together,
    a_file_whose_first_pass_has_ended_waits_for_its_second_and_is_due_behind_it,
    the_exceptions_of_a_file_are_those_of_the_pass_that_counts,
    exceptions_of_any_number_and_size_are_kept_and_read_back_in_their_order,
    a_worker_that_was_taken_over_keeps_no_exceptions,
    a_lease_holds_until_the_file_is_taken_over_or_its_transfer_stopped,
    a_batch_that_is_committed_again_after_its_answer_was_lost_is_the_same_batch,
    the_place_where_a_file_can_be_entered_again_is_kept_for_14_days_until_a_later_one_replaces_it,
    the_mappings_that_a_transfer_used_are_kept_with_its_history_and_read_in_order,
    a_worker_that_was_taken_over_commits_nothing,
    a_worker_commits_nothing_for_a_file_that_has_ended,
    a_lease_that_is_renewed_holds_longer,
    a_lease_that_was_lost_can_not_be_renewed,
    a_file_given_back_in_order_is_taken_up_again_without_an_attempt_counted,
    a_file_given_back_after_a_failure_keeps_its_attempts,
    a_file_given_back_is_free_at_once_and_due_when_it_was_said,
    a_file_that_was_lost_can_not_be_given_back,
    a_file_ends_once_and_is_counted_once,
    a_file_that_has_ended_is_nobodys_and_nothing_is_due_for_it,
    a_file_ends_in_one_write_with_its_last_batch,
    a_worker_that_was_taken_over_ends_nothing_with_its_last_batch,
    a_transfer_with_messages_that_changes_while_a_file_ends_with_its_last_batch_keeps_its_change,
    a_last_batch_ends_its_file_until_its_transfer_is_fenced,
    a_last_batch_is_kept_though_its_message_can_not_be_answered_any_more,
    a_last_batch_that_fills_a_transaction_is_written_before_the_file_ends,
    files_that_end_at_once_are_all_counted,
    what_a_file_measures_is_kept_as_far_as_it_is_known,
    a_manifest_is_kept_with_the_file_that_ended,
    a_transfer_with_messages_that_changes_while_a_file_ends_keeps_its_change,
    a_worker_that_was_taken_over_ends_nothing,
    a_worker_that_is_taken_over_while_it_ends_a_file_ends_nothing,
    a_file_does_not_end_once_its_transfer_is_fenced,
    after_a_transfer_is_stopped_and_fenced_nothing_is_written_for_it,
    fencing_drops_what_was_never_taken_up_and_counts_what_has_ended,
    fencing_leaves_nothing_due_and_moves_the_token_on,
    fencing_counts_a_batch_that_is_committed_meanwhile,
    fencing_leaves_a_file_that_ends_meanwhile_as_it_ended,
    fencing_catches_a_file_that_is_taken_up_meanwhile,
    fencing_catches_a_file_that_is_taken_over_meanwhile,
    fencing_names_the_last_lease_that_still_runs,
    a_worker_that_stopped_gives_its_lease_back_only_when_it_was_fenced_off,
    a_worker_that_stopped_leaves_a_later_workers_lease_alone,
    only_a_file_that_was_never_taken_up_is_dropped,
    dropping_a_file_that_is_not_there_makes_none,
    all_files_of_a_transfer_are_listed_and_no_others,
    the_rows_of_files_add_up_to_what_a_transfer_knows_of_them,
    an_open_file_is_found_wherever_it_lies_and_not_where_there_is_none,
    // Transfers.
    a_transfer_is_created_once_and_listed_under_its_chain,
    a_transfer_that_exists_is_not_created_over,
    of_two_writers_that_read_the_same_version_one_wins,
    every_save_is_over_the_one_before_it,
    a_transfer_that_was_never_created_can_not_be_saved,
    a_chain_that_is_joined_lists_the_attempt_in_the_same_write,
    a_chain_is_not_joined_over_a_newer_version,
    attempts_are_listed_in_the_order_in_which_they_were_first_seen,
    a_transfer_is_due_as_long_as_something_is_owed,
    a_transfers_row_says_beside_its_state_what_support_looks_for,
    a_transfer_of_a_newer_release_is_not_read_and_not_touched,
    the_timeline_keeps_entries_of_one_millisecond_apart_and_writes_none_twice,
    a_state_and_what_is_told_of_it_are_written_together,
    an_entry_that_this_release_can_not_read_is_told_as_unknown,
    the_timeline_tells_what_the_rows_of_events_and_files_show,
    a_file_that_has_ended_is_kept_as_history_without_what_its_work_needed,
    what_an_earlier_release_has_told_besides_is_told_once,
    a_file_that_only_a_list_showed_is_not_told_as_announced,
    // Events and what is due.
    an_event_is_stored_once_and_found_by_the_sweeper_until_it_is_handled,
    an_event_that_comes_twice_stays_as_it_came_first,
    an_event_that_was_handled_is_a_duplicate_when_it_comes_again,
    an_event_whose_row_was_lost_is_stored_when_it_is_handled,
    an_event_without_a_transfer_lies_with_its_tenant,
    a_due_row_is_moved_on_by_one_sweeper_only,
    a_due_row_that_was_dealt_with_is_not_moved_on,
    every_kind_of_due_row_is_read_as_what_it_is,
    a_row_is_due_from_its_instant_on,
    a_due_row_of_an_unknown_kind_is_not_guessed_at,
    every_due_row_is_reached_page_by_page,
    warming_up_needs_nothing_to_be_there,
    // Tenants.
    a_reinstall_rotates_the_secret_and_the_old_one_stays_valid_for_a_while,
    an_uninstalled_tenant_is_known_as_such_and_its_old_secret_never_comes_back,
    a_tenant_whose_secret_was_sealed_with_a_lost_key_is_healed_by_installing_again,
    a_stranger_who_uninstalls_stays_a_stranger,
    of_two_first_installations_at_once_one_wins,
    of_two_reinstallations_at_once_one_wins,
    an_uninstallation_during_an_installation_is_not_written_over,
    an_installed_tenant_is_due_at_once_and_an_uninstalled_one_never,
    what_was_refused_is_noted_beside_the_tenant,
    a_transfer_listed_without_an_event_is_noted_once,
    counters_count,
    // Tokens.
    an_installation_that_sent_no_token_has_none,
    a_token_is_kept_sealed_for_its_installation_until_it_ends,
    of_several_tokens_the_one_that_ends_last_stays_in_whatever_order_they_come,
    a_token_that_comes_while_another_is_kept_is_written_over_only_by_a_later_one,
    a_token_that_was_sealed_with_a_lost_key_is_written_over_by_a_later_one,
    a_token_of_a_newer_release_is_neither_read_nor_written_over,
    a_token_that_an_older_release_kept_is_read_and_learns_the_rest,
    where_the_product_is_called_stays_known_whatever_token_comes,
    what_two_calls_say_at_once_of_an_installation_is_both_kept,
    an_installation_is_heard_also_by_calls_without_a_newer_token,
    // Paces.
    a_site_that_nobody_called_has_the_first_pace_and_no_row,
    a_pace_is_kept_for_its_tenant_until_nobody_called_it_for_long,
    of_two_who_write_a_pace_that_they_read_the_slower_writes_nothing,
    // Records.
    records_land_in_the_records_table_and_say_nothing_of_the_attempt,
    records_of_other_labels_chains_and_tenants_are_others,
    a_record_with_a_long_key_is_found_again,
    any_number_of_records_is_looked_up,
    a_record_that_arrives_again_replaces_itself,
    // Segments.
    segments_are_read_back_by_attempt_and_label_in_the_order_of_the_file,
    a_segment_that_is_kept_again_replaces_itself,
    a_worker_that_was_taken_over_does_not_replace_its_successors_segment,
    a_worker_that_is_taken_over_while_it_replaces_a_segment_replaces_nothing,
    a_segment_of_a_newer_release_is_not_passed_over,
}

/// A store, and the tables below it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The store.
    pub store: Store,
    table: Arc<dyn Table>,
}

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_763_769_600_000);
pub(crate) const LEASE: Duration = Duration::from_secs(90);
pub(crate) const GRACE: Duration = Duration::from_mins(2);

impl Subject {
    /// A store on these tables, which must be empty.
    pub fn on(table: Arc<dyn Table>) -> Self {
        Self {
            store: Store::new(Arc::clone(&table), vault(), Clock::system()),
            table,
        }
    }

    /// A store on the same tables, with something that happens right before its first write.
    fn meddled(
        &self,
        meddle: impl FnOnce(Self) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Store {
        self.meddled_after(0, meddle)
    }

    /// Likewise right before the write that comes after so many.
    fn meddled_after(
        &self,
        writes: usize,
        meddle: impl FnOnce(Self) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Store {
        let meddling = meddle(self.clone());
        let table = Meddled::new(Arc::clone(&self.table), writes, meddling);
        Store::new(Arc::new(table), vault(), Clock::system())
    }

    /// A store on the same tables that seals and opens with another key.
    fn with_another_key(&self) -> Store {
        let key = SecretString::from("/////wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let another = Vault::local(Arc::new(SecretKey::from_base64(&key).unwrap()));
        Store::new(Arc::clone(&self.table), Arc::new(another), Clock::system())
    }

    /// A row as it lies in the table.
    async fn row(&self, partition: &str, sort: &str) -> Option<Item> {
        let key = Key::new(partition, sort);
        self.table.get(&key, true).await.unwrap()
    }

    /// What the row of a file lies there with.
    async fn file_row(&self, s3_key: &str) -> Item {
        let sort = format!("FILE#{s3_key}");
        self.row("TRANSFER#tenant#transfer-1", &sort).await.unwrap()
    }

    /// The rows below a prefix of a partition.
    async fn rows(&self, partition: &str, prefix: &str) -> Vec<(Key, Item)> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .table
                .query(partition, prefix, after, None)
                .await
                .unwrap();
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                return rows;
            }
        }
    }

    async fn open_transfer(&self) -> landfall_tracking::Stored {
        let transfer = Transfer::first_seen(tenant(), id(), None, None, NOW);
        self.store
            .create(&transfer, &Told::nothing(), &Clocks::default())
            .await
            .unwrap()
    }

    async fn transfer(&self) -> Transfer {
        let stored = self.store.transfer(&tenant(), &id()).await.unwrap();
        stored.unwrap().transfer
    }

    /// Applies an input to the transfer and writes it.
    async fn apply(&self, input: Input) {
        let stored = self.store.transfer(&tenant(), &id()).await.unwrap();
        let stored = stored.unwrap();
        let mut transfer = stored.transfer.clone();
        transfer.apply(input, later(1), &Clocks::default());
        self.store
            .save(&stored, transfer, &Told::nothing(), &Clocks::default())
            .await
            .unwrap();
    }

    async fn stop(&self) {
        self.apply(Input::Stop(StopReason::Cancelled)).await;
    }

    /// What the index shows, of all its partitions.
    async fn due_rows(&self, now: Timestamp) -> Vec<Due> {
        let mut rows = Vec::new();
        for shard in Store::due_shards() {
            let mut page = self.store.due(shard, now, None).await.unwrap();
            rows.append(&mut page.rows);
            while page.has_next() {
                page = self.store.due(shard, now, Some(page)).await.unwrap();
                rows.append(&mut page.rows);
            }
        }
        rows
    }

    /// What is due, as the sweeper reads it.
    async fn due(&self, now: Timestamp) -> Vec<DueItem> {
        let mut items = Vec::new();
        for row in self.due_rows(now).await {
            items.push(self.store.due_item(&row, now).await.unwrap());
        }
        items
    }

    /// The files among what is due, by their keys.
    async fn due_files(&self, now: Timestamp) -> Vec<String> {
        let mut files: Vec<String> = self
            .due(now)
            .await
            .into_iter()
            .filter_map(|item| match item {
                DueItem::File(file) => Some(file.s3_key),
                _ => None,
            })
            .collect();
        files.sort_unstable();
        files
    }
}

fn tenant() -> TenantId {
    TenantId::new("tenant")
}

fn id() -> TransferId {
    TransferId::new("transfer-1")
}

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

const fn instant(at: Timestamp) -> Value {
    Value::Number(at.as_millis())
}

const DAY: i64 = 86_400;

/// When a row is removed by the service, so many days after an instant.
const fn expires(at: Timestamp, days: i64) -> Value {
    Value::Number(at.as_seconds() + days * DAY)
}
