//! `[attestation]`: what Apple signs of devices.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::attestation::Roots;
use mdm_core::random::Random;
use serde::Deserialize;

use super::{Listen, Proxy};
use crate::tls;

/// The longest that the certificates of an attestation are kept.
const MOST_RETENTION_DAYS: u32 = 366;

/// What Apple signs of devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attestation {
    /// Days that the certificates of an attestation are kept, which name the device; the verdict stays.
    pub retention_days: u32,
    /// PEM files with roots that are believed beside Apple's. For rehearsals on loopback only.
    pub test_root_files: Vec<PathBuf>,
}

impl Default for Attestation {
    fn default() -> Self {
        Self { retention_days: 30, test_root_files: Vec::new() }
    }
}

impl Attestation {
    /// Refuses what cannot be meant: who has a test root's key attests any device, so that a server that anybody can reach believes
    /// Apple alone (TH-36). A proxy on this machine would bring the world to loopback.
    pub(crate) fn check(&self, listen: &Listen, proxy: &Proxy) -> Result<()> {
        if self.retention_days > MOST_RETENTION_DAYS {
            bail!("attestation.retention_days must be {MOST_RETENTION_DAYS} at most");
        }
        let listeners = [listen.device, listen.operator, listen.health];
        let alone = listeners.iter().all(|at| at.ip().is_loopback()) && proxy.trusted_peers.is_empty();
        if !self.test_root_files.is_empty() && !alone {
            bail!(
                "attestation.test_root_files is for rehearsals: every address of [listen] must be a loopback address, and proxy.trusted_peers empty"
            );
        }
        Ok(())
    }

    /// As the crate `attestation` takes it.
    pub(crate) fn context(&self, random: Random) -> Result<attestation::Context> {
        let mut test_roots: Vec<Certificate> = Vec::new();
        for file in &self.test_root_files {
            test_roots.extend(tls::read_anchors(file)?);
        }
        Roots::with_test_roots(&test_roots)
            .context("a certificate of attestation.test_root_files is no CA, or its key can't be used")?;
        if !test_roots.is_empty() {
            tracing::warn!(
                roots = test_roots.len(),
                "test roots are believed beside Apple's: attestations prove nothing here; take attestation.test_root_files out after the rehearsal"
            );
        }
        let retention = Duration::from_secs(u64::from(self.retention_days) * 86_400);
        Ok(attestation::Context { random, test_roots: Arc::new(test_roots), retention })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const LOOPBACK: &str = "public_url = 'https://localhost:1'\n[listen]\ndevice = '127.0.0.1:1'\noperator = '[::1]:2'\nhealth = '127.0.0.1:3'\n";

    #[test]
    fn th_36_a_test_root_is_refused_unless_nobody_else_can_reach_the_server() {
        let roots = "[attestation]\ntest_root_files = ['root.pem']\n";
        assert!(Config::parse(&format!("{LOOPBACK}{roots}")).is_ok());
        for open in [
            LOOPBACK.replace("device = '127.0.0.1:1'", "device = '0.0.0.0:1'"),
            LOOPBACK.replace("operator = '[::1]:2'", "operator = '192.0.2.1:2'"),
            LOOPBACK.replace("health = '127.0.0.1:3'", "health = '[::]:3'"),
            "public_url = 'https://a.example'\n".to_owned(),
            format!("{LOOPBACK}[proxy]\ntrusted_peers = ['127.0.0.1']\n"),
        ] {
            let error = Config::parse(&format!("{open}{roots}")).unwrap_err();
            assert!(error.to_string().contains("test_root_files"), "{error}");
            assert!(Config::parse(&open).is_ok(), "without test roots: {open}");
        }
    }

    #[test]
    fn th_49_certificates_are_kept_for_30_days_where_nothing_else_is_said() {
        let config = Config::parse("public_url = 'https://a.example'").unwrap();
        assert_eq!(config.attestation.retention_days, 30);
        assert!(Config::parse("public_url = 'https://a.example'\nattestation.retention_days = 367").is_err());
        assert!(Config::parse("public_url = 'https://a.example'\nattestation.retention_days = 0").is_ok());
    }
}
