use futures_util::future::join_all;
use landfall_lifecycle::{Error, Taken};
use landfall_tracking::{Claim, DeadLetter, Ending, Queue, Task};
use landfall_transfer::timeline::What;
use landfall_transfer::{FileOutcome, TenantId, Timestamp, TransferId};

use crate::{Summary, Sweeper};

/// Batches of dead letters that one sweep takes from a queue.
const ROUNDS_MAX: u32 = 20;

impl Sweeper {
    /// Turns work that every worker failed on into a verdict. A letter is deleted once its consequence is written.
    pub(crate) async fn sweep_dead_letters(&self, end: Timestamp) -> Summary {
        let mut summary = Summary::default();
        for queue in &self.dead_letters {
            for _ in 0..ROUNDS_MAX {
                if self.lifecycle.now() >= end {
                    summary.cut_short = true;
                    return summary;
                }
                let letters = match queue.dead_letters(self.claimed_for()).await {
                    Ok(letters) if letters.is_empty() => break,
                    Ok(letters) => letters,
                    Err(error) => {
                        tracing::error!(error = %error, "Dead letters could not be read; the next sweep reads them.");
                        summary.failed += 1;
                        break;
                    }
                };
                let done =
                    join_all(letters.iter().map(|letter| self.dead_letter(queue, letter))).await;
                let mut dealt_with = 0;
                for (letter, outcome) in letters.iter().zip(done) {
                    match outcome {
                        Ok(true) => dealt_with += 1,
                        Ok(false) => summary.failed += 1,
                        Err(error) => {
                            tracing::warn!(message.id = %letter.id, error = %error, "A dead letter could not be dealt with; the next sweep tries again.");
                            summary.failed += 1;
                        }
                    }
                }
                summary.dead_letters += dealt_with;
                if dealt_with == 0 {
                    // Only letters that must wait are left, or they are all that was shown.
                    break;
                }
            }
        }
        summary
    }

    /// Returns whether the letter was dealt with.
    async fn dead_letter(&self, queue: &Queue, letter: &DeadLetter) -> Result<bool, Error> {
        let message = match &letter.message {
            Ok(message) => message,
            Err(problem) => {
                // Perhaps a newer release wrote it: it stays where it is, and the alarm on the queue's age tells a person.
                tracing::error!(error.code = "LF-UNREADABLE-LETTER", message.id = %letter.id, error = %problem, "A dead letter can't be read by this release; it is left where it is.");
                return Ok(false);
            }
        };
        let tenant = &message.tenant;
        let dealt_with = match &message.task {
            Task::Import { transfer, s3_key } => self.dead_file(tenant, transfer, s3_key).await?,
            Task::Event { body, received_at } => {
                match self
                    .lifecycle
                    .take_event(tenant, body, *received_at)
                    .await?
                {
                    // Taking it in worked here, so it is done.
                    Taken::Done => true,
                    Taken::Import {
                        transfer, s3_key, ..
                    } => self.dead_file(tenant, &transfer, &s3_key).await?,
                }
            }
        };
        if dealt_with {
            queue.delete(letter).await?;
        }
        Ok(dealt_with)
    }

    /// A file whose every worker died ends as poison, and its transfer is settled with that reason.
    async fn dead_file(
        &self,
        tenant: &TenantId,
        transfer: &TransferId,
        s3_key: &str,
    ) -> Result<bool, Error> {
        let configuration = self.lifecycle.configuration();
        let store = self.lifecycle.store();
        let now = self.lifecycle.now();
        let claim = store
            .claim(
                tenant,
                transfer,
                s3_key,
                "sweeper",
                configuration.work.lease,
                now,
            )
            .await?;
        match claim {
            Claim::Claimed(claimed) => {
                let reason = format!(
                    "file {} could not be processed; every attempt ended without an answer",
                    claimed.file.label.as_deref().unwrap_or("without a label")
                );
                tracing::error!(error.code = "LF-POISON", transfer.id = %transfer, file.key = s3_key, "A file killed every worker that tried it; its transfer is settled FAILED.");
                let died = What::DeadLetter {
                    file: Some(s3_key.to_owned()),
                    reason: reason.clone(),
                };
                self.lifecycle.tell(tenant, transfer, died, None).await;
                let ending = Ending::new(FileOutcome::Poisoned { reason }, claimed.file.counts);
                store
                    .end(&claimed.lease, &ending, now, &configuration.clocks)
                    .await?;
                self.lifecycle
                    .file_ended(&claimed.file, &ending.outcome)
                    .await?;
                Ok(true)
            }
            // Somebody is at it again. If that ends badly too, the letter is still here.
            Claim::Held(_) => Ok(false),
            Claim::Over => {
                store.drop_file(tenant, transfer, s3_key).await?;
                Ok(true)
            }
            Claim::Ended(file) => {
                self.lifecycle.ended_before(&file).await?;
                Ok(true)
            }
            // Of a file that waits for its second pass the sweeper queues another message at its time.
            Claim::Waits { .. } | Claim::Unknown => Ok(true),
        }
    }
}
