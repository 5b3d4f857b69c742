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

#[cfg(test)]
mod tests {
    use openssl::pkey::{PKey, Private};
    use openssl::sign::Signer as Mac;
    use serde_json::json;

    use super::*;

    const URL: &str = "https://ca.example.com/acme/new-order";

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    struct Account {
        key: EcKey<Private>,
        jwk: Value,
    }

    impl Account {
        fn new() -> Self {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let key = EcKey::generate(&group).unwrap();
            let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
            let mut context = openssl::bn::BigNumContext::new().unwrap();
            key.public_key().affine_coordinates(&group, &mut x, &mut y, &mut context).unwrap();
            let number = |n: &BigNum| encode(&n.to_vec_padded(32).unwrap());
            let jwk = json!({ "kty": "EC", "crv": "P-256", "x": number(&x), "y": number(&y) });
            Self { key, jwk }
        }

        fn jws(&self, header: &Value, payload: &Value) -> Value {
            let (protected, payload) = (encode(header.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
            let digest = hash(MessageDigest::sha256(), format!("{protected}.{payload}").as_bytes()).unwrap();
            let signature = EcdsaSig::sign(&digest, &self.key).unwrap();
            let number = |n: &openssl::bn::BigNumRef| n.to_vec_padded(32).unwrap();
            let signature = [number(signature.r()), number(signature.s())].concat();
            json!({ "protected": protected, "payload": payload, "signature": encode(&signature) })
        }

        fn open(&self, jws: &Value, fresh: bool) -> std::result::Result<Signed, String> {
            let known = |kid: &str| (kid == "me").then(|| Jwk::read(&self.jwk).unwrap());
            open(jws.to_string().as_bytes(), URL, |_| fresh, known).map_err(|problem| format!("{problem:?}"))
        }
    }

    #[test]
    fn th_46_a_signature_that_is_confused_is_no_signature() {
        let me = Account::new();
        let header = json!({ "alg": "ES256", "kid": "me", "nonce": "n", "url": URL });
        let changed = |change: Value| {
            let mut header = header.clone();
            for (key, value) in change.as_object().unwrap() {
                if value.is_null() {
                    header.as_object_mut().unwrap().remove(key);
                } else {
                    header[key] = value.clone();
                }
            }
            me.jws(&header, &json!({}))
        };
        let good = changed(json!({}));
        assert_eq!(me.open(&good, true).unwrap().signer, Signer::Account("me".into()));
        assert!(me.open(&good, false).unwrap_err().contains("badNonce"), "a nonce works once");
        for (change, word) in [
            (json!({ "alg": "none" }), "badSignatureAlgorithm"),
            (json!({ "alg": "HS256" }), "badSignatureAlgorithm"),
            (json!({ "alg": null }), "badSignatureAlgorithm"),
            (json!({ "jwk": me.jwk }), "either jwk or kid"),
            (json!({ "kid": null }), "either jwk or kid"),
            (json!({ "kid": "another" }), "accountDoesNotExist"),
            (json!({ "url": "https://ca.example.com/acme/revoke-cert" }), "another URL"),
            (json!({ "url": null }), "another URL"),
        ] {
            let problem = me.open(&changed(change.clone()), true).unwrap_err();
            assert!(problem.contains(word), "{change}: {problem}");
        }
        let mut unsigned = changed(json!({ "alg": "none" }));
        unsigned["signature"] = "".into();
        assert!(me.open(&unsigned, true).is_err());
        let mut other = good.clone();
        other["payload"] = encode(br#"{"status":"deactivated"}"#).into();
        assert!(me.open(&other, true).unwrap_err().contains("does not hold"));
        assert!(me.open(&Account::new().jws(&header, &json!({})), true).unwrap_err().contains("does not hold"));
        // The public key as the secret of an HMAC, under a name that is taken.
        let secret = PKey::hmac(me.jwk.to_string().as_bytes()).unwrap();
        let text = format!("{}.{}", good["protected"].as_str().unwrap(), good["payload"].as_str().unwrap());
        let mac = Mac::new(MessageDigest::sha256(), &secret).unwrap().sign_oneshot_to_vec(text.as_bytes());
        let mut confused = good;
        confused["signature"] = encode(&mac.unwrap()).into();
        assert!(me.open(&confused, true).is_err());
    }
}
