//! The bearer token that a request shows, looked up.

use std::time::Duration;

use mdm_core::time::Timestamp;
use sha2::{Digest, Sha256};
use store::Tx;
use store::account_tokens::{self, Row};

use crate::Mode;

/// How long a token that was replaced is still taken: requests of the same device may be under way with it.
const GRACE: Duration = Duration::from_mins(5);

/// How long what was given out may wait to become an enrollment's.
pub(crate) const UNBOUND_LIFE: Duration = Duration::from_hours(1);

/// Why a token is not taken. The words are for events and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request shows no bearer token.
    Missing,
    /// Nobody was given this token.
    Unknown,
    /// It was given for the other mode (TH-54).
    OtherMode,
    /// It was revoked, or replaced by another one.
    Revoked,
    /// Its time is over.
    Expired,
    /// It belongs to another enrollment, or it has been used for one.
    OtherEnrollment,
    /// It is another person's.
    OtherAccount,
}

impl Problem {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Unknown => "token_unknown",
            Self::OtherMode => "token_other_mode",
            Self::Revoked => "token_revoked",
            Self::Expired => "token_expired",
            Self::OtherEnrollment => "token_other_enrollment",
            Self::OtherAccount => "token_other_account",
        }
    }
}

/// The token of `Authorization`, if it is good for this mode now. To whom it is bound is for the caller to look at.
pub(crate) async fn look(
    tx: &mut Tx,
    mode: Mode,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Result<Row, Problem>, store::Error> {
    let Some(token) = authorization.and_then(bearer) else { return Ok(Err(Problem::Missing)) };
    Ok(match account_tokens::find(tx, hash(token)).await? {
        None => Err(Problem::Unknown),
        Some(row) => judge(&row, mode, now).map(|()| row),
    })
}

fn judge(row: &Row, mode: Mode, now: Timestamp) -> Result<(), Problem> {
    if row.mode != mode.as_str() {
        return Err(Problem::OtherMode);
    }
    match row.state.as_str() {
        "live" => {}
        "replaced" if row.revoked_at.is_some_and(|at| Timestamp(at).plus(GRACE) > now) => {}
        _ => return Err(Problem::Revoked),
    }
    let waited = row.enrollment_id.is_none() && Timestamp(row.created_at).plus(UNBOUND_LIFE) <= now;
    if waited || row.expires_at.is_some_and(|end| end <= now.0) { Err(Problem::Expired) } else { Ok(()) }
}

/// The token of `Bearer <token>` (RFC 6750, section 2.1); the scheme's name is in any case.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty() && token.len() <= 512).then_some(token)
}

/// What is kept of a token, a refresh token or a code. They are 256 random bits: a salt would add nothing.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, revoked_at: Option<i64>, expires_at: Option<i64>) -> Row {
        Row {
            id: uuid::Uuid::nil(),
            sha256: Vec::new(),
            refresh_sha256: None,
            code_sha256: None,
            code_expires_at: None,
            code_challenge: None,
            redirect_uri: None,
            method: "apple-as-web".into(),
            mode: "byod".into(),
            managed_apple_account: "ada@example.org".into(),
            label: None,
            sign_in_id: None,
            enrollment_id: None,
            state: state.into(),
            expires_at,
            revoked_at,
            last_used_at: None,
            created_at: 0,
        }
    }

    #[test]
    fn th_54_a_token_is_good_for_its_mode_and_its_time() {
        let now = Timestamp(1_000_000);
        let seconds = |n: i64| Some(now.0 + n * 1000);
        let judge = |row: Row| super::judge(&row, Mode::Byod, now);
        assert_eq!(judge(row("live", None, None)), Ok(()));
        assert_eq!(judge(row("live", None, seconds(1))), Ok(()));
        assert_eq!(judge(row("live", None, seconds(0))), Err(Problem::Expired));
        assert_eq!(judge(row("replaced", seconds(-299), None)), Ok(()), "requests may be under way");
        assert_eq!(judge(row("replaced", seconds(-300), None)), Err(Problem::Revoked));
        let waited = Row { created_at: now.0 - 3_600_000, ..row("live", None, None) };
        assert_eq!(judge(waited.clone()), Err(Problem::Expired), "nobody came in by it");
        assert_eq!(judge(Row { enrollment_id: Some(uuid::Uuid::nil()), ..waited }), Ok(()));
        assert_eq!(judge(row("revoked", seconds(0), None)), Err(Problem::Revoked));
        assert_eq!(judge(row("code", None, None)), Err(Problem::Revoked), "not given out yet");
        assert_eq!(super::judge(&row("live", None, None), Mode::Adde, now), Err(Problem::OtherMode));
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer "), None);
        assert_eq!(bearer("abc"), None);
    }
}
