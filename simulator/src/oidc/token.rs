//! The provider's key and its ID tokens, right or wrong.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Map, Value, json};

use super::{Algorithm, Fault, Grant, Shared, random};
use crate::error::Result;

impl Shared {
    pub(super) fn public_key(&self) -> Result<Value> {
        match self.settings.algorithm {
            Algorithm::Rs256 => {
                let key = self.key.rsa()?;
                let (n, e) = (URL_SAFE_NO_PAD.encode(key.n().to_vec()), URL_SAFE_NO_PAD.encode(key.e().to_vec()));
                Ok(json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e }))
            }
            Algorithm::Es256 => {
                let key = self.key.ec_key()?;
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
                let mut context = BigNumContext::new()?;
                let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
                key.public_key().affine_coordinates_gfp(&group, &mut x, &mut y, &mut context)?;
                let (x, y) =
                    (URL_SAFE_NO_PAD.encode(x.to_vec_padded(32)?), URL_SAFE_NO_PAD.encode(y.to_vec_padded(32)?));
                Ok(
                    json!({ "kty": "EC", "use": "sig", "alg": "ES256", "kid": self.kid, "crv": "P-256", "x": x, "y": y }),
                )
            }
        }
    }

    pub(super) fn id_token(&self, grant: &Grant, access_token: &str) -> Result<String> {
        let now = self.settings.now.unwrap_or_else(|| time::OffsetDateTime::now_utc().unix_timestamp());
        let mut claims = if self.settings.claims_in_id_token { self.claims(&grant.login) } else { Map::new() };
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        let fault = self.fault;
        set("iss", if fault == Fault::Issuer { json!("https://other.example.com") } else { json!(self.issuer) });
        set("sub", json!(grant.login));
        set(
            "aud",
            match fault {
                Fault::Audience => json!("another-client"),
                Fault::TwoAudiences => json!([self.settings.client_id, "another-client"]),
                _ => json!(self.settings.client_id),
            },
        );
        set("exp", if fault == Fault::Expired { json!(now - 600) } else { json!(now + 300) });
        set("iat", if fault == Fault::NotYet { json!(now + 3600) } else { json!(now) });
        match fault {
            Fault::NoNonce => {}
            Fault::Nonce => {
                set("nonce", json!(random()?));
            }
            _ => {
                set("nonce", json!(grant.asked.nonce));
            }
        }
        let of = if fault == Fault::AccessToken { "another" } else { access_token };
        let half = sha256(of.as_bytes()).iter().copied().take(16).collect::<Vec<_>>();
        set("at_hash", json!(URL_SAFE_NO_PAD.encode(half)));
        self.signed(&claims)
    }

    fn signed(&self, claims: &Map<String, Value>) -> Result<String> {
        let algorithm = match (self.fault, self.settings.algorithm) {
            (Fault::Unsigned, _) => "none",
            (Fault::Hmac, _) => "HS256",
            (_, Algorithm::Rs256) => "RS256",
            (_, Algorithm::Es256) => "ES256",
        };
        let header = json!({ "alg": algorithm, "kid": self.kid, "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&Value::Object(claims.clone())));
        let stranger;
        let key = if self.fault == Fault::Signature {
            stranger = new_key(self.settings.algorithm)?.0;
            &stranger
        } else {
            &self.key
        };
        let signature = match (self.fault, self.settings.algorithm) {
            (Fault::Unsigned, _) => Vec::new(),
            (Fault::Hmac, _) => {
                let public = PKey::hmac(&self.key.public_key_to_pem()?)?;
                Signer::new(MessageDigest::sha256(), &public)?.sign_oneshot_to_vec(input.as_bytes())?
            }
            (_, Algorithm::Rs256) => {
                Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(input.as_bytes())?
            }
            (_, Algorithm::Es256) => {
                let der = Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(input.as_bytes())?;
                let signature = EcdsaSig::from_der(&der)?;
                [signature.r().to_vec_padded(32)?, signature.s().to_vec_padded(32)?].concat()
            }
        };
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A key and its name.
pub(super) fn new_key(algorithm: Algorithm) -> Result<(PKey<Private>, String)> {
    let key = match algorithm {
        Algorithm::Rs256 => PKey::from_rsa(Rsa::generate(2048)?)?,
        Algorithm::Es256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)?
        }
    };
    Ok((key, random()?))
}
