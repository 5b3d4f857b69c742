//! Checking the signature of `GET /session` (OAuth 1.0a, RFC 5849, HMAC-SHA1), written from the RFC.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;

use super::State;

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The number of the portal's server whose token signed this request, or Apple's word for what is wrong.
pub(super) fn verify(state: &mut State, url: &str, authorization: &str) -> Result<usize, &'static str> {
    let sent = parameters(authorization).ok_or("oauth_problem=parameter_absent")?;
    let get = |key: &str| sent.get(key).map(String::as_str);
    if get("oauth_signature_method") != Some("HMAC-SHA1") || get("oauth_version").is_some_and(|v| v != "1.0") {
        return Err("oauth_problem=signature_method_rejected");
    }
    let consumer = get("oauth_consumer_key").ok_or("oauth_problem=parameter_absent")?;
    let token = get("oauth_token").ok_or("oauth_problem=parameter_absent")?;
    let nonce = get("oauth_nonce").filter(|nonce| nonce.len() >= 8).ok_or("oauth_problem=nonce_used")?;
    let seconds: i64 = get("oauth_timestamp").and_then(|t| t.parse().ok()).ok_or("oauth_problem=timestamp_refused")?;
    if (state.now_ms() / 1000 - seconds).abs() > 600 {
        return Err("oauth_problem=timestamp_refused");
    }
    let number = state
        .portals
        .iter()
        .position(|known| known.consumer_key == consumer)
        .ok_or("oauth_problem=consumer_key_unknown")?;
    let known = state.known(number).map_err(|_| "oauth_problem=consumer_key_unknown")?;
    let access = known.tokens.iter().find(|access| access.token == token).ok_or("oauth_problem=token_rejected")?;
    if access.expires_ms <= state.now_ms() {
        return Err("oauth_problem=token_expired");
    }
    let mut pairs: Vec<String> = sent
        .iter()
        .filter(|(key, _)| !["oauth_signature", "realm"].contains(&key.as_str()))
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    pairs.sort();
    let base = format!("GET&{}&{}", encode(url), encode(&pairs.join("&")));
    let secret = format!("{}&{}", encode(&known.consumer_secret), encode(&access.secret));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let signature = get("oauth_signature").and_then(|s| STANDARD.decode(s).ok()).unwrap_or_default();
    hmac::verify(&key, base.as_bytes(), &signature).map_err(|_| "oauth_problem=signature_invalid")?;
    let nonce = format!("{consumer}:{seconds}:{nonce}");
    if state.nonces.insert(nonce) { Ok(number) } else { Err("oauth_problem=nonce_used") }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The parameters of an `Authorization: OAuth …` header, decoded.
fn parameters(header: &str) -> Option<BTreeMap<String, String>> {
    let rest = header.strip_prefix("OAuth ")?;
    let mut found = BTreeMap::new();
    for part in rest.split(',') {
        let (key, value) = part.trim().split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let decoded = percent_decode_str(value).decode_utf8().ok()?.into_owned();
        found.insert(key.to_owned(), decoded);
    }
    Some(found)
}
