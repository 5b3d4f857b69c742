//! `assay serve`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::Config;
use crate::telemetry;

/// How long open requests may take after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the server until SIGTERM or SIGINT; then drains. A second signal, or 30 seconds, ends it at once (RG-15).
pub async fn run(config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    telemetry::start_log(&config.log)?;
    let running = App::open(&config).await?.start().await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    asked().await;
    tracing::info!("stopping: no new connections; a second signal stops at once");
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        () = tokio::time::sleep(DRAIN) => tracing::warn!("stopped with requests still open"),
        () = asked() => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(())
}
