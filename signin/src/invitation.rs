//! Invitation codes: what stands in for a sign-in, in a pilot without an OpenID Connect provider.
//!
//! A code has 80 random bits, so that nobody guesses it; limits on tries are there for the noise that guessing makes. It is
//! bound to one account and one mode of enrollment (TH-54), counted, and ends after 30 days at the latest.

use std::time::Duration;

use mdm_core::ids::Label;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use sha2::{Digest, Sha256};
use store::Tx;
use store::invitations::Row;
use uuid::Uuid;

use crate::{Error, Purpose, Refusal, claims};

/// The longest that an invitation may live.
pub const LONGEST: Duration = Duration::from_hours(30 * 24);
/// How long it lives where nothing is said.
pub const DEFAULT_LIFE: Duration = Duration::from_hours(7 * 24);
/// The most uses that one may have: the devices of one person.
pub const MOST_USES: u32 = 100;

/// Crockford's base 32: no letter that looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The mode of enrollment that an invitation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Account-driven User Enrollment (`mdm-byod`).
    Byod,
    /// Account-driven device enrollment (`mdm-adde`).
    Adde,
}

impl Mode {
    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Byod => "byod",
            Self::Adde => "adde",
        }
    }
}

/// An invitation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvitation {
    /// The Managed Apple Account that its code signs in, `name@domain`.
    pub managed_apple_account: String,
    /// What it is for.
    pub mode: Mode,
    /// What the operator notes about it; shown to operators only.
    pub note: String,
    /// Put on each enrollment that comes by it.
    pub label: Option<Label>,
    /// How often the code may be used: 1 to [`MOST_USES`].
    pub max_uses: u32,
    /// How long it lives: at most [`LONGEST`].
    pub ttl: Duration,
    /// Who makes it.
    pub created_by: String,
}

impl NewInvitation {
    fn check(&self) -> Result<String, Error> {
        let refuse = |field, why| Err(Error::Field { field, why });
        if self.max_uses == 0 || self.max_uses > MOST_USES {
            return refuse("max_uses", "must be from 1 to 100");
        }
        if self.ttl.is_zero() || self.ttl > LONGEST {
            return refuse("ttl_seconds", "must be more than zero and at most 30 days");
        }
        if self.note.chars().count() > 500 {
            return refuse("note", "must have at most 500 characters");
        }
        claims::normal(&self.managed_apple_account)
            .ok_or(Error::Field { field: "managed_apple_account", why: "must have the form name@domain" })
    }
}

/// Makes an invitation. The code is returned once and never again: only its hash is stored.
pub async fn create(
    tx: &mut Tx,
    new: &NewInvitation,
    random: &Random,
    now: Timestamp,
) -> Result<(Uuid, Secret<String>), Error> {
    let account = new.check()?;
    let code = new_code(random);
    let row = Row {
        id: random.uuid_v7(now),
        managed_apple_account: account,
        mode: new.mode.as_str().to_owned(),
        note: new.note.clone(),
        label: new.label.clone().map(Label::into_string),
        max_uses: i64::from(new.max_uses),
        uses: 0,
        expires_at: now.plus(new.ttl).0,
        revoked_at: None,
        created_by: new.created_by.clone(),
        created_at: now.0,
    };
    store::invitations::insert(tx, &row, hash(&code)).await?;
    Ok((row.id, Secret::new(code)))
}

/// Ends an invitation, and what was signed in by it and has given nothing out yet; false where it had ended so before.
pub async fn revoke(tx: &mut Tx, id: Uuid, now: Timestamp) -> Result<bool, Error> {
    store::invitations::lock(tx, id).await?;
    let revoked = store::invitations::revoke(tx, id, now).await?;
    store::sign_ins::end_of_invitation(tx, id, now).await?;
    Ok(revoked)
}

/// How an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its code can be used.
    Ready,
    /// Used up.
    UsedUp,
    /// Its time is over.
    Expired,
    /// An operator ended it.
    Revoked,
}

/// How an invitation stands at `now`.
pub fn standing(row: &Row, now: Timestamp) -> Standing {
    if row.revoked_at.is_some() {
        Standing::Revoked
    } else if row.expires_at <= now.0 {
        Standing::Expired
    } else if row.uses >= row.max_uses {
        Standing::UsedUp
    } else {
        Standing::Ready
    }
}

/// Takes one use of the invitation with this code, for this purpose and the account that the person named.
pub(crate) async fn take(
    tx: &mut Tx,
    code: &str,
    purpose: Purpose,
    named: Option<&str>,
    now: Timestamp,
) -> Result<Row, Error> {
    let row = store::invitations::find(tx, hash(code)).await?.ok_or(Refusal::UnknownCode)?;
    if row.mode != purpose.as_str() {
        return Err(Refusal::OtherMode.into());
    }
    if named.is_some_and(|named| !named.eq_ignore_ascii_case(&row.managed_apple_account)) {
        return Err(Refusal::OtherAccount.into());
    }
    store::invitations::lock(tx, row.id).await?;
    if !store::invitations::take_use(tx, row.id, now).await? {
        return Err(Refusal::InvitationOver.into());
    }
    Ok(row)
}

/// 80 random bits as `XXXX-XXXX-XXXX-XXXX`.
fn new_code(random: &Random) -> String {
    let bits = random.bytes::<10>().iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let digit = |n: u32| {
        let index = usize::try_from(bits >> (75 - 5 * n) & 31).unwrap_or(0);
        char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
    };
    (0..16).flat_map(|n| (n > 0 && n % 4 == 0).then_some('-').into_iter().chain([digit(n)])).collect()
}

/// What is stored of a code, however a person typed it: small letters, spaces, hyphens, O for 0, I and L for 1.
fn hash(typed: &str) -> [u8; 32] {
    let plain: String = typed
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}'..='\u{2015}'))
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    Sha256::digest(plain.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = new_code(&Random::seeded(1));
        assert_eq!((code.len(), code.matches('-').count()), (19, 3));
        assert_eq!(hash(&code), hash(&code.to_lowercase().replace('-', " ")));
        assert_eq!(hash("0O1I-l000"), hash("00111000"));
        assert_ne!(hash(&code), hash(&new_code(&Random::seeded(2))));
        assert!(code.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)));
    }

    #[test]
    fn what_an_invitation_may_not_be_is_named_by_its_field() {
        let new = || NewInvitation {
            managed_apple_account: "ada@Example.org".into(),
            mode: Mode::Byod,
            note: String::new(),
            label: None,
            max_uses: 1,
            ttl: LONGEST,
            created_by: "test".into(),
        };
        let field = |new: NewInvitation| match new.check() {
            Err(Error::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(new().check().unwrap(), "ada@example.org");
        assert_eq!(field(NewInvitation { max_uses: 0, ..new() }), "max_uses");
        assert_eq!(field(NewInvitation { max_uses: 101, ..new() }), "max_uses");
        assert_eq!(field(NewInvitation { ttl: Duration::ZERO, ..new() }), "ttl_seconds");
        assert_eq!(field(NewInvitation { ttl: LONGEST + Duration::from_secs(1), ..new() }), "ttl_seconds");
        assert_eq!(field(NewInvitation { note: "x".repeat(501), ..new() }), "note");
        assert_eq!(field(NewInvitation { managed_apple_account: "ada".into(), ..new() }), "managed_apple_account");
    }
}
