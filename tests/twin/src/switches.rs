//! The readings of what the platform leaves undocumented, each as a switch.

use serde::{Deserialize, Serialize};

use crate::forge::switches::{
    Envelope, ExpiredState, ExportCompleted, FailedMessage, FitClaims, Window,
};

macro_rules! choices {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($(#[$inner])* $variant),+ }
    };
}
pub(crate) use choices;

choices! {
    /// Which `percent` makes a final status count (B8).
    FinalPercent {
        /// Every percent, and none, counts.
        #[default]
        Any,
        /// Only 100 counts, for SUCCESS too; anything else is answered 200 and the transfer stays active.
        #[serde(rename = "only_100")]
        Only100,
        /// FAILED or INCOMPLETE with 100 is answered 400.
        #[serde(rename = "refuse_100")]
        Refuse100,
        /// FAILED and INCOMPLETE count only without `percent`; else 200 and still active.
        OnlyOmitted,
        /// FAILED and INCOMPLETE count only with 1..99; else 200 and still active.
        #[serde(rename = "only_1_to_99")]
        Only1To99,
    }
}
choices! {
    /// What a lower `percent` does to a settling call (B7).
    LowerPercentOnSettle {
        /// Answered 200 and ignored, like any other lower percent.
        #[default]
        Ignored,
        /// The settlement counts, the percent stays.
        Accepted,
    }
}
choices! {
    /// What a second settlement with the same status meets (B12).
    SecondSettlement {
        /// The answer for settled transfers.
        #[default]
        Refused,
        /// 200, nothing changes.
        Ok,
    }
}
choices! {
    /// What the app may do or not do while a cancellation is pending (B5, B6).
    Permission {
        /// Accepted.
        #[default]
        Accept,
        /// Refused with 400.
        Refuse,
    }
}
choices! {
    /// Unit of `createdAt`.
    TimeUnit {
        /// As the API's description says.
        #[default]
        Milliseconds,
        /// As in the samples of the prose.
        Seconds,
    }
}
choices! {
    /// Presence of `messageId` (A9).
    MessageIds {
        /// In every event.
        #[default]
        Always,
        /// In about every second event, by the seed.
        Sometimes,
        /// In no event.
        Never,
        /// In no event of a re-run.
        AbsentInReruns,
    }
}
choices! {
    /// Where an event carries its token (A4).
    TokenPlace {
        /// `Authorization: JWT …`.
        #[default]
        Header,
        /// `?jwt=…`.
        Query,
    }
}
choices! {
    /// Which clock a token's times come from, or are checked against.
    TokenClock {
        /// The machine's: the app's clock is real.
        #[default]
        Wall,
        /// The platform's virtual one.
        Virtual,
    }
}
choices! {
    /// Whether `transfer-settled` is sent (A11).
    SettledEvent {
        /// Whoever settled.
        #[default]
        Always,
        /// Only for `TIMED_OUT` and `CANCELLED`.
        PlatformOnly,
        /// Never.
        Never,
    }
}
choices! {
    /// The field of `transfer-settled` that holds the status (A10).
    SettledStatusField {
        /// As in the Forge schema.
        #[default]
        #[serde(rename = "transferStatus")]
        TransferStatus,
        /// Plain `status`.
        Status,
        /// The envelope only.
        None,
    }
}
choices! {
    /// When a file shows up in the data list (C4).
    DataListed {
        /// Before its event is sent.
        #[default]
        BeforeEvent,
        /// Once its event was acknowledged, or given up.
        AfterEvent,
    }
}
choices! {
    /// `meta.lastEntity` of the last page (C11).
    LastEntity {
        /// The last entity.
        #[default]
        Value,
        /// JSON null.
        Null,
        /// No such field.
        Absent,
    }
}
choices! {
    /// Bodies of errors (B11).
    ErrorBodies {
        /// JSON with a hint why, for whoever debugs the app.
        #[default]
        JsonWithHint,
        /// JSON as a gateway writes it.
        Json,
        /// One line of text.
        Text,
    }
}
choices! {
    /// Which answers acknowledge an event (A2).
    Acknowledged {
        /// Exactly 200.
        #[default]
        #[serde(rename = "only_200")]
        Only200,
        /// Any 2xx.
        #[serde(rename = "any_2xx")]
        Any2xx,
    }
}
choices! {
    /// `aud` in the tokens of events (A4).
    TokenAudience {
        /// No `aud`.
        #[default]
        Absent,
        /// The tenant's client key.
        ClientKey,
    }
}
choices! {
    /// Which transfers `transfer/recent` lists (B15).
    RecentScope {
        /// Those of the calling installation.
        #[default]
        Installation,
        /// Those of the app on the whole site, Jira and Confluence.
        Site,
    }
}
choices! {
    /// Message ids when several endpoints get one event (A8).
    EndpointMessageIds {
        /// One id for all.
        #[default]
        Same,
        /// One id per endpoint.
        Different,
    }
}

/// All switches; one table in the README says what each means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "switches are just that")]
pub(crate) struct Switches {
    pub(crate) final_percent: FinalPercent,
    pub(crate) uncounted_final_keeps_percent: bool,
    pub(crate) lower_percent_on_settle: LowerPercentOnSettle,
    pub(crate) second_identical_settlement: SecondSettlement,
    pub(crate) settled_answer: u16,
    pub(crate) expired_answer: u16,
    pub(crate) unknown_transfer_answer: u16,
    pub(crate) in_progress_while_cancelling: Permission,
    pub(crate) success_while_cancelling: Permission,
    pub(crate) progress_min_interval_ms: u64,
    pub(crate) progress_retry_after_s: Option<u64>,
    pub(crate) mapping_find_max_keys: Option<usize>,
    pub(crate) mapping_holes: f64,
    pub(crate) recent_delay_ms: i64,
    pub(crate) recent_scope: RecentScope,
    pub(crate) last_entity: LastEntity,
    pub(crate) error_bodies: ErrorBodies,
    pub(crate) request_token_clock: TokenClock,
    pub(crate) request_token_leeway_s: i64,
    pub(crate) previous_secret_accepted: bool,

    pub(crate) message_id: MessageIds,
    pub(crate) endpoint_message_ids: EndpointMessageIds,
    pub(crate) created_at_unit: TimeUnit,
    pub(crate) token_in: TokenPlace,
    pub(crate) token_clock: TokenClock,
    pub(crate) token_audience: TokenAudience,
    pub(crate) fresh_token_per_attempt: bool,
    pub(crate) extra_fields: bool,
    pub(crate) unknown_event_types: bool,
    pub(crate) version_parameter: bool,
    pub(crate) listener_errored_details: bool,
    pub(crate) settled_event: SettledEvent,
    pub(crate) settled_status_field: SettledStatusField,
    pub(crate) events_after_settlement: bool,
    pub(crate) acknowledged_by: Acknowledged,
    pub(crate) client_errors_final: bool,
    pub(crate) acknowledge_timeout_ms: u64,
    pub(crate) retry_first_ms: u64,
    pub(crate) retry_max_ms: u64,
    pub(crate) retry_scale: f64,
    pub(crate) retry_max_attempts: Option<u32>,

    pub(crate) data_listed: DataListed,
    pub(crate) url_life_ms: i64,
    pub(crate) store_ranges: bool,
    pub(crate) store_content_encoding: bool,
    pub(crate) store_cut_at_expiry: bool,
    pub(crate) store_bytes_per_second: Option<u64>,

    pub(crate) transfer_life_ms: i64,
    pub(crate) cancel_allowed_after_ms: i64,
    pub(crate) cancel_grace_ms: i64,
    pub(crate) rerun_window_ms: i64,

    pub(crate) forge_token_clock: TokenClock,
    pub(crate) forge_fit_claims: FitClaims,
    pub(crate) forge_fit_life_s: i64,
    pub(crate) forge_system_token_life_s: i64,
    pub(crate) forge_refresh_interval_ms: i64,
    pub(crate) forge_system_token_with_events: bool,
    pub(crate) forge_envelope: Envelope,
    pub(crate) forge_original_transfer_id: bool,
    pub(crate) forge_message_id_everywhere: bool,
    pub(crate) forge_preloaded_event: String,
    pub(crate) forge_answer_type_checked: bool,
    pub(crate) forge_event_attempts: u32,
    pub(crate) forge_export_completed: ExportCompleted,
    pub(crate) forge_data_page: bool,
    pub(crate) forge_most_message_ids: usize,
    pub(crate) forge_settled_answer: u16,
    pub(crate) forge_unknown_transfer_answer: u16,
    pub(crate) forge_unknown_message_answer: u16,
    pub(crate) forge_window: Window,
    pub(crate) forge_window_ms: i64,
    pub(crate) forge_failed_resets_window: bool,
    pub(crate) forge_expired_state: ExpiredState,
    pub(crate) forge_failed_message: FailedMessage,
    pub(crate) forge_implicit_export_end_ms: i64,
}

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

impl Default for Switches {
    fn default() -> Self {
        Self {
            final_percent: FinalPercent::default(),
            uncounted_final_keeps_percent: true,
            lower_percent_on_settle: LowerPercentOnSettle::default(),
            second_identical_settlement: SecondSettlement::default(),
            settled_answer: 403,
            expired_answer: 403,
            unknown_transfer_answer: 403,
            in_progress_while_cancelling: Permission::default(),
            success_while_cancelling: Permission::default(),
            progress_min_interval_ms: 0,
            progress_retry_after_s: Some(1),
            mapping_find_max_keys: None,
            mapping_holes: 0.0,
            recent_delay_ms: 0,
            recent_scope: RecentScope::default(),
            last_entity: LastEntity::default(),
            error_bodies: ErrorBodies::default(),
            request_token_clock: TokenClock::default(),
            request_token_leeway_s: 60,
            previous_secret_accepted: false,

            message_id: MessageIds::default(),
            endpoint_message_ids: EndpointMessageIds::default(),
            created_at_unit: TimeUnit::default(),
            token_in: TokenPlace::default(),
            token_clock: TokenClock::default(),
            token_audience: TokenAudience::default(),
            fresh_token_per_attempt: true,
            extra_fields: false,
            unknown_event_types: false,
            version_parameter: false,
            listener_errored_details: false,
            settled_event: SettledEvent::default(),
            settled_status_field: SettledStatusField::default(),
            events_after_settlement: false,
            acknowledged_by: Acknowledged::default(),
            client_errors_final: false,
            // PROTOCOL 2.4: webhook acknowledgement within 5 seconds.
            acknowledge_timeout_ms: 5_000,
            // PROTOCOL 15: 1, 2, 4, 8 … s, cap 60 s (the schedule itself is an assumption).
            retry_first_ms: 1_000,
            retry_max_ms: 60_000,
            retry_scale: 1.0,
            retry_max_attempts: None,

            data_listed: DataListed::default(),
            // PROTOCOL 2.4: one hour.
            url_life_ms: 60 * MINUTE_MS,
            store_ranges: true,
            store_content_encoding: false,
            store_cut_at_expiry: false,
            store_bytes_per_second: None,

            // PROTOCOL 2.4: 14 days, 30 minutes, 60 minutes, 12 days.
            transfer_life_ms: 14 * DAY_MS,
            cancel_allowed_after_ms: 30 * MINUTE_MS,
            cancel_grace_ms: 60 * MINUTE_MS,
            rerun_window_ms: 12 * DAY_MS,

            forge_token_clock: TokenClock::Virtual,
            forge_fit_claims: FitClaims::default(),
            forge_fit_life_s: 300,
            forge_system_token_life_s: 4 * 60 * 60,
            forge_refresh_interval_ms: 0,
            forge_system_token_with_events: true,
            forge_envelope: Envelope::default(),
            forge_original_transfer_id: true,
            forge_message_id_everywhere: false,
            // D14: by the pattern of the other names.
            forge_preloaded_event: "avi:ecosystem.migration:preloaded:app_data".into(),
            forge_answer_type_checked: true,
            // PROTOCOL 7.4: four retries.
            forge_event_attempts: 5,
            forge_export_completed: ExportCompleted::default(),
            forge_data_page: true,
            // D10.
            forge_most_message_ids: 50,
            forge_settled_answer: 409,
            forge_unknown_transfer_answer: 404,
            forge_unknown_message_answer: 404,
            // PROTOCOL 7.6: 15 minutes, both.
            forge_window: Window::default(),
            forge_window_ms: 15 * MINUTE_MS,
            forge_failed_resets_window: false,
            forge_expired_state: ExpiredState::default(),
            forge_failed_message: FailedMessage::default(),
            forge_implicit_export_end_ms: 15 * MINUTE_MS,
        }
    }
}

impl Switches {
    /// A copy with some switches changed. The error names the switch and what it takes.
    pub(crate) fn patched(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, String> {
        let mut all = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for (name, value) in changes {
            let Some(current) = all.get_mut(name) else {
                return Err(format!("there is no switch {name:?}"));
            };
            *current = value.clone();
            // One at a time, so that the error can name it.
            serde_json::from_value::<Self>(all.clone())
                .map_err(|error| format!("switch {name:?}: {error}"))?;
        }
        let patched: Self = serde_json::from_value(all).map_err(|error| error.to_string())?;
        for (name, value) in [
            ("settled_answer", patched.settled_answer),
            ("expired_answer", patched.expired_answer),
            ("unknown_transfer_answer", patched.unknown_transfer_answer),
            ("forge_settled_answer", patched.forge_settled_answer),
            (
                "forge_unknown_transfer_answer",
                patched.forge_unknown_transfer_answer,
            ),
            (
                "forge_unknown_message_answer",
                patched.forge_unknown_message_answer,
            ),
        ] {
            if ![400, 403, 404, 409].contains(&value) {
                return Err(format!("switch {name:?} must be 400, 403, 404 or 409"));
            }
        }
        if !(0.0..=1.0).contains(&patched.mapping_holes) {
            return Err("switch \"mapping_holes\" must be between 0 and 1".into());
        }
        if !(0.0..=1_000.0).contains(&patched.retry_scale) {
            return Err("switch \"retry_scale\" must be between 0 and 1000".into());
        }
        Ok(patched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patch(changes: &serde_json::Value) -> Result<Switches, String> {
        Switches::default().patched(changes.as_object().expect("an object"))
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let patched = patch(&json!({ "final_percent": "only_1_to_99", "settled_answer": 409 }));
        let expected = Switches {
            final_percent: FinalPercent::Only1To99,
            settled_answer: 409,
            ..Switches::default()
        };
        assert_eq!(patched, Ok(expected));
    }

    #[test]
    fn an_unknown_switch_or_value_is_refused_by_name() {
        assert!(
            patch(&json!({ "finalpercent": "any" })).is_err_and(|e| e.contains("finalpercent"))
        );
        let error = patch(&json!({ "final_percent": "some" })).expect_err("no such value");
        assert!(
            error.contains("final_percent") && error.contains("only_omitted"),
            "{error}"
        );
        assert!(patch(&json!({ "settled_answer": 200 })).is_err());
    }
}
