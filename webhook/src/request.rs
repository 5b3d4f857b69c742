//! A call, in either form, as the decision sees it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mdm_core::certificate::Certificate;
use mdm_core::certificate::SubjectKey;
use mdm_core::time::Timestamp;

use crate::error::{Error, Result};
use crate::names::Told;

/// A call.
#[derive(Debug)]
pub(crate) struct Request {
    /// When it was made, as it says.
    pub(crate) at: Timestamp,
    /// `permanent-identifier` of the order; none where the order did not pass `device-attest-01`.
    pub(crate) identifier: Option<String>,
    /// What it is about.
    pub(crate) about: About,
}

/// What a call is about.
#[derive(Debug)]
pub(crate) enum About {
    /// May this be issued?
    May(Wish),
    /// This was issued.
    Issued(Box<Certificate>),
}

/// What is wished for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The key.
    pub(crate) key: SubjectKey,
    /// The key's `SubjectPublicKeyInfo`, DER.
    pub(crate) spki: Vec<u8>,
    /// The names that the certificate would have, as far as the call tells.
    pub(crate) names: Vec<Told>,
    /// From when to when the certificate would be valid, where the call tells.
    pub(crate) validity: Option<(Timestamp, Timestamp)>,
    /// The attestation that the authority was shown, where it shows it to us.
    pub(crate) attestation: Option<Shown>,
}

/// An attestation object and the token of the challenge that it answers.
#[derive(Debug)]
pub(crate) struct Shown {
    /// `attObj`, CBOR.
    pub(crate) object: Vec<u8>,
    /// `token` of the challenge.
    pub(crate) token: String,
}

/// The key of a wish, from its `SubjectPublicKeyInfo` in base64.
pub(crate) fn key(text: &str) -> Result<(SubjectKey, Vec<u8>)> {
    let spki = STANDARD.decode(text).map_err(|_| Error::Malformed("publicKey is not base64"))?;
    let key = SubjectKey::of_spki(&spki).ok_or(Error::Malformed("publicKey is not a SubjectPublicKeyInfo"))?;
    Ok((key, spki))
}

/// base64url without padding (RFC 7515, section 2), as ACME writes binary values.
pub(crate) fn base64url(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed("attestation.object is not base64url"))
}

/// A certificate in base64 of its DER.
pub(crate) fn certificate(text: &str) -> Result<Certificate> {
    let der = STANDARD.decode(text).map_err(|_| Error::Malformed("certificate is not base64"))?;
    Certificate::from_der(&der).map_err(|_| Error::Malformed("certificate is not an X.509 certificate"))
}
