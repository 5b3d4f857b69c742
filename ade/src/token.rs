//! The server token: what the portal gives out, encrypted to a certificate that was uploaded there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::crypto::enveloped::Envelope;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::oauth::Credentials;

/// The longest `.p7m` that is looked at.
const LARGEST: usize = 64 * 1024;

/// A server token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) consumer_key: String,
    consumer_secret: Secret<String>,
    access_token: Secret<String>,
    access_secret: Secret<String>,
    pub(crate) expires_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The token as Apple writes it, and as it is sealed.
#[derive(Serialize, Deserialize)]
struct Written {
    consumer_key: String,
    consumer_secret: String,
    access_token: String,
    access_secret: String,
    access_token_expiry: String,
}

impl Token {
    /// Opens a `.p7m` (MIME headers and base64, base64 alone, or DER) with the key and the certificate (DER) that the portal
    /// has.
    pub(crate) fn from_p7m(p7m: &[u8], key: &PrivateKey, certificate: &[u8], random: &Random) -> Result<Self, Error> {
        if p7m.len() > LARGEST {
            return Err(Error::NotAToken("it is too large"));
        }
        let cms = cms(p7m).ok_or(Error::NotAToken("it holds no base64"))?;
        let envelope = Envelope::parse(&cms).map_err(|_| Error::NotAToken("it is not an encrypted message"))?;
        let content = envelope.open(key, certificate, random).map_err(|_| Error::OtherCertificate)?;
        let json = message(content.expose()).ok_or(Error::NotAToken("the encrypted message holds no token"))?;
        Self::from_json(json).ok_or(Error::NotAToken("the encrypted message is not in Apple's form"))
    }

    /// Reads the JSON of [`Self::to_json`], which is Apple's.
    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(json).ok()?;
        let filled = [&written.consumer_key, &written.consumer_secret, &written.access_token, &written.access_secret];
        if filled.into_iter().any(String::is_empty) {
            return None;
        }
        Some(Self {
            expires_at: Timestamp::from_rfc3339(&written.access_token_expiry)?,
            consumer_key: written.consumer_key,
            consumer_secret: Secret::new(written.consumer_secret),
            access_token: Secret::new(written.access_token),
            access_secret: Secret::new(written.access_secret),
        })
    }

    /// The token as Apple writes it.
    pub(crate) fn to_json(&self) -> Secret<Vec<u8>> {
        let written = Written {
            consumer_key: self.consumer_key.clone(),
            consumer_secret: self.consumer_secret.expose().clone(),
            access_token: self.access_token.expose().clone(),
            access_secret: self.access_secret.expose().clone(),
            access_token_expiry: self.expires_at.to_rfc3339(),
        };
        Secret::new(serde_json::to_vec(&written).expect("five texts are JSON"))
    }

    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            consumer_key: &self.consumer_key,
            consumer_secret: self.consumer_secret.expose(),
            token: self.access_token.expose(),
            token_secret: self.access_secret.expose(),
        }
    }
}

/// The CMS of a `.p7m`.
fn cms(p7m: &[u8]) -> Option<Vec<u8>> {
    if p7m.first() == Some(&0x30) {
        return Some(p7m.to_vec());
    }
    let text = std::str::from_utf8(p7m).ok()?.replace("\r\n", "\n");
    // MIME headers end with an empty line; without headers there is none, or only behind the base64.
    let body = match text.split_once("\n\n") {
        Some((headers, body)) if headers.contains(':') => body,
        _ => &text,
    };
    let base64: String = body.lines().filter(|line| !line.starts_with("-----")).flat_map(str::chars).collect();
    let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(base64).ok().filter(|der| !der.is_empty())
}

/// The JSON between the MESSAGE lines of the decrypted content.
fn message(content: &[u8]) -> Option<&[u8]> {
    const BEGIN: &str = "-----BEGIN MESSAGE-----";
    const END: &str = "-----END MESSAGE-----";
    let text = std::str::from_utf8(content).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (json, _) = rest.split_once(END)?;
    Some(json.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mdm_core::crypto::enveloped::{ContentCipher, seal_to};
    use mdm_core::crypto::issue::issue_recipient;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_320_000_000);
    const JSON: &str = r#"{"consumer_key":"CK_1","consumer_secret":"CS_1","access_token":"AT_1","access_secret":"AS_1","access_token_expiry":"2027-11-22T05:00:00Z"}"#;

    fn pair() -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate_rsa(2048).unwrap();
        let certificate = issue_recipient(&key, "mdm", NOW, Duration::from_secs(86_400), &Random::System).unwrap();
        (key, certificate)
    }

    fn p7m(certificate: &[u8], content: &str) -> String {
        let cms = seal_to(certificate, content.as_bytes(), ContentCipher::Aes256Cbc, &Random::System).unwrap();
        let base64 = STANDARD.encode(cms);
        let lines: Vec<&str> =
            (0..base64.len()).step_by(76).map(|at| &base64[at..(at + 76).min(base64.len())]).collect();
        format!(
            "Content-Type: application/pkcs7-mime; name=\"smime.p7m\"; smime-type=enveloped-data\r\n\
             Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"smime.p7m\"\r\n\r\n{}\r\n",
            lines.join("\r\n")
        )
    }

    fn wrapped(json: &str) -> String {
        format!(
            "Content-Type: text/plain;charset=UTF-8\nContent-Transfer-Encoding: 7bit\n\n-----BEGIN MESSAGE-----\n{json}\n-----END MESSAGE-----\n"
        )
    }

    #[test]
    fn a_token_of_the_portal_is_read_in_each_of_its_forms() {
        let (key, certificate) = pair();
        let text = p7m(&certificate, &wrapped(JSON));
        let base64 = text.split_once("\r\n\r\n").unwrap().1.to_owned();
        let der = STANDARD.decode(base64.replace("\r\n", "")).unwrap();
        for form in [text.as_bytes(), base64.as_bytes(), &der] {
            let token = Token::from_p7m(form, &key, &certificate, &Random::System).unwrap();
            assert_eq!(token.consumer_key, "CK_1");
            assert_eq!(token.expires_at, Timestamp::from_rfc3339("2027-11-22T05:00:00Z").unwrap());
            let again = Token::from_json(token.to_json().expose()).unwrap();
            assert_eq!(again.credentials().token_secret, "AS_1");
            assert!(!format!("{token:?}").contains("S_1"));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_reason() {
        let (key, certificate) = pair();
        let (_, other) = pair();
        let open = |bytes: &[u8]| Token::from_p7m(bytes, &key, &certificate, &Random::System).unwrap_err();
        assert!(matches!(open(b"hello"), Error::NotAToken(_)));
        assert!(matches!(open(b""), Error::NotAToken(_)));
        assert!(matches!(open(&vec![b'A'; LARGEST + 1]), Error::NotAToken(_)));
        assert!(matches!(open(p7m(&other, &wrapped(JSON)).as_bytes()), Error::OtherCertificate));
        assert!(matches!(open(p7m(&certificate, JSON).as_bytes()), Error::NotAToken(_)));
        assert!(matches!(open(p7m(&certificate, &wrapped("{}")).as_bytes()), Error::NotAToken(_)));
        assert!(matches!(open(p7m(&certificate, &wrapped(&JSON.replace("AT_1", ""))).as_bytes()), Error::NotAToken(_)));
    }
}
