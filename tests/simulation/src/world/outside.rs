//! What happens outside of Landfall: admins, server apps, the platform's events, clocks that jump, deploys.

use serde_json::{Value, json};

use super::attempt::{content, root, tenant_name};
use super::{Action, Webhook, World};
use crate::plan::{Exporter, is_on_forge};
use crate::webhook;

/// Time between two calls of the schedule that brings tokens, in seconds (contracts/forge/manifest.yml).
const REFRESH: u64 = 60 * 60;

impl World {
    pub(super) fn act(&mut self) {
        let now = self.time.now().as_millis();
        while let Some(((at, number), _)) = self.actions.first_key_value() {
            if *at > now {
                return;
            }
            let first = (*at, *number);
            if let Some(action) = self.actions.remove(&first) {
                self.take(action);
            }
        }
    }

    pub(super) fn take(&mut self, action: Action) {
        match action {
            Action::Begin(place) => self.begin(place),
            Action::Upload(place, file) => self.upload(place, file),
            Action::Manifest(place) => self.upload_manifest(place),
            Action::ExportComplete(place) => {
                let id = self.attempts[place].id.clone();
                if self.cloud.platform.complete_export(&id) {
                    self.trace
                        .note("server app", || format!("{id}: its export is complete"));
                    self.emit(place, "export-phase-completed", &json!({}));
                }
            }
            Action::Refresh(place) => self.refresh(place),
            Action::ListenerFails(place) => {
                let id = self.attempts[place].id.clone();
                if self
                    .cloud
                    .platform
                    .fail_listener(&id, "com.example.ExportException")
                {
                    self.trace
                        .note("server app", || format!("{id}: its listener fails"));
                    self.emit(place, "listener-errored", &json!({}));
                }
            }
            Action::Cancel(place) => {
                let id = self.attempts[place].id.clone();
                if self.cloud.platform.cancel(&id) {
                    self.trace.note("admin", || format!("cancels {id}"));
                    self.emit(place, "transfer-cancellation-requested", &json!({}));
                }
            }
            Action::PlatformEnds(place) => {
                let id = self.attempts[place].id.clone();
                if self.cloud.platform.end(&id, "FAILED") {
                    self.trace
                        .note("platform", || format!("ends {id} by itself"));
                }
            }
            Action::AdminLooks(place) => self.look(place),
            Action::Deliver(webhook) => self.deliver(*webhook),
            Action::Jump(worker, off_by_ms) => {
                let machine = &self.workers[worker].machine;
                machine.clock_jumps_to(off_by_ms);
                self.trace.note(machine.name(), || {
                    format!("its clock is {off_by_ms} ms off from now on")
                });
            }
            Action::DeployBegins => {
                for place in (0..self.workers.len()).step_by(2) {
                    self.workers[place].next_release = true;
                }
                self.trace.note("deploy", || {
                    "half of the workers run the next release".to_owned()
                });
            }
            Action::DeployEnds => {
                for worker in &mut self.workers {
                    worker.next_release = true;
                }
                self.next_release = true;
                self.trace
                    .note("deploy", || "all workers run the next release".to_owned());
            }
            Action::Calm => {
                self.fortune.stop();
                self.calm_since = Some(self.time.now().as_millis());
                for worker in &self.workers {
                    worker.machine.clock_jumps_to(0);
                }
                self.trace.note("faults", || "stop".to_owned());
            }
        }
    }

    pub(super) fn begin(&mut self, place: usize) {
        let attempt = self.attempts[place].clone();
        let tenant = tenant_name(attempt.migration.tenant);
        self.cloud
            .platform
            .begin(&tenant, &attempt.id, attempt.original.as_deref());
        self.trace.note("admin", || match &attempt.original {
            Some(original) => format!("re-runs {original} as {}", attempt.id),
            None => format!("starts {} on site {tenant}", attempt.id),
        });
        self.emit(place, "listener-triggered", &json!({}));
        let migration = attempt.migration;
        let files = migration.files.len() as u64;
        let stops = match migration.exporter {
            Exporter::Done => files,
            Exporter::Fails(after) | Exporter::Dies(after) => after.min(files),
        };
        let mut last = 0;
        for file in 0..usize::try_from(stops).unwrap_or(0) {
            last = migration.files[file].at;
            self.later(last, Action::Upload(place, file));
        }
        match (migration.exporter, migration.manifest) {
            (Exporter::Fails(_), _) => self.later(last + 5, Action::ListenerFails(place)),
            (Exporter::Done, Some(after)) => {
                self.later(last + after, Action::Manifest(place));
                if is_on_forge(migration.tenant) {
                    self.later(last + after + 1, Action::ExportComplete(place));
                }
            }
            _ => {}
        }
        if let Some(after) = migration.cancelled {
            self.later(after, Action::Cancel(place));
        }
        if let Some(after) = migration.ended {
            self.later(after, Action::PlatformEnds(place));
        }
        if is_on_forge(migration.tenant) {
            self.later(REFRESH, Action::Refresh(place));
        }
        if migration.rerun.is_some() {
            self.later(5 * 60, Action::AdminLooks(place));
        }
    }

    /// The schedule calls for as long as the attempt lasts; a call that fails is not made again.
    fn refresh(&mut self, place: usize) {
        let attempt = &self.attempts[place];
        let transfer = self.cloud.platform.transfer(&attempt.id);
        if transfer.is_none_or(|transfer| transfer.ended.is_some()) {
            return;
        }
        let webhook = Webhook {
            place,
            tenant: tenant_name(attempt.migration.tenant),
            body: Value::Null,
            attempts_left: 1,
            pause: 0,
        };
        self.deliver(webhook);
        self.later(REFRESH, Action::Refresh(place));
    }

    pub(super) fn upload(&mut self, place: usize, number: usize) {
        let attempt = &self.attempts[place];
        let file = attempt.migration.files[number].clone();
        let of = attempt.migration.files.len();
        let key = format!(
            "{}{}-f{number}",
            if file.poison { "poison-" } else { "" },
            attempt.id
        );
        let label = format!("data-{:04}-of-{of:04}.ndjson", number + 1);
        let content = content(number, &file);
        self.upload_as(place, &key, &label, content);
    }

    pub(super) fn upload_manifest(&mut self, place: usize) {
        let attempt = &self.attempts[place];
        let files: Vec<Value> = attempt
            .uploaded
            .values()
            .map(|(label, content)| json!({"label": label, "records": content.lines().count()}))
            .collect();
        let manifest = json!({"version": 1, "files": files}).to_string();
        let key = format!("{}-manifest", attempt.id);
        self.attempts[place].manifested = true;
        self.upload_as(place, &key, "export-manifest", manifest);
    }

    pub(super) fn upload_as(&mut self, place: usize, key: &str, label: &str, content: String) {
        let attempt = &mut self.attempts[place];
        if !self
            .cloud
            .platform
            .upload(&attempt.id, key, label, content.clone())
        {
            return;
        }
        if label != "export-manifest" {
            attempt
                .uploaded
                .insert(key.to_owned(), (label.to_owned(), content));
        }
        self.trace.note("server app", || format!("uploads {key}"));
        self.emit(
            place,
            "app-data-uploaded",
            &json!({"s3Key": key, "label": label}),
        );
    }

    /// The admin re-runs what failed, as often as the plan's patience goes.
    pub(super) fn look(&mut self, place: usize) {
        let attempt = self.attempts[place].clone();
        let Some(transfer) = self.cloud.platform.transfer(&attempt.id) else {
            return;
        };
        if transfer.ended.is_none() {
            self.later(10 * 60, Action::AdminLooks(place));
        } else if self.cloud.platform.can_rerun(&attempt.id) && attempt.reruns < 2 {
            let mut next = attempt.clone();
            let wait = attempt.migration.rerun.unwrap_or(0);
            next.reruns += 1;
            next.original = Some(attempt.original.unwrap_or_else(|| attempt.id.clone()));
            next.id = format!("m{}-a{}", root(&attempt.id), next.reruns);
            next.uploaded.clear();
            next.manifested = false;
            next.travelling = 0;
            next.lost = false;
            next.ready_at = None;
            next.migration.cancelled = None;
            next.migration.ended = None;
            next.migration.exporter = Exporter::Done;
            next.migration.manifest = Some(30);
            for file in &mut next.migration.files {
                file.poison = false;
            }
            self.attempts.push(next);
            let place = self.attempts.len() - 1;
            self.later(wait, Action::Begin(place));
        }
    }

    /// An event leaves the platform, by its plan's ways.
    pub(super) fn emit(&mut self, place: usize, event_type: &str, more: &Value) {
        let attempt = &self.attempts[place];
        let tenant = tenant_name(attempt.migration.tenant);
        let body = webhook::event(
            event_type,
            &tenant,
            &attempt.id,
            attempt.original.as_deref(),
            self.time.now(),
            more,
        );
        self.send(place, &tenant, &body);
    }

    pub(super) fn send(&mut self, place: usize, tenant: &str, body: &Value) {
        let ways = self.attempts[place].migration.events;
        let lossy = self.calm_since.is_none();
        if lossy && self.random.percent(ways.lost) {
            self.trace
                .note("platform", || format!("loses {}", webhook::name(body)));
            self.attempts[place].lost = true;
            return;
        }
        let mut copies = 1;
        while lossy && copies < 5 && self.random.percent(ways.repeated) {
            copies += 1;
        }
        for _ in 0..copies {
            let delay = self.random.below(ways.delay + 1);
            self.attempts[place].travelling += 1;
            let webhook = Webhook {
                place,
                tenant: tenant.to_owned(),
                body: body.clone(),
                attempts_left: ways.attempts,
                pause: 2,
            };
            self.later(delay, Action::Deliver(Box::new(webhook)));
        }
    }

    pub(super) fn tell_settled(&mut self) -> bool {
        let Some((tenant, id, status)) = self.cloud.platform.next_settled() else {
            return false;
        };
        self.trace
            .note("platform", || format!("{id} is settled: {status}"));
        if let Some(place) = self.attempts.iter().position(|attempt| attempt.id == id) {
            let attempt = &self.attempts[place];
            let more = if self.plan.names_status {
                json!({"transferStatus": status})
            } else {
                json!({})
            };
            let body = webhook::event(
                "transfer-settled",
                &tenant,
                &id,
                attempt.original.as_deref(),
                self.time.now(),
                &more,
            );
            self.send(place, &tenant, &body);
        }
        true
    }

    /// An event's travel is over. Landfall has what it needs once the server app's part is over and nothing travels any more.
    pub(super) fn arrived(&mut self, place: usize) {
        let now = self.time.now().as_millis();
        let attempt = &mut self.attempts[place];
        attempt.travelling = attempt.travelling.saturating_sub(1);
        let transfer = self.cloud.platform.transfer(&attempt.id);
        let told = transfer.is_some_and(|transfer| {
            transfer.cancelled_at.is_some() || transfer.exception.is_some() || attempt.manifested
        });
        if told && attempt.travelling == 0 && attempt.ready_at.is_none() {
            attempt.ready_at = Some(now);
        }
    }
}
