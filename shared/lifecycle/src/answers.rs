use std::time::Duration;

use landfall_platform::connect::client::{CallError, Refusal};
use landfall_platform::event::Event;
use landfall_platform::forge::client::MESSAGES_MAX;
use landfall_tracking::{File, FileState, Stored, SystemToken};
use landfall_transfer::clocks::platform::FORGE_MESSAGE_WINDOW;
use landfall_transfer::seeded_bugs::{SeededBug, is_planted};
use landfall_transfer::timeline::What;
use landfall_transfer::{
    Acknowledgements, Completeness, Evidence, Input, MessageOutcome, Phase, Settled, Status,
    StopReason, TenantId, Timestamp, Transfer, TransferId, silent_from,
};

use crate::drive::{Done, Lifecycle, incomplete};
use crate::error::Error;
use crate::platform::Site;

/// The code of an installation that doesn't call.
const SILENT: &str = "LF-SILENT-INSTALLATION";

/// What the admin reads before the first message of a staged transfer is answered `SUCCESS`.
const STAGED: &str = "Exported files count as done here once the app has stored their records; it imports them from its own store when this migration is over.";

/// What came of an attempt to answer.
enum Sent {
    /// The platform took it, and that is written.
    Taken(Stored),
    /// It did not, or nobody knows.
    NotTaken(Input),
    /// It refuses this request as such, one of whose messages may be to blame; the transfer as it stands with the attempt begun.
    Refused(Stored, Input),
}

impl Lifecycle {
    /// Answers one message of a file that is applied `SUCCESS`, which begins a new window for all others.
    pub(crate) async fn answer_one(&self, stored: &Stored) -> Result<Done, Error> {
        let transfer = &stored.transfer;
        let files = self.store.files(&transfer.tenant, &transfer.id).await?;
        if let Some(missing) = self.export_broke_off(transfer, &files) {
            tracing::warn!(transfer.id = %transfer.id, tenant.id = %transfer.tenant, "The server app has fallen silent with files still to come; the migration is stopped with its last open message.");
            // Both over what was read: a message that came meanwhile changes everything.
            let told = self.apply_to(stored, incomplete(missing, &files)).await?;
            let silent = Input::Stop(StopReason::ExporterSilent);
            let stopped = self.apply_to(&told, silent).await?;
            return Ok(Done::Stored(Box::new(stopped)));
        }
        let ready = files.into_iter().filter(|file| {
            file.is_applied()
                && file
                    .open_message()
                    .is_some_and(|message| message.answer != Some(MessageOutcome::Failed))
        });
        // One that may have been answered already comes first: if it was, nothing else need be given away.
        let may_have_been_sent = |file: &File| {
            file.open_message()
                .is_some_and(|message| message.answer.is_some())
        };
        let Some(file) = ready.max_by_key(may_have_been_sent) else {
            tracing::error!(transfer.id = %transfer.id, "A message was kept back whose file is not there.");
            return Ok(Done::Input(Input::AnswersNotTaken { retry_after: None }));
        };
        let site = self.site_to_settle(transfer).await?;
        let is_first =
            |messages: &Acknowledgements| messages.succeeded + u64::from(messages.attempts) == 0;
        if transfer.is_staged() && transfer.messages.as_ref().is_some_and(is_first) {
            // Before SUCCESS is to be read anywhere.
            self.say(&site, &transfer.id, STAGED).await;
        }
        Ok(
            match self
                .send(stored, &site, MessageOutcome::Success, &[file])
                .await?
            {
                Sent::Taken(next) => Done::Stored(Box::new(next)),
                Sent::NotTaken(input) | Sent::Refused(_, input) => Done::Input(input),
            },
        )
    }

    /// What labels or a manifest say is still to come, where the server app has been silent for as long as a window lasts and one message is left. Answered `SUCCESS`, it would
    /// be the platform's last word: it takes a silent export for complete (PROTOCOL.md 7.6), and concludes SUCCESS of what is half of one. That message alone can still say otherwise.
    fn export_broke_off(&self, transfer: &Transfer, files: &[File]) -> Option<String> {
        let messages = transfer.messages.as_ref()?;
        let exporter = &transfer.exporter;
        // By what the server app did, not by when somebody came to work on it.
        let uploaded = files.iter().map(|file| file.received_at).max();
        let silent_since = exporter.triggered_at.max(uploaded)?;
        let silent_from = silent_since + self.configuration.clocks.forge_answer_by;
        // Its message isn't counted yet.
        let just_came = |file: &File| file.state == FileState::Announced;
        let may_be_answered = |file: &File| {
            file.open_message()
                .is_some_and(|message| message.answer.is_some())
        };
        if messages.open() != 1
            || files.iter().any(|file| file.state == FileState::Open)
            || exporter.completed_at.is_some()
            || self.now() < silent_from
            || files.iter().any(may_be_answered)
            || files.iter().any(just_came)
        {
            return None;
        }
        match self.completeness(transfer, files, Some(Evidence::FileList)) {
            Completeness::Waiting(missing) => Some(missing),
            Completeness::Complete { .. } => None,
        }
    }

    /// Answers every open message with what the verdict says: files that are applied `SUCCESS`, the others `FAILED`, and all of them `FAILED` where the verdict is that. If it isn't SUCCESS,
    /// one of them is `FAILED` where there is one to which nothing else may have been answered, so that the platform doesn't conclude SUCCESS from the others.
    /// A message keeps the answer that may have been sent before.
    pub(crate) async fn answer_all(&self, stored: &Stored) -> Result<Done, Error> {
        let transfer = &stored.transfer;
        let (Phase::Settling(settlement), Some(messages)) = (&transfer.phase, &transfer.messages)
        else {
            return Ok(Done::Stop);
        };
        let verdict = &settlement.verdict;
        let site = self.site_to_settle(transfer).await?;
        let is_told = verdict.status != Status::Success || transfer.is_staged();
        if is_told && messages.attempts == 0 && messages.refused == 0 {
            // Before the answers, after which the platform takes no line any more.
            self.say(&site, &transfer.id, &verdict.message).await;
        }
        let files = self.store.files(&transfer.tenant, &transfer.id).await?;
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        for file in files {
            let Some(message) = file.open_message() else {
                continue;
            };
            let applied = verdict.status != Status::Failed && file.is_applied();
            let by_verdict = if applied {
                MessageOutcome::Success
            } else {
                MessageOutcome::Failed
            };
            match message.answer.unwrap_or(by_verdict) {
                MessageOutcome::Success => succeeded.push(file),
                MessageOutcome::Failed => failed.push(file),
            }
        }
        // From nothing but SUCCESS the platform concludes SUCCESS. Where that isn't the verdict (files never came, say), the last message that can still be answered otherwise tells.
        let tells = |file: &File| {
            file.open_message()
                .is_some_and(|message| message.answer.is_none())
        };
        if verdict.status != Status::Success
            && messages.refused == 0
            && failed.is_empty()
            && let Some(last) = succeeded.iter().rposition(tells)
        {
            failed.push(succeeded.remove(last));
        }
        // One answer FAILED may end the transfer at once (OPEN-QUESTIONS.md D8), so these come last.
        let mut current = stored.clone();
        let mut not_taken = None;
        for (outcome, files) in [
            (MessageOutcome::Success, succeeded),
            (MessageOutcome::Failed, failed),
        ] {
            for some in files.chunks(MESSAGES_MAX) {
                match self.send(&current, &site, outcome, some).await? {
                    Sent::Taken(next) => current = next,
                    Sent::NotTaken(input) => return Ok(Done::Input(input)),
                    Sent::Refused(begun, input) => {
                        // A message that the platform doesn't know must not keep the others from their answers.
                        (current, not_taken) = (begun, Some(input));
                        for one in some.chunks(1).filter(|_| some.len() > 1) {
                            match self.send(&current, &site, outcome, one).await? {
                                Sent::Taken(next) | Sent::Refused(next, _) => current = next,
                                Sent::NotTaken(input) => return Ok(Done::Input(input)),
                            }
                        }
                    }
                }
            }
        }
        Ok(match not_taken {
            Some(input) if !current.transfer.is_settled() => Done::Input(input),
            _ if current.transfer.is_settled() || current != *stored => {
                Done::Stored(Box::new(current))
            }
            _ => {
                tracing::error!(transfer.id = %transfer.id, "Open messages were counted whose files are not there.");
                Done::Input(Input::AnswersNotTaken { retry_after: None })
            }
        })
    }

    /// An attempt: how these messages are answered is written before it is sent, and that they were once the platform has said so.
    async fn send(
        &self,
        stored: &Stored,
        site: &Site,
        outcome: MessageOutcome,
        files: &[File],
    ) -> Result<Sent, Error> {
        let clocks = &self.configuration.clocks;
        let begun_at = self.now();
        // Whoever loses this race leaves the sending to the other.
        let begun = if is_planted(SeededBug::AnswerNotWritten) {
            stored.clone()
        } else {
            self.store
                .begin_answers(stored, files, outcome, begun_at, clocks)
                .await?
        };
        let transfer = &begun.transfer;
        let messages: Vec<String> = files
            .iter()
            .filter_map(|file| file.message.as_ref())
            .map(|message| message.id.clone())
            .collect();
        let error = match site.answer(&transfer.id, outcome, &messages).await {
            Ok(()) | Err(CallError::Malformed { .. }) => {
                tracing::info!(transfer.id = %transfer.id, answer.outcome = ?outcome, answer.messages = messages.len(), "Answered messages.");
                let taken = self
                    .store
                    .answers_taken(&begun, files, outcome, begun_at, self.now(), clocks)
                    .await?;
                return Ok(taken.map_or_else(|| Sent::Taken(begun.clone()), Sent::Taken));
            }
            Err(error) => error,
        };
        tracing::warn!(transfer.id = %transfer.id, answer.outcome = ?outcome, answer.messages = messages.len(), error = %error, "The platform did not simply take answers to messages.");
        if error.says_settled() {
            return Ok(Sent::NotTaken(Input::PlatformSettled { status: None }));
        }
        let not_taken = Input::AnswersNotTaken {
            retry_after: error.retry_after(),
        };
        Ok(match error {
            CallError::Refused {
                kind: Refusal::BadRequest | Refusal::TooLarge | Refusal::Gone,
                ..
            } => Sent::Refused(begun, not_taken),
            _ => Sent::NotTaken(not_taken),
        })
    }

    /// Answers the message of a file that was not counted when all others were answered: it was uploaded later, or its event was not taken up before. The platform waits for it as
    /// for any other. It is answered with what the verdict says, `FAILED` unless that is better and the file is in the target, so a repetition gives the same answer.
    ///
    /// An error says that the answer is still owed; past the window there is nobody who waits for it.
    pub(crate) async fn answer_late(
        &self,
        transfer: &Transfer,
        settled: &Settled,
        event: &Event,
        s3_key: &str,
        received_at: Timestamp,
    ) -> Result<(), Error> {
        // Who settled it doesn't matter: of what is over the platform says so.
        let Some(message) = event.platform_message_id() else {
            return Ok(());
        };
        let file = self
            .store
            .file(&transfer.tenant, &transfer.id, s3_key)
            .await?;
        if file.as_ref().is_some_and(|file| file.message.is_some()) {
            return Ok(());
        }
        let is_applied = file.is_some_and(|file| file.is_applied());
        let may_succeed = settled
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.status != Status::Failed);
        let outcome = if is_applied && may_succeed {
            MessageOutcome::Success
        } else {
            MessageOutcome::Failed
        };
        let answered = async {
            let site = self.site_to_settle(transfer).await?;
            let messages = [message.to_owned()];
            Ok(site.answer(&transfer.id, outcome, &messages).await?)
        };
        match answered.await {
            Ok(()) | Err(Error::NotAnswered(CallError::Malformed { .. })) => {
                tracing::info!(transfer.id = %transfer.id, file.key = s3_key, answer.outcome = ?outcome, "Answered the message of a file that came late.");
                Ok(())
            }
            Err(Error::NotAnswered(error)) if error.says_settled() => Ok(()),
            Err(error) if self.now() >= received_at + FORGE_MESSAGE_WINDOW => {
                tracing::error!(error.code = "LF-UNANNOUNCED", transfer.id = %transfer.id, file.key = s3_key, error = %error, "The message of a file that came late could not be answered within its window.");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the admin, and in the log whoever is on call, that the window closes. That it could not be told to the admin keeps nothing from being done.
    pub(crate) async fn warn(&self, transfer: &Transfer) -> Result<Done, Error> {
        let minutes = self.configuration.clocks.forge_answer_by.as_secs() / 60;
        // The other remedy is for the operator: the admin can't choose it.
        let line = format!(
            "No exported file has been imported completely for a while. Unless one is within {minutes} minutes of the last one, this migration stops, because the platform waits no longer. It can be re-run then, and what has arrived is not imported again; smaller export files help."
        );
        tracing::warn!(error.code = "LF-WINDOW-CLOSES", transfer.id = %transfer.id, tenant.id = %transfer.tenant, "No file has ended whose message could be answered, and soon one must be. Smaller export files would help, or forge.acknowledge = \"staged\" where the target is what takes so long.");
        if let Ok(site) = self.site_to_settle(transfer).await {
            self.say(&site, &transfer.id, &line).await;
        }
        Ok(Done::Input(Input::WindowWarned))
    }

    /// Files were listed whose events never came: nothing can answer their messages until they do (PROTOCOL.md 7.6).
    pub(crate) async fn say_unannounced(&self, transfer: &Transfer, site: &Site, files: usize) {
        if transfer.messages.is_none() || files == 0 {
            return;
        }
        tracing::error!(error.code = "LF-UNANNOUNCED", transfer.id = %transfer.id, tenant.id = %transfer.tenant, files, "Files are imported whose events never came; unless they still do, their messages can't be answered, and the platform ends the transfer.");
        let line = format!(
            "{files} exported files are imported although their events never reached the app. If the migration times out for this, re-run it: what has arrived is not imported again."
        );
        self.say(site, &transfer.id, &line).await;
    }

    /// Writes a line into the admin's log. A line that is lost is worth no more than one of ours.
    async fn say(&self, site: &Site, id: &TransferId, line: &str) {
        if let Err(error) = site.add_log(id, line).await {
            tracing::warn!(transfer.id = %id, error = %error, "A line of the admin's log could not be written.");
        }
    }

    /// Looks for the newest token of a transfer's installation. One that can't be read is none: the transfer's other clocks go on, and a newer one may be readable.
    pub(crate) async fn look_for_token(&self, transfer: &Transfer) -> Result<Done, Error> {
        let good_until = self.token_good_until(&transfer.tenant).await?;
        if good_until.is_none_or(|until| until <= self.now()) {
            tracing::error!(error.code = "LF-NO-TOKEN", transfer.id = %transfer.id, tenant.id = %transfer.tenant, "The transfer waits for a token, which comes only with a call of the platform's.");
        }
        Ok(Done::Input(Input::TokenLooked { good_until }))
    }

    /// Says so when the installation of an open transfer has been silent for too long, while its last token may still be good: the platform's schedule doesn't arrive, and without it
    /// nothing can be called soon. In the log with each comparison, in the timeline with the first one.
    pub(crate) async fn say_silent(&self, transfer: &Transfer) -> Result<(), Error> {
        let (id, tenant, now) = (&transfer.id, &transfer.tenant, self.now());
        let Some(token) = self.readable_token(tenant).await? else {
            tracing::error!(error.code = SILENT, transfer.id = %id, tenant.id = %tenant, "An installation with an active transfer has brought no token.");
            return Ok(());
        };
        let silent_from = silent_from(token.heard_at, token.good_until);
        if now < silent_from {
            return Ok(());
        }
        let heard_at = token.heard_at.map(Timestamp::as_seconds);
        tracing::error!(error.code = SILENT, transfer.id = %id, tenant.id = %tenant, token.heard_at = heard_at, token.good_until = token.good_until.as_seconds(), "An installation with an active transfer is silent, or its calls bring no newer token.");
        if transfer.reconciled_at < silent_from && transfer.held_back_until.is_none() {
            let problem = if token.good_until <= now {
                "the installation is silent, and its last token has ended".to_owned()
            } else {
                let left = token.good_until.since(now).as_secs() / 60;
                format!("the installation is silent, and its last token ends in {left} minutes")
            };
            let needed = What::PersonNeeded {
                code: SILENT.to_owned(),
                problem,
            };
            self.tell(tenant, id, needed, None).await;
        }
        Ok(())
    }

    async fn token_good_until(&self, tenant: &TenantId) -> Result<Option<Timestamp>, Error> {
        let token = self.readable_token(tenant).await?;
        Ok(token.map(|token| token.good_until))
    }

    async fn readable_token(&self, tenant: &TenantId) -> Result<Option<SystemToken>, Error> {
        match self.platform.token(&self.store, tenant).await {
            Ok(token) => Ok(token),
            Err(error) if error.code().is_some() => {
                tracing::error!(error.code = error.code(), tenant.id = %tenant, error = %error, "An installation's token can't be read.");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A tenant's site for work that takes so long: what it is called with must be good until then. With the last second of a token something can still be answered.
    pub async fn site_for(&self, tenant: &TenantId, work: Duration) -> Result<Site, Error> {
        self.platform
            .site(&self.store, &self.governor, tenant, self.now() + work)
            .await
    }
}

#[cfg(test)]
mod tests;
