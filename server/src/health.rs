//! The third listener: whether the server lives, whether it is ready, and its metrics. Without TLS and without secrets.

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mdm_core::time::Clock;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use store::Store;

use crate::trust::ends::{self, End};
use crate::trust::{Finding, Watch};

/// What the listener needs.
#[derive(Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Whether and why devices trust the server's own certificate.
    pub watch: Watch,
    /// Sign profiles.
    pub signers: policy::Signers,
    /// Test roots are believed beside Apple's.
    pub test_roots: bool,
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
    /// How devices trust this server, and what ends: codes as docs/trust.md lists them.
    trust: Vec<Finding>,
}

async fn ready(State(shared): State<Shared>, Query(query): Query<Verbose>) -> Response {
    if query.verbose.is_none() {
        let ready = answers(&shared.store).await;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return (status, if ready { "ready\n" } else { "not ready\n" }).into_response();
    }
    let readiness = readiness(&shared).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}
async fn answers(store: &Store) -> bool {
    let look = async || store::sentinel::get(&mut store.read().await?).await;
    look().await.inspect_err(not_ready).is_ok()
}

fn not_ready(error: &store::Error) {
    tracing::error!(%error, "not ready: the database does not answer");
}

async fn readiness(shared: &Shared) -> Readiness {
    match warnings(shared).await {
        Ok((warnings, trust)) => Readiness { ready: true, database: "answers", warnings, trust },
        Err(e) => {
            not_ready(&e);
            Readiness { ready: false, database: "does not answer", warnings: Vec::new(), trust: Vec::new() }
        }
    }
}

async fn warnings(shared: &Shared) -> Result<(Vec<String>, Vec<Finding>), store::Error> {
    let certs = store::push::certs(&mut shared.store.read().await?).await?;
    let mut warnings = Vec::new();
    if shared.test_roots {
        warnings.push(
            "attestation.test_root_files: test roots are believed, so that attestations prove nothing".to_owned(),
        );
    }
    if certs.is_empty() {
        warnings.push("no push certificate: devices cannot be woken".to_owned());
    }
    for cert in certs {
        if let Some(why) = cert.stopped_why {
            warnings.push(format!("APNs refuses push certificate {}: {why}", cert.topic));
        }
    }
    match ade::warnings(&mut shared.store.read().await?, shared.clock.now()).await {
        Ok(more) => warnings.extend(more),
        Err(ade::Error::Store(e)) => return Err(e),
        Err(e) => warnings.push(e.to_string()),
    }
    warnings.extend(renewal::warnings(&mut shared.store.read().await?, shared.clock.now()).await?);
    match policy::alarm::warnings(&mut shared.store.read().await?, shared.clock.now()).await {
        Ok(more) => warnings.extend(more),
        Err(policy::Error::Store(e)) => return Err(e),
        Err(e) => warnings.push(e.to_string()),
    }
    warnings.extend(shared.signers.ends().filter_map(|(name, not_after)| {
        let when = match ends::of(not_after, shared.clock.now(), ends::NOTICE) {
            End::Far => return None,
            End::Soon { days, .. } => format!("ends {}", ends::in_days(days)),
            End::Over => format!("ended on {not_after}"),
        };
        Some(format!("the certificate of the signing identity {name} {when}: put a new one in its place"))
    }));
    warnings.extend(rollout::warnings(&mut shared.store.read().await?).await?);
    Ok((warnings, shared.watch.examine().await?))
}
