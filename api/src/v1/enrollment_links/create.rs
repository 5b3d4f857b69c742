//! `POST /api/v1/enrollment-links`

use std::time::Duration;

use axum::extract::State;
use enroll::link::{LONGEST, LinkKind, NewLink};
use http::StatusCode;
use mdm_core::ids::{Label, LinkId, Udid};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use super::EnrollmentLink;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// A link to make. `kind` is `device` where absent; `user` needs `managed_apple_account` and takes no expected device,
/// because in User Enrollment a device shows neither serial number nor UDID.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEnrollmentLink {
    /// `device` or `user`.
    #[serde(default)]
    kind: Kind,
    /// A note for operators, at most 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    note: String,
    /// Only a device with this serial number may use it.
    expected_serial: Option<String>,
    /// Only a device with this UDID may use it.
    #[schema(value_type = Option<String>)]
    expected_udid: Option<Udid>,
    /// For kind `user`: the person's Managed Apple Account, `name@domain`.
    managed_apple_account: Option<String>,
    /// Put on each enrollment that comes by it.
    #[schema(value_type = Option<String>)]
    label: Option<Label>,
    /// A person signs in on a web page before the profile is given out.
    #[serde(default)]
    sign_in: bool,
    /// How often a profile may be fetched, 1 to 10000; once where absent.
    #[schema(minimum = 1, maximum = 10_000)]
    max_uses: Option<u32>,
    /// After how many seconds it ends, at most 86400; 86400 where absent.
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<u64>,
}

/// Which kind of enrollment a link leads to.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Device enrollment.
    #[default]
    Device,
    /// User Enrollment.
    User,
}

/// A link that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedLink {
    /// The URL to give to the person. It is shown this once; only a hash of it is stored.
    #[schema(example = "https://mdm.example.com/enroll/…")]
    url: String,
    /// What is stored.
    enrollment_link: EnrollmentLink,
}

impl NewEnrollmentLink {
    fn link(self, created_by: &str) -> Result<NewLink, Problem> {
        let kind = match (self.kind, self.managed_apple_account) {
            (Kind::Device, None) => {
                LinkKind::Device { expected_serial: self.expected_serial, expected_udid: self.expected_udid }
            }
            (Kind::Device, Some(_)) => {
                return Err(Problem::field("managed_apple_account", "belongs to kind user"));
            }
            (Kind::User, _) if self.expected_serial.is_some() => {
                return Err(Problem::field("expected_serial", "belongs to kind device"));
            }
            (Kind::User, _) if self.expected_udid.is_some() => {
                return Err(Problem::field("expected_udid", "belongs to kind device"));
            }
            (Kind::User, account) => {
                let missing = || Problem::field("managed_apple_account", "is required with kind user: name@domain");
                LinkKind::User { managed_apple_account: account.ok_or_else(missing)? }
            }
        };
        Ok(NewLink {
            kind,
            note: self.note,
            label: self.label,
            sign_in: self.sign_in,
            max_uses: self.max_uses.unwrap_or(1),
            ttl: self.ttl_seconds.map_or(LONGEST, Duration::from_secs),
            created_by: created_by.to_owned(),
        })
    }
}

/// Makes an enrollment link; the answer is the only place where its URL is ever shown.
#[utoipa::path(
    post, path = "/api/v1/enrollment-links", tag = "enrollment-links", request_body = NewEnrollmentLink,
    responses(
        (status = 201, description = "Made; keep the URL now", body = CreatedLink),
        (status = 409, description = "The label has a rule", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_enrollment_link(
    State(shared): State<Shared>,
    caller: Caller,
    Json(new): Json<NewEnrollmentLink>,
) -> Result<(StatusCode, axum::Json<CreatedLink>), Problem> {
    let new = new.link(&caller.actor)?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if let Some(label) = &new.label {
        policy::label_rules::refuse_by_hand(&mut tx, label).await?;
    }
    let (id, code) = enroll::link::create(&mut tx, &new, &shared.random, now).await?;
    let event = NewEvent {
        summary: &format!("an enrollment link for {} use(s) was made", new.max_uses),
        data: &json!({ "link_id": id, "kind": new.kind.as_str(), "max_uses": new.max_uses }),
        ..caller.event(now, "link.created")
    };
    store::events::record(&mut tx, &event).await?;
    let enrollment_link = show(&mut tx, id, now).await?;
    tx.commit().await?;
    let url = enroll::link::url(&shared.about.public_url, code.expose());
    Ok((StatusCode::CREATED, axum::Json(CreatedLink { url, enrollment_link })))
}

async fn show(tx: &mut store::Tx, id: LinkId, now: mdm_core::time::Timestamp) -> Result<EnrollmentLink, Problem> {
    let row = store::links::get(tx, id).await?.ok_or_else(|| Problem::not_found("enrollment link", id))?;
    super::shown(tx, row, now).await
}
