//! The scheduled trigger: an invocation of the remote whose use is the system token that comes with it.

use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::sleep;
use crate::faults::{Kind, Place};
use crate::forge::token::{Invocation, Module, invocation_request};
use crate::forge::{MOST_KEPT, Refresh, invalid};
use crate::outbound::{AppAnswer, SignedRequest, send};
use crate::platform::{Platform, Work};
use crate::shared::Shared;

/// What came of a scheduled trigger. It is not repeated: the next one comes anyway.
pub(crate) enum Fired {
    Answered(AppAnswer),
    /// A fault lost it.
    Dropped,
    /// The app was uninstalled, or the twin was reset.
    Gone,
}

struct Ready {
    request: SignedRequest,
    body: Vec<u8>,
    timeout: Duration,
    delay: Duration,
    dropped: bool,
}

/// As [`fire`], for the background.
pub(crate) async fn run(shared: Arc<Shared>, epoch: u64, installation: String) {
    if shared.platform().epoch == epoch {
        fire(&shared, &installation).await;
    }
}

/// Invokes the remote's refresh endpoint once.
pub(crate) async fn fire(shared: &Shared, installation: &str) -> Fired {
    let Some(ready) = prepare(shared, installation) else {
        return Fired::Gone;
    };
    if ready.dropped {
        record(shared, installation, None);
        return Fired::Dropped;
    }
    sleep(ready.delay).await;
    let answer = send(
        &shared.http,
        "POST",
        &ready.request,
        ready.body,
        ready.timeout,
    )
    .await;
    record(shared, installation, Some(&answer));
    Fired::Answered(answer)
}

fn prepare(shared: &Shared, id: &str) -> Option<Ready> {
    let mut platform = shared.platform();
    let site = platform.forge_tenant(id)?.site.clone();
    let place = Place {
        target: "forge_refresh",
        site: Some(&site),
        ..Place::default()
    };
    let struck = platform.faults.strike(&place, &[Kind::Drop, Kind::Delay]);
    let delay_ms = struck
        .iter()
        .filter(|rule| rule.kind == Kind::Delay)
        .map(|rule| rule.delay_ms.unwrap_or(1_000))
        .sum();
    let tenant = platform
        .forge_installations
        .iter_mut()
        .find(|tenant| tenant.id == id)?;
    tenant.refresh_count += 1;
    let nth = tenant.refresh_count.to_string();
    let tenant = platform.forge_tenant(id)?;
    let invocation = Invocation {
        installation: tenant,
        module: Module::ScheduledTrigger,
        words: &["refresh", id, &nth],
    };
    let url = tenant.url(&tenant.refresh_path);
    let body = json!({
        "context": { "cloudId": tenant.cloud_id, "moduleKey": "token-refresh" },
        "contextToken": null,
    });
    Some(Ready {
        request: invocation_request(shared, &platform, &invocation, &url, true).ok()?,
        body: body.to_string().into_bytes(),
        timeout: Duration::from_millis(platform.switches.acknowledge_timeout_ms),
        delay: Duration::from_millis(delay_ms),
        dropped: struck.iter().any(|rule| rule.kind == Kind::Drop),
    })
}

fn record(shared: &Shared, id: &str, answer: Option<&AppAnswer>) {
    let mut platform = shared.platform();
    platform.count(match answer {
        Some(_) => "forge.refreshes",
        None => "forge.refreshes_dropped",
    });
    let type_checked = platform.switches.forge_answer_type_checked;
    let refresh = Refresh {
        at_ms: platform.clock.now_ms(),
        dropped: answer.is_none(),
        status: answer.and_then(|answer| answer.status),
        error: answer.and_then(|answer| invalid(answer, type_checked)),
    };
    let tenant = platform
        .forge_installations
        .iter_mut()
        .find(|tenant| tenant.id == id);
    if let Some(tenant) = tenant
        && tenant.refreshes.len() < MOST_KEPT
    {
        tenant.refreshes.push(refresh);
    }
}

impl Platform {
    /// Fires the scheduled triggers that are due: one per installation, however far the clock jumped.
    pub(crate) fn tick_refreshes(&mut self) {
        let interval = self.switches.forge_refresh_interval_ms;
        if interval <= 0 {
            return;
        }
        let now = self.clock.now_ms();
        let mut due = Vec::new();
        for tenant in &mut self.forge_installations {
            let passed = (now - tenant.refreshed_ms) / interval;
            if tenant.active && passed > 0 {
                tenant.refreshed_ms += passed * interval;
                due.push(tenant.id.clone());
            }
        }
        for installation in due {
            self.queue(Work::Refresh {
                epoch: self.epoch,
                installation,
            });
        }
    }
}
