use std::sync::{Arc, Once};
use std::time::Duration;

use landfall_platform::connect::install_keys::InstallKeys;
use landfall_platform::connect::qsh::{self, Candidate};
use landfall_platform::connect::token::Moment;
use landfall_platform::forge::keys::KeySetServer;
use landfall_platform::hosts::Hosts;
use landfall_runtime::{Clients, Clock, Configuration, ForeignClientKeys, Patience};
use landfall_tracking::{Error, Queue, Store};
use landfall_transfer::{IntakeClocks, Timestamp};
use url::Url;

use crate::answer::Answer;
use crate::deadline::Deadline;
use crate::forge::Forge;
use crate::rehearsal::rehearse;
use crate::request::Request;
use crate::tenants::Tenants;

/// Share of `write_within` that one attempt of an AWS call gets, so that a lost packet leaves time for a second one.
const ATTEMPTS: u32 = 2;

/// A caller waits: what was throttled is tried again nearly at once.
const PAUSE: Duration = Duration::from_millis(50);

/// What intake grants an AWS call: two attempts within `clocks.write_within`, and a third where one failed at once.
pub fn patience(clocks: IntakeClocks) -> Patience {
    let attempt = clocks.write_within / ATTEMPTS;
    Patience {
        connect: attempt,
        attempt,
        operation: clocks.answer_within,
        attempts: ATTEMPTS + 1,
        pause: PAUSE,
    }
}

/// Takes the platform's calls.
#[derive(Debug)]
pub struct Intake {
    pub(crate) app_key: String,
    pub(crate) base_url: Url,
    pub(crate) tenant_hosts: Hosts,
    pub(crate) foreign_client_keys: ForeignClientKeys,
    pub(crate) clocks: IntakeClocks,
    pub(crate) message_grace: Duration,
    pub(crate) file_grace: Duration,
    pub(crate) body_bytes: usize,
    pub(crate) store: Store,
    pub(crate) events: Queue,
    pub(crate) imports: Queue,
    pub(crate) tenants: Tenants,
    pub(crate) install_keys: InstallKeys,
    is_on_connect: bool,
    forge: Option<Forge>,
    /// Once somebody has called for a flavour that the app is not on.
    missed: Once,
    clock: Clock,
}

/// One request while it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request,
    pub(crate) now: Timestamp,
    pub(crate) deadline: Deadline<'a>,
}

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Installed,
    Uninstalled,
    Events,
    ForgeEvents,
    ForgeToken,
    Health,
}

impl Intake {
    /// Wires intake.
    pub fn new(configuration: &Configuration, clients: Clients, clock: Clock) -> Self {
        let clocks = configuration.intake;
        Self {
            app_key: configuration.app.key.clone(),
            base_url: configuration.app.base_url.clone(),
            tenant_hosts: configuration.connect.tenant_hosts.clone(),
            foreign_client_keys: configuration.connect.foreign_client_keys,
            clocks,
            message_grace: configuration.work.message_grace,
            file_grace: configuration.work.file_grace(),
            body_bytes: configuration.import.limits.body_bytes,
            store: clients.store.clone(),
            events: clients.events,
            imports: clients.imports,
            tenants: Tenants::new(clients.store, clocks.tenant_cache, clocks.write_within),
            install_keys: InstallKeys::new(
                configuration.connect.install_key_server.clone(),
                clock.clone(),
            ),
            is_on_connect: configuration.is_on_connect(),
            forge: configuration
                .forge
                .as_ref()
                .map(|forge| Forge::new(forge, clock.clone())),
            missed: Once::new(),
            clock,
        }
    }

    /// The same intake, but the keys of Forge's invocation tokens come from this server. Without a Forge app it changes nothing.
    #[must_use]
    pub fn trusting(mut self, server: Arc<dyn KeySetServer>) -> Self {
        if let Some(forge) = &mut self.forge {
            forge.trust(server, self.clock.clone());
        }
        self
    }

    /// Opens the connections to the table and to the queues while nobody waits, but not for long: the platform's 5 s may already run. What can't be
    /// opened now is opened with the first event. And takes an event of nobody's apart, so that the first one finds the program in memory.
    pub async fn warm_up(&self) {
        tokio::join!(
            self.warmed("table", self.store.warm_up()),
            // Both queues are one host's, so either opens the connection.
            self.warmed("queues", self.imports.warm_up()),
        );
        rehearse(&self.base_url, self.moment(self.clock.now()));
    }

    async fn warmed(&self, what: &str, warm_up: impl Future<Output = Result<(), Error>>) {
        let patience = self.clocks.write_within;
        let problem = match self.clock.timeout(patience, warm_up).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("failed to {error}"),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            error = problem,
            "could not warm the connection of the {what} up"
        );
    }

    /// Answers a call, always within `clocks.answer_within`.
    pub async fn answer(&self, request: &Request) -> Answer {
        let now = self.clock.now();
        let call = Call {
            request,
            now,
            deadline: Deadline::new(
                &self.clock,
                request.accepted_at,
                now,
                self.clocks.answer_within,
            ),
        };
        let Some(route) = self.route(&request.path) else {
            return Answer::of(404, "not found");
        };
        let allowed = if route == Route::Health {
            "GET"
        } else {
            "POST"
        };
        if request.method != allowed {
            return Answer::wrong_method(allowed);
        }
        match (route, &self.forge) {
            (Route::Health, _) => Answer::ok(),
            (Route::ForgeEvents, Some(forge)) => Box::pin(self.forge_event(forge, call)).await,
            (Route::ForgeToken, Some(forge)) => Box::pin(self.forge_token(forge, call)).await,
            (Route::ForgeEvents | Route::ForgeToken, None) => self.missed("forge.app"),
            _ if !self.is_on_connect => self.missed("app.key"),
            (Route::Installed, _) => Box::pin(self.installed(call)).await,
            (Route::Uninstalled, _) => Box::pin(self.uninstalled(call)).await,
            (Route::Events, _) => Box::pin(self.webhook(call)).await,
        }
    }

    /// A call for a flavour that the app is not on, as far as the configuration says.
    fn missed(&self, key: &'static str) -> Answer {
        self.missed.call_once(|| {
            tracing::warn!(configuration.key = key, metric = "flavour_not_configured", "refused a call for a flavour of the platform that landfall.toml doesn't name the app of; said once");
        });
        Answer::of(404, "not found")
    }

    /// The path may carry the base URL's path or not, depending on what stands in front of us.
    fn route(&self, path: &str) -> Option<Route> {
        let below = qsh::below_base(path, self.base_url.path());
        [path, below]
            .into_iter()
            .find_map(|path| match path.strip_suffix('/').unwrap_or(path) {
                "/connect/installed" => Some(Route::Installed),
                "/connect/uninstalled" => Some(Route::Uninstalled),
                "/connect/events" => Some(Route::Events),
                "/forge/events" => Some(Route::ForgeEvents),
                "/forge/token" => Some(Route::ForgeToken),
                "/health" => Some(Route::Health),
                _ => None,
            })
    }

    /// The canonical requests that the caller's token may be bound to.
    pub(crate) fn candidates(&self, request: &Request) -> Vec<Candidate> {
        qsh::candidates(
            &request.method,
            &request.path,
            &request.query,
            &self.base_url,
        )
    }

    pub(crate) fn moment(&self, now: Timestamp) -> Moment {
        Moment {
            now_seconds: now.as_seconds(),
            leeway: self.clocks.jwt_leeway,
        }
    }
}
