//! The one query that begins every request of an enrolled device.

use mdm_core::enrollment::{Door, UserKey};
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Error, Result, Tx};

/// What a request on a known certificate needs to know before anything else, in one query.
#[derive(Debug)]
pub struct Glance {
    /// The enrollment that speaks: the user channel's where a user is named.
    pub id: EnrollmentId,
    /// The device channel that the certificate is pinned to.
    pub device_id: EnrollmentId,
    /// `UDID` of the device channel.
    pub udid: Option<String>,
    /// `EnrollmentID` of the device channel.
    pub apple_enrollment_id: Option<String>,
    /// By which door the device came in.
    pub door: Door,
    /// State of the speaking enrollment, as text.
    pub state: String,
    /// An operator asked that the device be told to unenroll.
    pub unenroll_requested: bool,
    /// The certificate's validity.
    pub not_before: Timestamp,
    /// The certificate's end.
    pub not_after: Timestamp,
    /// A newer identity took its place.
    pub retired: bool,
    /// It was revoked.
    pub revoked: bool,
    /// Who speaks waits in Setup Assistant to be let go on.
    pub in_set_up: bool,
    /// An older identity of the device is accepted as well: this message ends that.
    pub supersedes: bool,
    /// Commands wait, a push is on its way, who speaks is in Setup Assistant, or an older identity is to be retired: the message
    /// needs a write transaction.
    pub has_work: bool,
}

struct GlanceRow {
    id: Uuid,
    device_id: Uuid,
    udid: Option<String>,
    apple_enrollment_id: Option<String>,
    door: String,
    state: String,
    unenroll_requested: bool,
    not_before: i64,
    not_after: i64,
    retired: bool,
    revoked: bool,
    in_set_up: bool,
    supersedes: bool,
    has_work: bool,
}

from_row!(GlanceRow {
    id,
    device_id,
    udid,
    apple_enrollment_id,
    door,
    state,
    unenroll_requested,
    not_before,
    not_after,
    retired,
    revoked,
    in_set_up,
    supersedes,
    has_work,
});

macro_rules! glance {
    ($speaker:literal, $from:literal) => {
        concat!(
            "SELECT ",
            $speaker,
            ".id, d.id AS device_id, d.udid, d.apple_enrollment_id, d.door, ",
            $speaker,
            ".state, \
             d.unenroll_requested_at IS NOT NULL AS unenroll_requested, i.not_before, i.not_after, \
             i.retired_at IS NOT NULL AS retired, i.revoked_at IS NOT NULL AS revoked, ",
            $speaker,
            ".awaiting_configuration AS in_set_up, \
             EXISTS (SELECT 1 FROM identity o WHERE o.enrollment_id = i.enrollment_id AND o.pinned_at < i.pinned_at \
                     AND o.retired_at IS NULL AND o.revoked_at IS NULL) AS supersedes, \
             (EXISTS (SELECT 1 FROM command_target t WHERE t.enrollment_id = ",
            $speaker,
            ".id \
                      AND t.state IN ('queued', 'sent', 'not_now')) \
              OR EXISTS (SELECT 1 FROM push_intent p WHERE p.enrollment_id = ",
            $speaker,
            ".id)) AS has_work \
             FROM identity i JOIN enrollment d ON d.id = i.enrollment_id ",
            $from,
            " WHERE i.cert_sha256 = $1"
        )
    };
}

/// SQL of [`glance()`], public so that a test can read its query plan.
pub const GLANCE_DEVICE: &str = glance!("d", "");
/// SQL of [`glance()`] where a `UserID` is named.
pub const GLANCE_USER: &str =
    glance!("u", "JOIN enrollment u ON u.parent_id = d.id AND u.user_id = $2 AND u.state <> 'unenrolled'");
/// SQL of [`glance()`] where a Shared iPad user is named.
pub const GLANCE_SHARED: &str =
    glance!("u", "JOIN enrollment u ON u.parent_id = d.id AND u.shared_ipad_user = $2 AND u.state <> 'unenrolled'");

/// Looks up who a certificate is pinned to and whether there is work; the one query of an `Idle` with an empty queue.
pub async fn glance(tx: &mut Tx, certificate: Fingerprint, user: Option<&UserKey>) -> Result<Option<Glance>> {
    let hash = certificate.0.to_vec();
    let row: Option<GlanceRow> = match user {
        None => run!(tx, c => sqlx::query_as(GLANCE_DEVICE).bind(hash).fetch_optional(c).await)?,
        Some(UserKey::UserId(id)) => {
            run!(tx, c => sqlx::query_as(GLANCE_USER).bind(hash).bind(id.as_str()).fetch_optional(c).await)?
        }
        Some(UserKey::SharedIpad(name)) => {
            run!(tx, c => sqlx::query_as(GLANCE_SHARED).bind(hash).bind(name.as_str()).fetch_optional(c).await)?
        }
    };
    let Some(r) = row else { return Ok(None) };
    Ok(Some(Glance {
        id: EnrollmentId(r.id),
        device_id: EnrollmentId(r.device_id),
        udid: r.udid,
        apple_enrollment_id: r.apple_enrollment_id,
        door: Door::from_text(&r.door).ok_or(Error::Corrupt("enrollment.door"))?,
        state: r.state,
        unenroll_requested: r.unenroll_requested,
        not_before: Timestamp(r.not_before),
        not_after: Timestamp(r.not_after),
        retired: r.retired,
        revoked: r.revoked,
        in_set_up: r.in_set_up,
        supersedes: r.supersedes,
        has_work: r.in_set_up || r.supersedes || r.has_work,
    }))
}
