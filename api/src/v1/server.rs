//! `GET /api/v1/server`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::problem::Problem;
use crate::when::When;

/// The server itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Server {
    /// Its version.
    version: &'static str,
    /// How devices reach it.
    public_url: String,
    /// Its time.
    now: When,
    /// The CA that issues identity certificates to devices.
    identity_ca: IdentityCa,
    /// The push topics and when their certificates end.
    push: Vec<PushTopic>,
    /// How much waits to be pushed.
    push_backlog: Backlog,
}

/// The CA of identity certificates.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IdentityCa {
    /// SHA-256 of its certificate, hexadecimal.
    sha256: String,
    /// When its certificate ends.
    not_after: When,
}

/// A push topic.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushTopic {
    /// The topic.
    topic: String,
    /// When its certificate ends.
    not_after: When,
    /// Whether pushes can leave.
    usable: bool,
}

/// What waits to be pushed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Backlog {
    /// Pushes that are due.
    due: i64,
    /// Since when the longest has been due.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_due_at: Option<When>,
    /// Enrollments whose push token is missing or dead.
    without_token: i64,
}

/// The server: version, addresses, CA, push certificates. Any valid token may read it.
#[utoipa::path(
    get, path = "/api/v1/server", tag = "server",
    responses((status = 200, description = "The server", body = Server)),
)]
pub(crate) async fn show_server(State(shared): State<Shared>) -> Result<Json<Server>, Problem> {
    let now = shared.clock.now();
    let mut tx = shared.store.read().await?;
    let certs = push::cert::list(&mut tx).await?;
    let backlog = store::push::backlog(&mut tx, now).await?;
    let topic = |cert: push::cert::PushCertInfo| PushTopic {
        usable: cert.usable(now),
        not_after: cert.not_after.into(),
        topic: cert.topic,
    };
    Ok(Json(Server {
        version: env!("CARGO_PKG_VERSION"),
        public_url: shared.about.public_url.to_string(),
        now: now.into(),
        identity_ca: IdentityCa {
            sha256: shared.about.identity_ca.to_string(),
            not_after: shared.about.identity_ca_not_after.into(),
        },
        push: certs.into_iter().map(topic).collect(),
        push_backlog: Backlog {
            due: backlog.due,
            oldest_due_at: backlog.oldest_due_at.map(When::ms),
            without_token: backlog.parked,
        },
    }))
}
