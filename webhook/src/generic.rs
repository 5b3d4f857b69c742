//! The body of the generic webhook; docs/certificate-authorities.md describes it for authorities that are to call it.

use mdm_core::time::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::names::{San, Told};
use crate::request::{About, Request, Shown, Wish, base64url, certificate, key};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    timestamp: Timestamp,
    event: Event,
    identifier: Option<String>,
    public_key: Option<String>,
    common_name: Option<String>,
    sans: Option<Vec<San>>,
    attestation: Option<Attestation>,
    certificate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Authorize,
    Issued,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Attestation {
    object: String,
    token: String,
}

/// Reads the body of a call.
pub(crate) fn read(body: &[u8]) -> Result<Request> {
    let body: Body = serde_json::from_slice(body).map_err(|_| Error::Malformed("not a call as it is described"))?;
    let about = match (body.event, body.public_key, body.certificate) {
        (Event::Authorize, Some(public_key), None) => {
            let (key, spki) = key(&public_key)?;
            let attestation = body
                .attestation
                .map(|shown| Ok::<_, Error>(Shown { object: base64url(&shown.object)?, token: shown.token }))
                .transpose()?;
            let mut names: Vec<Told> = body.common_name.map(Told::Common).into_iter().collect();
            names.extend(body.sans.into_iter().flatten().map(San::told));
            About::May(Wish { key, spki, names, validity: None, attestation })
        }
        (Event::Issued, None, Some(der))
            if body.attestation.is_none() && body.common_name.is_none() && body.sans.is_none() =>
        {
            About::Issued(Box::new(certificate(&der)?))
        }
        (Event::Authorize, ..) => return Err(Error::Malformed("authorize comes with publicKey, without certificate")),
        (Event::Issued, ..) => return Err(Error::Malformed("issued comes with certificate alone")),
    };
    Ok(Request { at: body.timestamp, identifier: body.identifier, about })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_value(value: &serde_json::Value) -> Result<Request> {
        read(value.to_string().as_bytes())
    }

    #[test]
    fn what_does_not_belong_together_is_malformed() {
        let at = "2027-01-15T08:00:00Z";
        for body in [
            json!({}),
            json!({"timestamp": at, "event": "authorize", "identifier": "x"}),
            json!({"timestamp": at, "event": "authorize", "identifier": "x", "publicKey": "AAAA"}),
            json!({"timestamp": at, "event": "authorize", "identifier": "x", "publicKey": "AAAA", "certificate": "AAAA"}),
            json!({"timestamp": at, "event": "issued", "identifier": "x"}),
            json!({"timestamp": at, "event": "issued", "certificate": "AAAA"}),
            json!({"timestamp": at, "event": "revoked", "certificate": "AAAA"}),
            json!({"timestamp": at, "event": "issued", "certificate": "AAAA", "order": 1}),
            json!({"timestamp": at, "event": "authorize", "identifier": "x", "publicKey": "AAAA", "sans": "x"}),
            json!({"timestamp": 1_800_000_000, "event": "issued", "certificate": "AAAA"}),
        ] {
            assert!(matches!(read_value(&body), Err(Error::Malformed(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
