use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use landfall_platform::connect::client::CallError;
use landfall_runtime::Clock;
use landfall_tracking::{Error as Tracking, Store};
use landfall_transfer::pace::{ALONE, LOT_FIRST, Lot, PATIENCE_MAX, Pace, Refusal};
use landfall_transfer::{TenantId, Timestamp};

/// Times that the shared pace is written again when another was faster.
const RACES_MAX: u32 = 12;

/// Sites that one process keeps something of at most.
const SITES_MAX: usize = 1_000;

/// How long a pause that was looked up with the site is believed, by the calls that don't wait for their turn: what they do in between is
/// one write.
const BELIEVED_FOR: Duration = Duration::from_millis(250);

/// Sees to it that everybody together calls a site no faster than it bears, and nobody while it asked for a pause.
///
/// What is shared is one row for each site, a [`Pace`]; how it changes is decided there. A process takes lots from it, a write for some calls, and
/// looks at it before each call, a read: so a pause that one worker was told is known to all others as soon as it is written.
///
/// A table that can't be reached stops nobody: then a process goes on alone, slowly, and keeps to what it was told itself.
#[derive(Debug)]
pub(crate) struct Governor {
    store: Store,
    clock: Clock,
    /// The longest wait within a call: a longer one is left to whoever gives the work back.
    patience: Duration,
    /// The longest pause that counts of those which come with a 5xx.
    outage_max: Duration,
    sites: Mutex<HashMap<TenantId, Arc<Here>>>,
}

/// What this process knows of a site.
#[derive(Debug, Default)]
struct Here {
    /// Told to this process, so that it counts at once and without the table.
    told: Mutex<Told>,
    /// One at a time takes calls from the lot, in order.
    hand: futures_util::lock::Mutex<Hand>,
}

/// The end of a pause, by two clocks: it is over as soon as one of them says so. The process's monotonic time stands still while Lambda
/// freezes it, and a wall clock may be set.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    monotonic: Duration,
    wall: Timestamp,
}

#[derive(Debug)]
struct Hand {
    lot: Option<Lot>,
    /// Calls of the next lot.
    size: u32,
    /// When the next call may be made without the table, in monotonic time.
    alone_at: Duration,
}

impl Default for Hand {
    fn default() -> Self {
        Self {
            lot: None,
            size: LOT_FIRST,
            alone_at: Duration::ZERO,
        }
    }
}

impl Here {
    /// What is left of a pause that this process was told.
    fn pause(&self, clock: &Clock) -> Duration {
        let until = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        until
            .monotonic
            .saturating_sub(clock.monotonic())
            .min(until.wall.since(clock.now()))
    }

    fn pause_for(&self, rest: Duration, clock: &Clock) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.monotonic = told.monotonic.max(clock.monotonic() + rest);
        told.wall = told.wall.max(clock.now() + rest);
    }
}

/// What a look at the table said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    at: Timestamp,
    paused_until: Timestamp,
}

impl Governor {
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        patience: Duration,
        outage_max: Duration,
    ) -> Self {
        Self {
            store,
            clock,
            patience: patience.min(PATIENCE_MAX),
            outage_max,
            sites: Mutex::default(),
        }
    }

    fn here(&self, tenant: &TenantId) -> Arc<Here> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= SITES_MAX && !sites.contains_key(tenant) {
            // What is lost of the others is a lot and what their rows say as well.
            sites.retain(|_, here| Arc::strong_count(here) > 1);
        }
        Arc::clone(sites.entry(tenant.clone()).or_default())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The longest that a call may wait now, for whoever has time until then.
    pub(crate) fn patience(&self, until: Timestamp) -> Duration {
        self.patience.min(until.since(self.clock.now()))
    }

    /// Whether a site has asked for a pause. A table that doesn't answer says that it hasn't.
    pub(crate) async fn look(&self, tenant: &TenantId) -> Looked {
        let now = self.clock.now();
        let paused_until = match self.store.pace(tenant, now).await {
            Ok(kept) => kept.pace.paused_until(self.clock.now()),
            Err(error) => {
                tracing::info!(tenant.id = %tenant, error = %error, "A site's pace could not be read.");
                Timestamp::default()
            }
        };
        Looked {
            at: self.clock.now(),
            paused_until,
        }
    }

    /// For a call that waits for no turn: only a pause that the site asked for stops it.
    pub(crate) async fn admit(&self, tenant: &TenantId, looked: Looked) -> Result<(), CallError> {
        let looked = if self.clock.now().since(looked.at) > BELIEVED_FOR {
            self.look(tenant).await
        } else {
            looked
        };
        let told = self.here(tenant).pause(&self.clock);
        match told.max(looked.paused_until.since(self.clock.now())) {
            Duration::ZERO => Ok(()),
            rest => Err(throttled(rest)),
        }
    }

    /// Waits until it is a call's turn, for whoever has time until then. [`CallError::Throttled`] when the wait would be too long: nothing was sent.
    pub(crate) async fn turn(&self, tenant: &TenantId, until: Timestamp) -> Result<(), CallError> {
        let here = self.here(tenant);
        let mut hand = here.hand.lock().await;
        let mut races = 0;
        // The wait was long enough by this worker's clock, whatever the clock on the wall did meanwhile.
        let mut waited_for = Timestamp::default();
        loop {
            let patience = self.patience(until);
            let told = here.pause(&self.clock);
            if told > Duration::ZERO {
                self.wait(told, patience).await?;
                continue;
            }
            let seen = match self.store.pace(tenant, self.clock.now()).await {
                Ok(seen) => seen,
                Err(error) => return self.alone(&mut hand, &error, patience).await,
            };
            let now = self.clock.now();
            let held = hand.lot.as_ref();
            let next = if let Some(next) = held.and_then(|lot| lot.next_call(&seen.pace, now)) {
                next
            } else {
                // Used up, expired or void.
                if let Some(lot) = hand.lot.take() {
                    hand.size = lot.next_size();
                }
                let mut pace = seen.pace.clone();
                let lot = pace.take(hand.size, patience, now).map_err(throttled)?;
                match self.store.keep_pace(tenant, &seen, pace, now).await {
                    // The row is as it was written: nobody has asked for a pause meanwhile.
                    Ok(kept) => {
                        let next = lot.next_call(&kept.pace, now);
                        hand.lot = Some(lot);
                        next.unwrap_or(now)
                    }
                    Err(Tracking::Conflict | Tracking::Contended | Tracking::Unknown)
                        if races < RACES_MAX =>
                    {
                        if races > 0 {
                            self.pause(races).await;
                        }
                        races += 1;
                        continue;
                    }
                    Err(error) => return self.alone(&mut hand, &error, patience).await,
                }
            };
            let wait = next.since(self.clock.now());
            if wait == Duration::ZERO || next <= waited_for {
                if let Some(lot) = &mut hand.lot {
                    lot.use_one();
                }
                return Ok(());
            }
            if wait > patience {
                hand.lot = None;
            }
            self.wait(wait, patience).await?;
            waited_for = next;
        }
    }

    /// Takes in how a call ended. A pause that it was told counts here at once, and for everybody as soon as it is written.
    ///
    /// A 429 asks for its pause. With a 5xx a machine that is in trouble guesses how long that will last: such a pause is cut, in the error as well, for
    /// whoever looks for cancellations and files that got lost must not look away for an hour.
    pub(crate) async fn heard(
        &self,
        tenant: &TenantId,
        called_at: Timestamp,
        error: &mut CallError,
    ) {
        if let CallError::Server {
            retry_after: Some(guessed),
            ..
        } = error
        {
            *guessed = (*guessed).min(self.outage_max);
        }
        let (too_many, retry_after) = match error {
            CallError::Throttled { retry_after } => (true, *retry_after),
            CallError::Server { retry_after, .. } if retry_after.is_some() => (false, *retry_after),
            _ => return,
        };
        let refusal = Refusal {
            too_many,
            retry_after,
            called_at,
        };
        let heard_at = self.clock.now();
        let here = self.here(tenant);
        if let Some(asked) = retry_after {
            here.pause_for(asked, &self.clock);
        }
        for race in 0..RACES_MAX {
            let written = match self.store.pace(tenant, heard_at).await {
                Ok(seen) => {
                    let mut pace = seen.pace.clone();
                    pace.refused(refusal, heard_at);
                    if pace == seen.pace {
                        return;
                    }
                    self.store.keep_pace(tenant, &seen, pace, heard_at).await
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(kept) => {
                    let rest = kept.pace.paused_until(heard_at).since(self.clock.now());
                    here.pause_for(rest, &self.clock);
                    tracing::info!(
                        tenant.id = %tenant,
                        site.paused_ms = rest.as_millis(),
                        site.calls_per_1000_s = kept.pace.thousandths_per_second(),
                        "A site asked for a pause; nobody calls it meanwhile."
                    );
                    return;
                }
                Err(Tracking::Conflict | Tracking::Contended | Tracking::Unknown) => {
                    if race > 0 {
                        self.pause(race).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant.id = %tenant, error = %error, "A pause that a site asked for could not be shared; this process keeps to it.");
                    break;
                }
            }
        }
        // Of what nobody else knows, at least this process.
        let mut pace = Pace::new(heard_at);
        pace.refused(refusal, heard_at);
        here.pause_for(pace.paused_until(heard_at).since(heard_at), &self.clock);
    }

    /// A turn without the shared pace.
    async fn alone(
        &self,
        hand: &mut Hand,
        error: &Tracking,
        patience: Duration,
    ) -> Result<(), CallError> {
        tracing::info!(error = %error, "A site's pace could not be shared; this process calls it slowly.");
        hand.lot = None;
        let wait = hand.alone_at.saturating_sub(self.clock.monotonic());
        self.wait(wait, patience).await?;
        hand.alone_at = self.clock.monotonic() + ALONE;
        Ok(())
    }

    async fn wait(&self, wait: Duration, patience: Duration) -> Result<(), CallError> {
        if wait > patience {
            return Err(throttled(wait));
        }
        if wait > Duration::ZERO {
            self.clock.sleep(wait).await;
        }
        Ok(())
    }

    /// Lets the faster writer finish: 2 ms, doubling.
    async fn pause(&self, race: u32) {
        let pause = Duration::from_millis(1 << race.min(9));
        self.clock.sleep(pause).await;
    }
}

fn throttled(rest: Duration) -> CallError {
    CallError::Throttled {
        retry_after: Some(rest),
    }
}
