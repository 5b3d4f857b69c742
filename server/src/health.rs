//! The third listener: whether the server lives, whether it is ready, and its metrics. Without TLS and without secrets.

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mdm_core::time::{Clock, Timestamp};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use store::Store;

/// What the listener needs.
#[derive(Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// The metrics.
    pub metrics: PrometheusHandle,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(s): State<Shared>| async move { s.metrics.render() }))
        .with_state(shared)
}

#[derive(Debug, Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

/// What `/readyz?verbose` says.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    database: &'static str,
    /// Things that work now and will not for long, or that need an operator.
    warnings: Vec<String>,
}

async fn ready(State(shared): State<Shared>, Query(query): Query<Verbose>) -> Response {
    let readiness = readiness(&shared).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.verbose.is_some() {
        (status, Json(readiness)).into_response()
    } else {
        (status, if readiness.ready { "ready\n" } else { "not ready\n" }).into_response()
    }
}

async fn readiness(shared: &Shared) -> Readiness {
    match push_warnings(&shared.store, shared.clock.now()).await {
        Ok(warnings) => Readiness { ready: true, database: "answers", warnings },
        Err(e) => {
            tracing::error!(error = %e, "not ready: the database does not answer");
            Readiness { ready: false, database: "does not answer", warnings: Vec::new() }
        }
    }
}

async fn push_warnings(store: &Store, now: Timestamp) -> Result<Vec<String>, store::Error> {
    let certs = store::push::certs(&mut store.read().await?).await?;
    let mut warnings = Vec::new();
    if certs.is_empty() {
        warnings.push("no push certificate: devices cannot be woken".to_owned());
    }
    for cert in certs {
        let days = Timestamp(cert.not_after).since(now).as_secs() / 86_400;
        if cert.not_after <= now.0 {
            warnings.push(format!("push certificate {} has ended", cert.topic));
        } else if days < 30 {
            warnings.push(format!("push certificate {} ends in {days} days", cert.topic));
        }
        if let Some(why) = cert.stopped_why {
            warnings.push(format!("APNs refuses push certificate {}: {why}", cert.topic));
        }
    }
    Ok(warnings)
}
