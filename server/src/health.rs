//! The third listener: whether the server lives, whether it is ready, and its metrics. Without TLS and without secrets.

use std::time::Duration;

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

use crate::tls;

/// From how long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// What the listener needs.
#[derive(Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// The files of the server's own TLS certificate, where one is configured.
    pub tls: Option<tls::Files>,
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
    let now = shared.clock.now();
    match push_warnings(&shared.store, now).await {
        Ok(mut warnings) => {
            warnings.extend(shared.tls.iter().flat_map(|files| tls_warnings(files, now)));
            Readiness { ready: true, database: "answers", warnings }
        }
        Err(e) => {
            tracing::error!(error = %e, "not ready: the database does not answer");
            Readiness { ready: false, database: "does not answer", warnings: Vec::new() }
        }
    }
}

/// What is wrong, or soon will be, with the files of the TLS certificate.
fn tls_warnings(files: &tls::Files, now: Timestamp) -> Vec<String> {
    let chain = tls::files(&files.certificate, &files.key).and_then(|identity| identity.certificates());
    match chain {
        Err(e) => vec![format!("the TLS certificate's files do not fit: {e:#}")],
        Ok(chain) => chain
            .iter()
            .filter(|certificate| certificate.not_after().since(now) < WARN_BEFORE)
            .map(|certificate| format!("TLS certificate {} ends on {}", certificate.subject(), certificate.not_after()))
            .collect(),
    }
}

async fn push_warnings(store: &Store, now: Timestamp) -> Result<Vec<String>, store::Error> {
    let certs = store::push::certs(&mut store.read().await?).await?;
    let mut warnings = Vec::new();
    if certs.is_empty() {
        warnings.push("no push certificate: devices cannot be woken".to_owned());
    }
    for cert in certs {
        let left = Timestamp(cert.not_after).since(now);
        if cert.not_after <= now.0 {
            warnings.push(format!("push certificate {} has ended", cert.topic));
        } else if left < WARN_BEFORE {
            warnings.push(format!("push certificate {} ends in {} days", cert.topic, left.as_secs() / 86_400));
        }
        if let Some(why) = cert.stopped_why {
            warnings.push(format!("APNs refuses push certificate {}: {why}", cert.topic));
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_certificate_near_its_end_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let files = tls::Files { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let made = rcgen::generate_simple_self_signed(vec!["mdm.example.com".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let chain = tls::files(&files.certificate, &files.key).unwrap().certificates().unwrap();
        let end = chain[0].not_after();
        assert_eq!(tls_warnings(&files, end.minus(WARN_BEFORE)), Vec::<String>::new());
        assert!(tls_warnings(&files, end.minus(Duration::from_secs(86_400)))[0].contains("ends on"));
        std::fs::remove_file(&files.key).unwrap();
        assert!(tls_warnings(&files, end)[0].contains("key.pem"));
    }
}
