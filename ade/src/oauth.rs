//! OAuth 1.0a with HMAC-SHA1 (RFC 5849), for the one request that opens a session.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

/// What RFC 3986 leaves as it is; all else is encoded (RFC 5849, 3.6).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The two pairs of the server token.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) consumer_key: &'a str,
    pub(crate) consumer_secret: &'a str,
    pub(crate) token: &'a str,
    pub(crate) token_secret: &'a str,
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The signature over a request (RFC 5849, 3.4): `base_uri` without query, `parameters` decoded, in any order.
fn signature(method: &str, base_uri: &str, parameters: &[(&str, &str)], credentials: Credentials<'_>) -> String {
    let mut pairs: Vec<(String, String)> = parameters.iter().map(|(k, v)| (encoded(k), encoded(v))).collect();
    pairs.sort();
    let normal: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    let base = format!("{method}&{}&{}", encoded(base_uri), encoded(&normal.join("&")));
    let key = format!("{}&{}", encoded(credentials.consumer_secret), encoded(credentials.token_secret));
    // SHA-1 is Apple's choice; HMAC does not need a hash without collisions.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    STANDARD.encode(hmac::sign(&key, base.as_bytes()))
}

/// The value of `Authorization` for a GET of `base_uri`, which has no query.
pub(crate) fn authorization(base_uri: &str, credentials: Credentials<'_>, nonce: &str, seconds: i64) -> String {
    let seconds = seconds.to_string();
    let parameters = [
        ("oauth_consumer_key", credentials.consumer_key),
        ("oauth_nonce", nonce),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", &seconds),
        ("oauth_token", credentials.token),
        ("oauth_version", "1.0"),
    ];
    let signature = signature("GET", base_uri, &parameters, credentials);
    let signed = parameters.into_iter().chain([("oauth_signature", signature.as_str())]);
    let pairs: Vec<String> = signed.map(|(key, value)| format!("{key}=\"{}\"", encoded(value))).collect();
    format!("OAuth realm=\"ADM\", {}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Credentials<'static> = Credentials {
        consumer_key: "dpf43f3p2l4k3l03",
        consumer_secret: "kd94hf93k423kf44",
        token: "nnch734d00sl2jdk",
        token_secret: "pfkkdhi9sl3r4s00",
    };

    #[test]
    fn the_example_of_rfc_5849_section_1_2_has_its_signature() {
        let parameters = [
            ("file", "vacation.jpg"),
            ("size", "original"),
            ("oauth_consumer_key", CLIENT.consumer_key),
            ("oauth_token", CLIENT.token),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131202"),
            ("oauth_nonce", "chapoH"),
        ];
        let signed = signature("GET", "http://photos.example.net/photos", &parameters, CLIENT);
        assert_eq!(signed, "MdpQcU8iPSUjWoN/UDMsK2sui9I=");
    }

    #[test]
    fn the_token_request_of_rfc_5849_section_1_2_has_its_signature() {
        let parameters = [
            ("oauth_consumer_key", CLIENT.consumer_key),
            ("oauth_token", "hh5s93j4hdidpola"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131201"),
            ("oauth_nonce", "walatlh"),
            ("oauth_verifier", "hfdp7dh39dks9884"),
        ];
        let temporary = Credentials { token: "hh5s93j4hdidpola", token_secret: "hdhd0244k9j7ao03", ..CLIENT };
        let signed = signature("POST", "https://photos.example.net/token", &parameters, temporary);
        assert_eq!(signed, "gKgrFCywp7rO0OXSjdot/IHF7IU=");
    }

    #[test]
    fn parameters_are_sorted_and_encoded_as_rfc_5849_section_3_4_1_3_2_has_it() {
        assert_eq!(encoded("r b"), "r%20b");
        assert_eq!(encoded("2 q"), "2%20q");
        assert_eq!(encoded("=%3D"), "%3D%253D");
        assert_eq!(encoded("a-b._~/☃"), "a-b._~%2F%E2%98%83");
    }

    #[test]
    fn the_header_names_each_parameter_and_no_secret() {
        let header = authorization("https://mdmenrollment.apple.com/session", CLIENT, "nonce", 1_795_320_000);
        for wanted in [
            "OAuth realm=\"ADM\"",
            "oauth_consumer_key=\"dpf43f3p2l4k3l03\"",
            "oauth_signature=\"",
            "oauth_version=\"1.0\"",
        ] {
            assert!(header.contains(wanted), "{header}");
        }
        assert!(!header.contains(CLIENT.consumer_secret) && !header.contains(CLIENT.token_secret));
    }
}
