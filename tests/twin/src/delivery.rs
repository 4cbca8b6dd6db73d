//! Delivery of events: five seconds to answer, then again and again until acknowledged.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::clock::sleep;
use crate::export;
use crate::faults::{Kind, Place};
use crate::forge::{self, refresh};
use crate::outbound::{
    Algorithm, AppAnswer, Signatory, SignedRequest, TokenCarrier, TokenWish, send, signed,
};
use crate::platform::{Attempt, Delivered, Outgoing, Platform, Transfer, Work};
use crate::shared::Shared;
use crate::switches::{Acknowledged, TokenAudience, TokenPlace};

/// Carries out the platform's background work until the twin stops; all of it ends with this future.
pub(crate) async fn run(shared: Arc<Shared>, mut outbox: UnboundedReceiver<Work>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            work = outbox.recv() => match work {
                Some(Work::Deliver(outgoing)) => {
                    tasks.spawn(deliver(Arc::clone(&shared), outgoing));
                }
                Some(Work::Export { epoch, transfer }) => {
                    tasks.spawn(export::run(Arc::clone(&shared), epoch, transfer));
                }
                Some(Work::Refresh { epoch, installation }) => {
                    tasks.spawn(refresh::run(Arc::clone(&shared), epoch, installation));
                }
                None => return,
            },
            _ = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

struct Ready {
    request: SignedRequest,
    body: Vec<u8>,
    timeout: Duration,
    cut: bool,
    lose_answer: bool,
}

enum Next {
    Again(Duration),
    Acknowledged,
    Over,
}

async fn deliver(shared: Arc<Shared>, outgoing: Outgoing) {
    let Some((delay_ms, planned_copies)) = look(&shared, &outgoing) else {
        return;
    };
    let mut first_token = None;
    if let Some(copies) = outgoing.extra_copies {
        for _ in 0..copies {
            if attempt(&shared, &outgoing, &mut first_token, true)
                .await
                .is_none()
            {
                return;
            }
        }
        return;
    }
    if delay_ms > 0 {
        sleep(Duration::from_millis(delay_ms)).await;
    }
    loop {
        match attempt(&shared, &outgoing, &mut first_token, false).await {
            None | Some(Next::Over) => return,
            Some(Next::Acknowledged) => break,
            Some(Next::Again(wait)) => sleep(wait).await,
        }
    }
    for _ in 0..planned_copies {
        if attempt(&shared, &outgoing, &mut first_token, true)
            .await
            .is_none()
        {
            return;
        }
    }
}

fn look(shared: &Shared, outgoing: &Outgoing) -> Option<(u64, u32)> {
    let platform = shared.platform();
    if platform.epoch != outgoing.epoch {
        return None;
    }
    let event = platform
        .transfer(&outgoing.transfer)?
        .events
        .get(outgoing.event)?;
    Some((event.delay_ms, event.copies))
}

/// One POST. `None` when the event must not be sent any more.
async fn attempt(
    shared: &Shared,
    outgoing: &Outgoing,
    first_token: &mut Option<SignedRequest>,
    duplicate: bool,
) -> Option<Next> {
    let _turn = shared.deliveries.acquire().await.ok()?;
    let ready = prepare(shared, outgoing, first_token, duplicate)?;
    let answer = if ready.cut {
        AppAnswer {
            status: None,
            body: String::new(),
            elapsed_ms: 0,
            error: Some("connection cut by a fault".into()),
            content_type: None,
        }
    } else {
        send(
            &shared.http,
            "POST",
            &ready.request,
            ready.body,
            ready.timeout,
        )
        .await
    };
    record(shared, outgoing, answer, ready.lose_answer, duplicate)
}

fn prepare(
    shared: &Shared,
    outgoing: &Outgoing,
    first_token: &mut Option<SignedRequest>,
    duplicate: bool,
) -> Option<Ready> {
    let mut platform = shared.platform();
    if platform.epoch != outgoing.epoch {
        return None;
    }
    if !may_send(&platform, outgoing) {
        close(&mut platform, outgoing, Delivered::Stopped, duplicate);
        return None;
    }
    let reused = first_token
        .take()
        .filter(|_| !platform.switches.fresh_token_per_attempt);
    let transfer = platform.transfer(&outgoing.transfer)?;
    let event = &transfer.events[outgoing.event];
    let (request, body) = if transfer.forge.is_some() {
        forge::events::request(shared, &platform, transfer, outgoing.event)?
    } else {
        connect_request(&platform, transfer, outgoing)?
    };
    let request = reused.unwrap_or(request);
    *first_token = Some(request.clone());
    let (event_type, site) = (event.event_type.clone(), transfer.site.clone());
    let place = Place {
        target: "events",
        event_type: Some(&event_type),
        transfer_id: Some(&outgoing.transfer),
        site: Some(&site),
    };
    let struck = platform
        .faults
        .strike(&place, &[Kind::Cut, Kind::LoseAnswer]);
    Some(Ready {
        request,
        body,
        timeout: Duration::from_millis(platform.switches.acknowledge_timeout_ms),
        cut: struck.iter().any(|rule| rule.kind == Kind::Cut),
        lose_answer: struck.iter().any(|rule| rule.kind == Kind::LoseAnswer),
    })
}

/// The request for one attempt at an event, signed for the Connect app.
fn connect_request(
    platform: &Platform,
    transfer: &Transfer,
    outgoing: &Outgoing,
) -> Option<(SignedRequest, Vec<u8>)> {
    let switches = &platform.switches;
    let event = &transfer.events[outgoing.event];
    let delivery = &event.deliveries[outgoing.delivery];
    let installation =
        platform.installation(&transfer.site, transfer.product, &transfer.app_key)?;
    let mut body = event.body.clone();
    if let Some(message_id) = &delivery.message_id {
        body.insert("messageId".into(), message_id.clone().into());
    }
    let body = serde_json::to_vec(&body).ok()?;
    let mut url = delivery.url.clone();
    if switches.version_parameter {
        url.push_str(if url.contains('?') { "&" } else { "?" });
        url.push_str("version=1");
    }
    let wish = TokenWish {
        place: match switches.token_in {
            TokenPlace::Header => TokenCarrier::Header,
            TokenPlace::Query => TokenCarrier::Query,
        },
        audience: (switches.token_audience == TokenAudience::ClientKey)
            .then(|| installation.client_key.clone()),
        ..TokenWish::default()
    };
    let signatory = Signatory {
        installation,
        install_key: None,
        now_s: platform.token_now_s(switches.token_clock),
    };
    let request = signed(&signatory, "POST", &url, Algorithm::Hs256, &wish).ok()?;
    Some((request, body))
}

fn may_send(platform: &Platform, outgoing: &Outgoing) -> bool {
    let Some(transfer) = platform.transfer(&outgoing.transfer) else {
        return false;
    };
    let event_type = transfer.events[outgoing.event].event_type.as_str();
    let announces_settlement = matches!(event_type, "transfer-settled" | forge::events::SETTLED);
    let still_of_use = announces_settlement
        || !transfer.state.settled()
        || platform.switches.events_after_settlement
        || outgoing.extra_copies.is_some();
    platform.has_tenant(transfer) && still_of_use
}

fn close(platform: &mut Platform, outgoing: &Outgoing, state: Delivered, duplicate: bool) {
    let Some(transfer) = platform.transfer_mut(&outgoing.transfer) else {
        return;
    };
    let event = &mut transfer.events[outgoing.event];
    let delivery = &mut event.deliveries[outgoing.delivery];
    if !duplicate && delivery.state == Delivered::Waiting {
        delivery.state = state;
    }
    let s3_key = event.s3_key.clone();
    platform.list_file(s3_key.as_deref());
}

fn record(
    shared: &Shared,
    outgoing: &Outgoing,
    answer: AppAnswer,
    lost: bool,
    duplicate: bool,
) -> Option<Next> {
    let mut platform = shared.platform();
    if platform.epoch != outgoing.epoch {
        return None;
    }
    let now = platform.clock.now_ms();
    let switches = platform.switches.clone();
    let forge = platform.transfer(&outgoing.transfer)?.forge.is_some();
    let invalid = forge::invalid(&answer, switches.forge_answer_type_checked).filter(|_| forge);
    let acknowledged = !lost
        && if forge {
            invalid.is_none()
        } else {
            answer
                .status
                .is_some_and(|status| match switches.acknowledged_by {
                    Acknowledged::Only200 => status == 200,
                    Acknowledged::Any2xx => (200..300).contains(&status),
                })
        };
    let error = if lost {
        Some("answer lost by a fault".into())
    } else {
        invalid.or(answer.error)
    };
    let refused = switches.client_errors_final
        && !forge
        && answer
            .status
            .is_some_and(|status| (400..500).contains(&status));
    let delivery = {
        let transfer = platform.transfer_mut(&outgoing.transfer)?;
        &mut transfer.events[outgoing.event].deliveries[outgoing.delivery]
    };
    delivery.attempts.push(Attempt {
        at_ms: now,
        elapsed_ms: answer.elapsed_ms,
        status: answer.status,
        error,
        duplicate,
    });
    let attempts = delivery
        .attempts
        .iter()
        .filter(|attempt| !attempt.duplicate)
        .count();
    platform.count("events.attempts");
    if duplicate {
        return Some(Next::Over);
    }
    if acknowledged {
        platform.count("events.acknowledged");
        close(&mut platform, outgoing, Delivered::Acknowledged, false);
        return Some(Next::Acknowledged);
    }
    let most = if forge {
        Some(switches.forge_event_attempts)
    } else {
        switches.retry_max_attempts
    };
    let used_up = most.is_some_and(|most| attempts >= most as usize);
    if refused || used_up {
        platform.count("events.given_up");
        let state = if forge {
            Delivered::Lost
        } else {
            Delivered::Stopped
        };
        close(&mut platform, outgoing, state, false);
        return Some(Next::Over);
    }
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(30);
    let wait_ms = switches
        .retry_first_ms
        .saturating_mul(1 << doublings)
        .min(switches.retry_max_ms);
    Some(Next::Again(
        Duration::from_millis(wait_ms).mul_f64(switches.retry_scale),
    ))
}
