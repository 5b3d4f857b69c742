//! Enrollment links: a one-time (or counted), expiring permission to enroll, given to a person as a URL (TH-53).
//!
//! Looking at a link, or a robot that makes a preview of it, uses nothing up: only the fetch of the profile does.

use std::time::Duration;

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{Label, LinkId, Udid};
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use sha2::{Digest, Sha256};
use store::Tx;
use store::issuance::State;
use store::links::{Opened, Row};
use url::Url;

use crate::Error;

/// The longest that a link may live, and the default.
pub const LONGEST: Duration = Duration::from_hours(24);

/// The most uses that a link may have.
pub const MOST_USES: u32 = 10_000;

/// For how long after the first fetch a one-time link answers again while nobody has used the challenge: browsers and
/// people repeat a download. The challenge of the earlier fetch is void then.
pub const FETCH_AGAIN: Duration = Duration::from_mins(10);

/// Which kind of enrollment a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Device enrollment.
    Device {
        /// The serial number that the device must have.
        expected_serial: Option<String>,
        /// The `UDID` that the device must have.
        expected_udid: Option<Udid>,
    },
    /// User Enrollment of this person: the device shows no serial number and no `UDID`.
    User {
        /// The person's Managed Apple Account.
        managed_apple_account: String,
    },
}

impl LinkKind {
    /// The word in the database and the API: `device` or `user`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Device { .. } => "device",
            Self::User { .. } => "user",
        }
    }
}

/// A link to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// What it leads to.
    pub kind: LinkKind,
    /// What the operator notes about it; shown to operators only.
    pub note: String,
    /// Put on each enrollment that comes by it.
    pub label: Option<Label>,
    /// A person signs in before the profile is given out.
    pub sign_in: bool,
    /// How often a profile may be fetched: 1 to [`MOST_USES`].
    pub max_uses: u32,
    /// How long it lives: at most [`LONGEST`].
    pub ttl: Duration,
    /// Who makes it.
    pub created_by: String,
}

impl NewLink {
    fn check(&self) -> Result<(), Error> {
        let refuse = |field, why| Err(Error::Field { field, why });
        if self.max_uses == 0 || self.max_uses > MOST_USES {
            return refuse("max_uses", "must be from 1 to 10000");
        }
        if self.ttl.is_zero() || self.ttl > LONGEST {
            return refuse("ttl", "must be more than zero and at most 24 hours");
        }
        if self.note.chars().count() > 500 {
            return refuse("note", "must have at most 500 characters");
        }
        match &self.kind {
            LinkKind::Device { expected_serial: Some(serial), .. }
                if serial.is_empty() || serial.len() > 64 || !serial.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                refuse("expected_serial", "must have 1 to 64 letters and digits")
            }
            LinkKind::User { managed_apple_account: account }
                if !account.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
                    || account.len() > 320
                    || account.chars().any(|c| c.is_whitespace() || c.is_control()) =>
            {
                refuse("managed_apple_account", "must have the form name@domain")
            }
            _ => Ok(()),
        }
    }
}

/// Makes a link. The code is returned once and never again: only its hash is stored.
pub async fn create(
    tx: &mut Tx,
    new: &NewLink,
    random: &Random,
    now: Timestamp,
) -> Result<(LinkId, Secret<String>), Error> {
    new.check()?;
    let id = LinkId(random.uuid_v7(now));
    let code = random.token();
    let (expected_serial, expected_udid, account) = match &new.kind {
        LinkKind::Device { expected_serial, expected_udid } => (expected_serial.clone(), expected_udid.clone(), None),
        LinkKind::User { managed_apple_account } => (None, None, Some(managed_apple_account.clone())),
    };
    let row = Row {
        id: id.0,
        kind: new.kind.as_str().to_owned(),
        note: new.note.clone(),
        expected_serial,
        expected_udid: expected_udid.map(Udid::into_string),
        managed_apple_account: account,
        label: new.label.clone().map(Label::into_string),
        sign_in: new.sign_in,
        max_uses: i64::from(new.max_uses),
        uses: 0,
        expires_at: now.plus(new.ttl).0,
        revoked_at: None,
        created_by: new.created_by.clone(),
        created_at: now.0,
    };
    store::links::insert(tx, &row, code_hash(&code)).await?;
    Ok((id, Secret::new(code)))
}

/// Ends a link and every challenge that it gave out and nobody used; false where it had ended before.
pub async fn revoke(tx: &mut Tx, id: LinkId, now: Timestamp) -> Result<bool, Error> {
    store::links::lock(tx, id).await?;
    let revoked = store::links::revoke(tx, id, now).await?;
    store::issuance::void_of_link(tx, id).await?;
    Ok(revoked)
}

/// The URL of the link with this code.
pub fn url(public_url: &Url, code: &str) -> String {
    format!("{}/enroll/{code}", public_url.as_str().trim_end_matches('/'))
}

/// What is stored of a code.
pub(crate) fn code_hash(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A profile can be fetched.
    Ready,
    /// It is used up, but its profile can be fetched once more: see [`FETCH_AGAIN`].
    Again,
    /// Used up.
    UsedUp,
    /// Its time is over.
    Expired,
    /// An operator ended it.
    Revoked,
}

/// How a link stands at `now`, given the newest issuance record that it opened.
pub fn standing(link: &Row, newest: Option<&Opened>, now: Timestamp) -> Standing {
    if link.revoked_at.is_some() {
        Standing::Revoked
    } else if link.expires_at <= now.0 {
        Standing::Expired
    } else if link.uses < link.max_uses {
        Standing::Ready
    } else if link.max_uses == 1
        && newest.is_some_and(|n| n.state == State::Open.as_str() && now < n.first_at.plus(FETCH_AGAIN))
    {
        Standing::Again
    } else {
        Standing::UsedUp
    }
}

/// The link with this code and how it stands. Changes nothing.
pub(crate) async fn look(tx: &mut Tx, code: &str, now: Timestamp) -> Result<Option<(Row, Standing)>, Error> {
    let Some(row) = store::links::find(tx, code_hash(code)).await? else { return Ok(None) };
    let newest = store::links::newest_issuance(tx, LinkId(row.id)).await?;
    let standing = standing(&row, newest.as_ref(), now);
    Ok(Some((row, standing)))
}

/// Takes one use of the link, or the one taken before once more. Whoever calls opens an issuance record in the same
/// transaction. `None`: there is no such link.
pub(crate) async fn take(tx: &mut Tx, id: LinkId, now: Timestamp) -> Result<Option<(Row, Standing)>, Error> {
    store::links::lock(tx, id).await?;
    let Some(row) = store::links::get(tx, id).await? else { return Ok(None) };
    let newest = store::links::newest_issuance(tx, id).await?;
    let standing = standing(&row, newest.as_ref(), now);
    match standing {
        Standing::Ready if !store::links::take_use(tx, id, now).await? => return Ok(Some((row, Standing::UsedUp))),
        Standing::Again => {
            store::issuance::void_of_link(tx, id).await?;
        }
        Standing::Ready | Standing::UsedUp | Standing::Expired | Standing::Revoked => {}
    }
    Ok(Some((row, standing)))
}

/// The kind of enrollment that a link leads to.
pub(crate) fn enrollment_kind(link: &Row) -> EnrollmentKind {
    if link.kind == "user" { EnrollmentKind::User } else { EnrollmentKind::Device }
}

#[cfg(test)]
mod tests {
    use mdm_core::ids::IssuanceId;

    use super::*;

    fn row(max_uses: i64, uses: i64) -> Row {
        Row {
            id: uuid::Uuid::nil(),
            kind: "device".into(),
            note: String::new(),
            expected_serial: None,
            expected_udid: None,
            managed_apple_account: None,
            label: None,
            sign_in: false,
            max_uses,
            uses,
            expires_at: 1_000_000_000,
            revoked_at: None,
            created_by: "test".into(),
            created_at: 0,
        }
    }

    fn opened(state: State, first_at: i64) -> Opened {
        Opened { id: IssuanceId(uuid::Uuid::nil()), state: state.as_str().into(), first_at: Timestamp(first_at) }
    }

    #[test]
    fn a_link_stands_as_its_rows_say() {
        let at = Timestamp(100_000);
        let late = Timestamp(100_000).plus(FETCH_AGAIN);
        let open = opened(State::Open, 100_000);
        let issued = opened(State::Issued, 100_000);
        assert_eq!(standing(&row(1, 0), None, at), Standing::Ready);
        assert_eq!(standing(&row(1, 1), Some(&open), at), Standing::Again);
        assert_eq!(standing(&row(1, 1), Some(&open), late), Standing::UsedUp);
        assert_eq!(standing(&row(1, 1), Some(&issued), at), Standing::UsedUp);
        assert_eq!(standing(&row(1, 1), None, at), Standing::UsedUp);
        // A counted link is for several people: the last one's fetch must not void another's challenge.
        assert_eq!(standing(&row(2, 1), Some(&open), at), Standing::Ready);
        assert_eq!(standing(&row(2, 2), Some(&open), at), Standing::UsedUp);
        assert_eq!(standing(&row(1, 0), None, Timestamp(1_000_000_000)), Standing::Expired);
        assert_eq!(standing(&Row { revoked_at: Some(1), ..row(1, 0) }, None, at), Standing::Revoked);
    }

    fn new() -> NewLink {
        NewLink {
            kind: LinkKind::Device { expected_serial: None, expected_udid: None },
            note: String::new(),
            label: None,
            sign_in: false,
            max_uses: 1,
            ttl: LONGEST,
            created_by: "test".into(),
        }
    }

    #[test]
    fn what_a_link_may_not_be_is_named_by_its_field() {
        let field = |new: NewLink| match new.check() {
            Err(Error::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert!(new().check().is_ok());
        assert_eq!(field(NewLink { max_uses: 0, ..new() }), "max_uses");
        assert_eq!(field(NewLink { max_uses: 10_001, ..new() }), "max_uses");
        assert_eq!(field(NewLink { ttl: LONGEST + Duration::from_secs(1), ..new() }), "ttl");
        assert_eq!(field(NewLink { ttl: Duration::ZERO, ..new() }), "ttl");
        let serial = LinkKind::Device { expected_serial: Some("a b".into()), expected_udid: None };
        assert_eq!(field(NewLink { kind: serial, ..new() }), "expected_serial");
        for account in ["", "ada", "@example.org", "ada@", "ada @example.org"] {
            let kind = LinkKind::User { managed_apple_account: account.into() };
            assert_eq!(field(NewLink { kind, ..new() }), "managed_apple_account");
        }
    }
}
