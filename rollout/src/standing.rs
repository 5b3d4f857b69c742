//! How far a rollout has come: its assignments, counted by the stage that each has reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::rollouts::{Rollout, Tally};

/// How many devices have reached which stage of a rollout. An enrollment counts as a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stages {
    /// Not admitted yet, or turned back by a rollback: the revision from before, or nothing.
    pub held: i64,
    /// Admitted; nothing was sent yet.
    pub waiting: i64,
    /// Refused with a reason: nothing is sent.
    pub refused: i64,
    /// The profile is on its way.
    pub installing: i64,
    /// The device says that the profile is installed; the certificate was not seen yet.
    pub installed: i64,
    /// The certificate was seen.
    pub verified: i64,
    /// It failed and has not succeeded since, or what worked before is refused now.
    pub failing: i64,
}

impl Stages {
    /// All of them.
    pub fn total(&self) -> i64 {
        self.held + self.waiting + self.refused + self.installing + self.installed + self.verified + self.failing
    }

    /// Adds so many of one stage.
    pub fn add(&mut self, stage: Stage, count: i64) {
        let place = match stage {
            Stage::Held => &mut self.held,
            Stage::Waiting => &mut self.waiting,
            Stage::Refused => &mut self.refused,
            Stage::Installing => &mut self.installing,
            Stage::Installed => &mut self.installed,
            Stage::Verified => &mut self.verified,
            Stage::Failing => &mut self.failing,
        };
        *place += count;
    }
}

/// The stage that an assignment has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// See [`Stages::held`].
    Held,
    /// See [`Stages::waiting`].
    Waiting,
    /// See [`Stages::refused`].
    Refused,
    /// See [`Stages::installing`].
    Installing,
    /// See [`Stages::installed`].
    Installed,
    /// See [`Stages::verified`].
    Verified,
    /// See [`Stages::failing`].
    Failing,
}

/// The stage of alike assignments; none where they are about to leave.
pub fn stage(rollout: &Rollout, tally: &Tally) -> Option<Stage> {
    if tally.state == "removing" {
        return None;
    }
    let here = tally.revision == rollout.revision;
    let begun = here && matches!(tally.state.as_str(), "installing" | "installed" | "verified" | "failed");
    let admitted = match rollout.state {
        store::rollouts::State::RolledBack => false,
        store::rollouts::State::Done => true,
        _ => begun || tally.ring <= rollout.step,
    };
    Some(match tally.state.as_str() {
        _ if !admitted => Stage::Held,
        _ if !here => Stage::Waiting,
        "verified" => Stage::Verified,
        _ if tally.failing > 0 => Stage::Failing,
        "blocked" => Stage::Refused,
        "installing" => Stage::Installing,
        "installed" => Stage::Installed,
        _ => Stage::Waiting,
    })
}

/// How far a rollout has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// All of its assignments by stage.
    pub stages: Stages,
    /// The codes of the reasons of those that are failing, with how many.
    pub failures: BTreeMap<String, i64>,
}

impl Standing {
    /// Counts.
    pub fn of(rollout: &Rollout, tallies: &[Tally]) -> Self {
        let mut standing = Self::default();
        for tally in tallies {
            let Some(stage) = stage(rollout, tally) else { continue };
            standing.stages.add(stage, tally.count);
            if stage == Stage::Failing {
                let reason = tally.reason.clone().unwrap_or_else(|| "no_reason".to_owned());
                *standing.failures.entry(reason).or_default() += tally.count;
            }
        }
        standing
    }

    /// How many are admitted.
    pub fn admitted(&self) -> i64 {
        self.stages.total() - self.stages.held
    }
}
