//! The log and the metrics of this process.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts the log, on standard error. Which fields there are: docs/logging.md.
pub fn start_log(log: &Log) -> Result<()> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|e| anyhow!("log.filter is not right: {e}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| anyhow!("the log cannot be started: {e}"))
}

/// The metrics of this process, in Prometheus' text form.
pub fn metrics() -> Result<PrometheusHandle> {
    // Tests start several servers in one process, at the same time too: the recorder can be installed once only.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let new = PrometheusBuilder::new().install_recorder().map_err(|e| anyhow!("the metrics cannot be started: {e}"))?;
    Ok(handle.insert(new).clone())
}
