//! Digest access authentication for `UserAuthenticate` (RFC 2617; Apple, `UserAuthenticate`): MD5, because a Mac's login window
//! speaks nothing else. It proves a password to the server over TLS; nothing else of ours rests on it.

use std::collections::BTreeMap;

use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;

use crate::secret::Secret;

/// Methods that a Mac may have put into its answer: Apple's text names none, and all check-in messages are PUT or POST.
const METHODS: [&str; 3] = ["PUT", "POST", "GET"];

/// Longest answer that is read.
const MAX_RESPONSE: usize = 4096;

fn md5(text: &str) -> String {
    hex::encode(hash(MessageDigest::md5(), text.as_bytes()).expect("this OpenSSL has MD5"))
}

/// HA1: what a server keeps instead of the password. As good as the password for this realm, so it is kept sealed.
pub fn ha1(short_name: &str, realm: &str, password: &Secret<String>) -> Secret<String> {
    Secret::new(md5(&format!("{short_name}:{realm}:{}", password.expose())))
}

/// `DigestChallenge`: the text of a `WWW-Authenticate` header, with this nonce.
pub fn challenge(realm: &str, nonce: &str) -> String {
    format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\", algorithm=MD5")
}

/// `DigestResponse`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestResponse {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    /// `nc` and `cnonce`, where the answer has a `qop`.
    counted: Option<(String, String)>,
}

impl DigestResponse {
    /// Reads the text of an `Authorization` header; `None` where it is not one of this scheme, or lacks what is needed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_RESPONSE {
            return None;
        }
        let mut fields = fields(text)?;
        let mut take = |key: &str| fields.remove(key);
        if take("algorithm").is_some_and(|name| !name.eq_ignore_ascii_case("MD5")) {
            return None;
        }
        let counted = match take("qop") {
            None => None,
            Some(qop) if qop == "auth" => Some((take("nc")?, take("cnonce")?)),
            Some(_) => return None,
        };
        Some(Self {
            username: take("username").filter(|name| !name.is_empty())?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response")?,
            counted,
        })
    }

    /// Who says so; believed once [`Self::proves`] holds.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The nonce that it answers.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether it was made with the password that `ha1` stands for.
    pub fn proves(&self, ha1: &Secret<String>, realm: &str) -> bool {
        self.realm == realm && METHODS.iter().any(|method| self.is_response(ha1, method))
    }

    fn is_response(&self, ha1: &Secret<String>, method: &str) -> bool {
        let (ha1, ha2) = (ha1.expose(), md5(&format!("{method}:{}", self.uri)));
        let wanted = match &self.counted {
            None => md5(&format!("{ha1}:{}:{ha2}", self.nonce)),
            Some((count, cnonce)) => md5(&format!("{ha1}:{}:{count}:{cnonce}:auth:{ha2}", self.nonce)),
        };
        let given = self.response.to_ascii_lowercase();
        given.len() == wanted.len() && memcmp::eq(given.as_bytes(), wanted.as_bytes())
    }
}

/// `key=value, key="value"`, each once, with or without the scheme's name before them.
fn fields(text: &str) -> Option<BTreeMap<String, String>> {
    let text = text.trim();
    let text = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("digest") => rest,
        _ => text,
    };
    let mut found = BTreeMap::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| *c == ',' || c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Some(found);
        }
        let mut key = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=') {
            key.push(c);
        }
        rest.next()?;
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => value.push(rest.next()?),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = rest.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        let key = key.trim().to_ascii_lowercase();
        if found.insert(key, value.trim().to_owned()).is_some() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617 section 3.5.
    const EXAMPLE: &str = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
        nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"0a4f113b\", \
        response=\"6629fae49393a05397450978507c4ef1\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";

    fn example_ha1() -> Secret<String> {
        ha1("Mufasa", "testrealm@host.com", &Secret::new("Circle Of Life".into()))
    }

    #[test]
    fn the_example_of_the_standard_is_proven() {
        let response = DigestResponse::parse(EXAMPLE).unwrap();
        assert_eq!(response.username(), "Mufasa");
        assert!(response.proves(&example_ha1(), "testrealm@host.com"));
        assert!(!response.proves(&example_ha1(), "other"));
        let other = ha1("Mufasa", "testrealm@host.com", &Secret::new("circle of life".into()));
        assert!(!response.proves(&other, "testrealm@host.com"));
        let nonce = EXAMPLE.replace("dcd98", "dcd99");
        assert!(!DigestResponse::parse(&nonce).unwrap().proves(&example_ha1(), "testrealm@host.com"));
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        for bad in [
            "",
            "Basic TXVmYXNhOng=",
            "Digest",
            "Digest username=\"a",
            "Digest username",
            &EXAMPLE.replace("qop=auth", "qop=auth-int"),
            &EXAMPLE.replace("cnonce=\"0a4f113b\", ", ""),
            &EXAMPLE.replace("username=\"Mufasa\"", "username=\"\""),
            &format!("{EXAMPLE}, nonce=\"x\""),
            &format!("{EXAMPLE}, algorithm=MD5-sess"),
            &format!("{EXAMPLE}, x=\"{}\"", "y".repeat(MAX_RESPONSE)),
        ] {
            assert_eq!(DigestResponse::parse(bad), None, "{bad}");
        }
        let escaped = EXAMPLE.replace("Mufasa", "Mu\\\"fasa");
        assert_eq!(DigestResponse::parse(&escaped).unwrap().username(), "Mu\"fasa");
    }

    #[test]
    fn a_challenge_is_what_an_answer_can_be_made_of() {
        let text = challenge("mdm.example.com", "abc");
        let fields = fields(&text).unwrap();
        assert_eq!((fields["realm"].as_str(), fields["nonce"].as_str()), ("mdm.example.com", "abc"));
    }
}
