//! `[acme_policies]`: what ACME policies leave behind.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;

/// The shortest and the longest history, in days.
const HISTORY_DAYS: std::ops::RangeInclusive<u32> = 30..=3650;

/// What ACME policies leave behind.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmePolicies {
    /// For so many days attempts that ended, and certificates that ended and are with nobody, are kept.
    pub history_days: u32,
}

impl Default for AcmePolicies {
    fn default() -> Self {
        Self { history_days: 400 }
    }
}

impl AcmePolicies {
    /// Refuses what cannot be meant.
    pub(crate) fn check(self) -> Result<()> {
        if !HISTORY_DAYS.contains(&self.history_days) {
            bail!("acme_policies.history_days must be {} to {}", HISTORY_DAYS.start(), HISTORY_DAYS.end());
        }
        Ok(())
    }

    /// How long the past is kept.
    pub(crate) fn history(self) -> Duration {
        Duration::from_secs(u64::from(self.history_days) * 86_400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_a_day_or_a_century_is_refused_by_name() {
        assert!(AcmePolicies::default().check().is_ok());
        for history_days in [0, 29, 3651] {
            let error = AcmePolicies { history_days }.check().unwrap_err().to_string();
            assert!(error.contains("acme_policies.history_days"), "{error}");
        }
    }
}
