//! `[machine_info]`: what devices say of themselves before they are enrolled, and whose signature under it is believed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mdm_core::crypto::machine_info::DeviceAuthorities;
use serde::Deserialize;

use crate::tls;

/// A clock that is more than a month wrong is no clock.
const MOST_SKEW_HOURS: u32 = 24 * 31;

/// Whose signature under a MachineInfo is believed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineInfo {
    /// PEM files with device CAs that are believed besides Apple's known ones, by their keys.
    pub device_ca_files: Vec<PathBuf>,
    /// Accept SHA-1 as the digest of a message whose signer a pinned device CA certified.
    pub sha1: bool,
    /// Hours that a signing time, where there is one, may be away from now.
    pub skew_hours: u32,
}

impl Default for MachineInfo {
    fn default() -> Self {
        Self { device_ca_files: Vec::new(), sha1: false, skew_hours: 24 }
    }
}

impl MachineInfo {
    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MOST_SKEW_HOURS).contains(&self.skew_hours) {
            bail!("machine_info.skew_hours must be 1 to {MOST_SKEW_HOURS}");
        }
        Ok(())
    }

    /// Reads the files.
    pub(crate) fn authorities(&self) -> Result<DeviceAuthorities> {
        let mut pinned = Vec::new();
        for file in &self.device_ca_files {
            pinned.extend(tls::read_anchors(file)?);
        }
        DeviceAuthorities::new(pinned, self.sha1)
            .context("a certificate of machine_info.device_ca_files is no CA, or its key can't be used")
    }
}
