//! The log and the metrics of this process.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts the log, on standard error. Which fields there are: docs/logging.md.
pub fn start_log(log: &Log) -> Result<()> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|e| anyhow!("log.filter is not right: {e}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| anyhow!("the log cannot be started: {e}"))
}

/// The metrics of this process, in Prometheus' text form.
pub fn metrics() -> Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle =
        PrometheusBuilder::new().install_recorder().map_err(|e| anyhow!("the metrics cannot be started: {e}"))?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}
