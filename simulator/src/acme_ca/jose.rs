//! JSON Web Signatures as ACME uses them (RFC 8555 section 6.2; RFC 7515; ES256 of RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use serde_json::Value;

use super::Problem;
use crate::error::Result;

/// A public key of an account: a point on P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jwk {
    x: String,
    y: String,
}

impl Jwk {
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        (text("kty")? == "EC" && text("crv")? == "P-256").then_some(())?;
        Some(Self { x: text("x")?, y: text("y")? })
    }

    /// RFC 7638.
    pub(super) fn thumbprint(&self) -> Result<String> {
        let text = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{}\",\"y\":\"{}\"}}", self.x, self.y);
        Ok(URL_SAFE_NO_PAD.encode(hash(MessageDigest::sha256(), text.as_bytes())?))
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> Option<bool> {
        let number = |text: &str| BigNum::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).ok()?;
        let key = EcKey::from_public_key_affine_coordinates(&group, &*number(&self.x)?, &*number(&self.y)?).ok()?;
        let (r, s) = signature.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
        let signature =
            EcdsaSig::from_private_components(BigNum::from_slice(r).ok()?, BigNum::from_slice(s).ok()?).ok()?;
        signature.verify(&hash(MessageDigest::sha256(), text).ok()?, &key).ok()
    }
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signer {
    /// `jwk`: somebody new.
    New(Jwk),
    /// `kid`: this account.
    Account(String),
}

/// An opened request.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) signer: Signer,
    /// The payload; null for POST-as-GET.
    pub(super) payload: Value,
}

impl Signed {
    pub(super) fn account(&self) -> std::result::Result<&str, Problem> {
        match &self.signer {
            Signer::Account(kid) => Ok(kid),
            Signer::New(_) => Err(Problem::malformed("an account signs with its kid")),
        }
    }
}

/// Opens a request that must be for this URL; `nonce` uses up a nonce and says whether it was there, `account` finds a key.
pub(super) fn open(
    body: &[u8],
    url: &str,
    nonce: impl FnOnce(&str) -> bool,
    account: impl FnOnce(&str) -> Option<Jwk>,
) -> std::result::Result<Signed, Problem> {
    let malformed = || Problem::malformed("no flattened JWS");
    let body: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).ok_or_else(malformed);
    let (protected, payload) = (text("protected")?, text("payload")?);
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
    let header: Value = serde_json::from_slice(&decode(protected)?).map_err(|_| malformed())?;
    let field = |key: &str| header.get(key).and_then(Value::as_str);
    if field("alg") != Some("ES256") {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "badSignatureAlgorithm", "ES256 is taken"));
    }
    if !nonce(field("nonce").unwrap_or_default()) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "badNonce", "an unknown or used nonce"));
    }
    if field("url") != Some(url) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "signed for another URL"));
    }
    let (signer, key) = match (header.get("jwk"), field("kid")) {
        (Some(jwk), None) => {
            let key = Jwk::read(jwk);
            let key = key.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "badPublicKey", "P-256 is taken"))?;
            (Signer::New(key.clone()), key)
        }
        (None, Some(kid)) => {
            let unknown = || Problem::new(StatusCode::BAD_REQUEST, "accountDoesNotExist", "no such account");
            (Signer::Account(kid.to_owned()), account(kid).ok_or_else(unknown)?)
        }
        _ => return Err(Problem::malformed("either jwk or kid")),
    };
    let signature = decode(text("signature")?)?;
    if key.verifies(format!("{protected}.{payload}").as_bytes(), &signature) != Some(true) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "the signature does not hold"));
    }
    let payload = decode(payload)?;
    let payload =
        if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).map_err(|_| malformed())? };
    Ok(Signed { signer, payload })
}

/// 128 random bits as text.
pub(super) fn random() -> Result<String> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
