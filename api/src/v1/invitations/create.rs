//! `POST /api/v1/invitations`

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use mdm_core::ids::Label;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signin::invitation::{self, DEFAULT_LIFE, NewInvitation};
use store::events::NewEvent;
use utoipa::ToSchema;

use super::{Invitation, Mode};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody, Slug};

/// An invitation to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewInvitation)]
pub(crate) struct Wanted {
    /// The Managed Apple Account that the code signs in, `name@domain`.
    managed_apple_account: String,
    /// The mode of enrollment that it is for.
    mode: Mode,
    /// A note for operators, at most 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    note: String,
    /// Put on each enrollment that comes by it.
    #[schema(value_type = Option<String>)]
    label: Option<Label>,
    /// How often the code may be used, 1 to 100; once where absent.
    #[schema(minimum = 1, maximum = 100)]
    max_uses: Option<u32>,
    /// After how many seconds it ends, at most 2592000 (30 days); 604800 (7 days) where absent.
    #[schema(minimum = 1, maximum = 2_592_000)]
    ttl_seconds: Option<u64>,
}

/// An invitation that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedInvitation {
    /// The code to give to the person. It is shown this once; only a hash of it is stored.
    #[schema(example = "7Q4M-0ZXR-…")]
    code: String,
    /// What is stored.
    invitation: Invitation,
}

/// Makes an invitation; the answer is the only place where its code is ever shown.
#[utoipa::path(
    post, path = "/api/v1/invitations", tag = "invitations", request_body = Wanted,
    responses(
        (status = 201, description = "Made; keep the code now", body = CreatedInvitation),
        (status = 409, description = "The configuration takes no codes, or the label has a rule", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_invitation(
    State(shared): State<Shared>,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Result<(StatusCode, axum::Json<CreatedInvitation>), Problem> {
    if !shared.about.invitations {
        let detail = "nobody could use the code: the configuration must say sign_in.invitations = true";
        return Err(Problem::new(Slug::Conflict, detail));
    }
    let new = NewInvitation {
        managed_apple_account: wanted.managed_apple_account,
        mode: match wanted.mode {
            Mode::Byod => invitation::Mode::Byod,
            Mode::Adde => invitation::Mode::Adde,
        },
        note: wanted.note,
        label: wanted.label,
        max_uses: wanted.max_uses.unwrap_or(1),
        ttl: wanted.ttl_seconds.map_or(DEFAULT_LIFE, Duration::from_secs),
        created_by: caller.actor.clone(),
    };
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if let Some(label) = &new.label {
        policy::label_rules::refuse_by_hand(&mut tx, label).await?;
    }
    let (id, code) = invitation::create(&mut tx, &new, &shared.random, now).await?;
    let row = store::invitations::get(&mut tx, id).await?.ok_or_else(|| Problem::not_found("invitation", id))?;
    let event = NewEvent {
        summary: &format!("an invitation of {} for {} use(s) was made", row.managed_apple_account, new.max_uses),
        data: &json!({ "invitation": id, "mode": row.mode, "max_uses": new.max_uses }),
        ..caller.event(now, "invitation.created")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    let created = CreatedInvitation { code: code.expose().clone(), invitation: super::shown(row, now) };
    Ok((StatusCode::CREATED, axum::Json(created)))
}
