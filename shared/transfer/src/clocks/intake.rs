use std::time::Duration;

use super::{Inequality, at_most, below, broken, hold, own, platform};

/// The clocks of intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeClocks {
    /// Time in which every answer leaves. Below [`platform::EVENT_ANSWER`].
    pub answer_within: Duration,
    /// How long the slower of an event's two writes is waited for once the other is durable. Below `answer_within`.
    pub write_within: Duration,
    /// How long a tenant's row is believed. At most `secret_overlap`, so that no secret which is believed is dead.
    pub tenant_cache: Duration,
    /// How long the secret before a re-install stays valid. At least [`platform::CONNECT_TOKEN_LIFE`] plus `jwt_leeway`.
    pub secret_overlap: Duration,
    /// Clock difference that tokens may show (OPEN-QUESTIONS.md F). At most [`own::JWT_LEEWAY_MAX`].
    pub jwt_leeway: Duration,
}

impl IntakeClocks {
    pub(super) const DEFAULT: Self = Self {
        answer_within: Duration::from_millis(4_500),
        write_within: Duration::from_millis(1_500),
        tenant_cache: Duration::from_secs(10),
        secret_overlap: Duration::from_mins(10),
        jwt_leeway: Duration::from_mins(1),
    };

    /// The inequalities that must hold, each broken one as a sentence that begins with its key.
    pub fn problems(&self) -> Vec<String> {
        broken(&self.inequalities())
    }

    pub(super) const fn inequalities(&self) -> [Inequality; 5] {
        [
            (
                below(self.answer_within, platform::EVENT_ANSWER),
                "clocks.answer_within: must be below the 5s that the platform waits",
            ),
            (
                below(self.write_within, self.answer_within),
                "clocks.write_within: must be shorter than clocks.answer_within",
            ),
            (
                at_most(self.tenant_cache, self.secret_overlap),
                "clocks.tenant_cache: must not be longer than clocks.secret_overlap, or a secret would be believed after its end",
            ),
            (
                at_most(
                    platform::CONNECT_TOKEN_LIFE.saturating_add(self.jwt_leeway),
                    self.secret_overlap,
                ),
                "clocks.secret_overlap: must be at least 3m plus clocks.jwt_leeway, or calls signed before a re-install would be dropped",
            ),
            (
                at_most(self.jwt_leeway, own::JWT_LEEWAY_MAX),
                "clocks.jwt_leeway: must be at most 5m",
            ),
        ]
    }
}

impl Default for IntakeClocks {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(hold(&IntakeClocks::DEFAULT.inequalities()));
