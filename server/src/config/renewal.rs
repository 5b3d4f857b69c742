//! `[renewal]`: the renewal of device identities.

use anyhow::{Result, bail};
use serde::Deserialize;

/// The longest grace: whoever is away for longer is enrolled anew.
const MOST_GRACE_DAYS: u32 = 90;

/// The renewal of device identities.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renewal {
    /// For so many days after its end an identity that is pinned and not revoked may still fetch a new one, and do nothing else.
    pub expired_grace_days: u32,
}

impl Renewal {
    /// Refuses what cannot be meant.
    pub(crate) fn check(self) -> Result<()> {
        if self.expired_grace_days > MOST_GRACE_DAYS {
            bail!("renewal.expired_grace_days must be {MOST_GRACE_DAYS} at most");
        }
        Ok(())
    }

    /// As the crate `renewal` takes it.
    pub(crate) fn settings(self) -> renewal::Settings {
        let seconds = u64::from(self.expired_grace_days) * 86_400;
        renewal::Settings { expired_grace: std::time::Duration::from_secs(seconds) }
    }
}
