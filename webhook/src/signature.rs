//! How calls are signed: HMAC-SHA256 over the body as it was sent, in lower-case hexadecimal digits.

use mdm_core::time::Timestamp;
use ring::hmac;

use crate::error::{Error, Result};

/// How far the time in a call may be from ours, in milliseconds: beyond it a call is old, or was kept for later.
const WINDOW: u64 = 5 * 60 * 1000;

/// The signature of a body with this secret, as its header carries it.
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body))
}

/// Checks the signature of a body; how long it takes says nothing about where the two differ.
pub(crate) fn check(secret: &[u8], body: &[u8], signature: &str) -> Result<()> {
    let given = hex::decode(signature).map_err(|_| Error::Signature)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), body, &given).map_err(|_| Error::Signature)
}

/// Checks the time in a call.
pub(crate) fn check_time(at: Timestamp, now: Timestamp) -> Result<()> {
    if at.0.abs_diff(now.0) <= WINDOW { Ok(()) } else { Err(Error::Timestamp) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signature_is_that_of_rfc_4231() {
        let body = b"what do ya want for nothing?";
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign(b"Jefe", body), expected);
        check(b"Jefe", body, expected).unwrap();
        for wrong in ["", "5b", &expected[..62], &format!("{expected}00"), "zz", &expected.replace('5', "6")] {
            assert!(matches!(check(b"Jefe", body, wrong), Err(Error::Signature)), "{wrong}");
        }
    }

    #[test]
    fn a_call_is_good_for_five_minutes_around_its_time() {
        let now = Timestamp(1_800_000_000_000);
        for (off, good) in [(0, true), (300_000, true), (-300_000, true), (300_001, false), (-300_001, false)] {
            assert_eq!(check_time(Timestamp(now.0 + off), now).is_ok(), good, "{off}");
        }
        assert!(check_time(Timestamp(i64::MIN), now).is_err() && check_time(Timestamp(i64::MAX), now).is_err());
    }

    proptest! {
        #[test]
        fn nothing_but_the_signed_body_passes(secret in prop::collection::vec(any::<u8>(), 1..64),
            body in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let signature = sign(&secret, &body);
            prop_assert!(check(&secret, &body, &signature).is_ok());
            let mut other = body.clone();
            other[at.index(body.len())] ^= 1 << bit;
            prop_assert!(check(&secret, &other, &signature).is_err());
            let mut wrong = hex::decode(&signature).unwrap();
            let place = at.index(wrong.len());
            wrong[place] ^= 1 << bit;
            prop_assert!(check(&secret, &body, &hex::encode(wrong)).is_err());
        }
    }
}
