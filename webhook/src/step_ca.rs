//! The body of step-ca's webhooks (smallstep/certificates, webhook/types.go), as far as it is needed.
//!
//! `ENRICHING` comes with the certification request, `AUTHORIZING` with the certificate as it would be signed; neither has a
//! signature of the CA yet. `attestationData` is there only after `device-attest-01` was passed. `NOTIFYING` exists for SCEP only, so
//! that step-ca never says what it has issued: the device shows it.

use ca::webhooks::WebhookKind;
use mdm_core::time::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::names::{Alternatives, Subject};
use crate::request::{About, Request, Wish, key};

// Whatever else step-ca tells is left alone: its later versions add fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    timestamp: Timestamp,
    attestation_data: Option<AttestationData>,
    x509_certificate_request: Option<Described>,
    x509_certificate: Option<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestationData {
    permanent_identifier: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    public_key: Option<String>,
    subject: Option<Subject>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    #[serde(flatten)]
    alternatives: Alternatives,
}

/// Reads the body of a call to a webhook of this kind.
pub(crate) fn read(body: &[u8], kind: WebhookKind) -> Result<Request> {
    let body: Body = serde_json::from_slice(body).map_err(|_| Error::Malformed("not a webhook request of step-ca"))?;
    let described = match (kind, body.x509_certificate_request, body.x509_certificate) {
        (WebhookKind::Enriching, Some(request), None) => request,
        (WebhookKind::Authorizing, None, Some(certificate)) => certificate,
        (WebhookKind::Enriching, ..) => return Err(Error::Malformed("an ENRICHING call has x509CertificateRequest")),
        _ => return Err(Error::Malformed("an AUTHORIZING call has x509Certificate")),
    };
    let spki = described.public_key.ok_or(Error::Malformed("publicKey is missing"))?;
    let (key, spki) = key(&spki)?;
    // What stands in the request is asked for, and a template may leave it aside; the certificate is what will be signed.
    let names = if kind == WebhookKind::Authorizing {
        described.alternatives.told(described.subject)
    } else {
        described.subject.map(Subject::told).unwrap_or_default()
    };
    Ok(Request {
        at: body.timestamp,
        identifier: body.attestation_data.map(|data| data.permanent_identifier),
        about: About::May(Wish {
            key,
            spki,
            names,
            validity: described.not_before.zip(described.not_after),
            attestation: None,
        }),
    })
}

#[cfg(test)]
mod tests {
    use mdm_core::crypto::key::PrivateKey;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::names::Told;

    fn spki() -> String {
        use base64::Engine;
        let key = PrivateKey::generate_p256().unwrap();
        base64::engine::general_purpose::STANDARD.encode(key.public_spki_der().unwrap())
    }

    /// As step-ca 0.30.2 sends it; the long values are shortened.
    fn enriching() -> Value {
        json!({
            "timestamp": "2027-01-15T09:00:00.123456789+01:00",
            "attestationData": {"permanentIdentifier": "C02"},
            "x509CertificateRequest": {
                "version": 0,
                "subject": {"commonName": "C02", "organization": ["Example"], "organizationalUnit": ["Devices"]},
                "rawSubject": "MAA=",
                "dnsNames": ["c02.devices.example.com"], "emailAddresses": ["C02@example.com"], "ipAddresses": [],
                "uris": ["https://example.com/C02"], "sans": null,
                "extensions": [{"id": "2.5.29.17", "critical": false, "value": "MAA="}],
                "keyUsage": null, "extKeyUsage": [], "unknownExtKeyUsage": null, "basicConstraints": null,
                "signatureAlgorithm": "", "publicKey": spki(), "publicKeyAlgorithm": "ECDSA", "raw": "MAA=",
            },
        })
    }

    /// Likewise, with the template of the documentation.
    fn authorizing() -> Value {
        json!({
            "timestamp": "2027-01-15T09:00:00.16789303Z",
            "attestationData": {"permanentIdentifier": "C02"},
            "x509Certificate": {
                "version": 0,
                "subject": {"extraNames": [{"type": "2.5.4.10", "value": "Example"}, {"type": "2.5.4.3", "value": "C02"}]},
                "rawSubject": null, "issuer": {}, "serialNumber": null,
                "dnsNames": null, "emailAddresses": null, "ipAddresses": null, "uris": null,
                "sans": [{"type": "permanentIdentifier", "value": "C02"}],
                "extensions": [{"id": "2.5.29.17", "critical": false, "value": "MAA="}],
                "keyUsage": ["digitalSignature"], "extKeyUsage": ["clientAuth"], "unknownExtKeyUsage": null,
                "subjectKeyId": null, "authorityKeyId": null, "ocspServer": null, "issuingCertificateURL": null,
                "crlDistributionPoints": null, "policyIdentifiers": null, "basicConstraints": null,
                "nameConstraints": null, "signatureAlgorithm": "",
                "publicKey": spki(), "publicKeyAlgorithm": "ECDSA",
                "notBefore": "2027-01-15T08:00:00Z", "notAfter": "2027-01-16T08:00:00Z", "raw": null,
            },
        })
    }

    fn read_value(value: &Value, kind: WebhookKind) -> Result<Request> {
        read(value.to_string().as_bytes(), kind)
    }

    #[test]
    fn a_call_is_read_as_step_ca_writes_it() {
        let request = read_value(&enriching(), WebhookKind::Enriching).unwrap();
        assert_eq!(request.at, Timestamp::from_rfc3339("2027-01-15T08:00:00.123Z").unwrap());
        assert_eq!(request.identifier.as_deref(), Some("C02"));
        let About::May(wish) = request.about else { panic!("a wish") };
        assert_eq!(wish.key.words(), "ECSECPrimeRandom 256");
        assert_eq!(wish.names, [Told::Common("C02".into())]);

        let About::May(wish) = read_value(&authorizing(), WebhookKind::Authorizing).unwrap().about else {
            panic!("a wish")
        };
        assert_eq!(wish.validity.map(|(from, to)| to.since(from).as_secs()), Some(86_400));
        assert_eq!(wish.names, [Told::Common("C02".into()), Told::Permanent("C02".into())]);
    }

    #[test]
    fn the_common_name_is_the_one_that_the_certificate_would_have() {
        let name = |subject: Value| {
            let mut body = authorizing();
            body["x509Certificate"]["subject"] = subject;
            body["x509Certificate"]["sans"] = Value::Null;
            let About::May(wish) = read_value(&body, WebhookKind::Authorizing).unwrap().about else { panic!("a wish") };
            wish.names
        };
        let extra = json!([{"type": "2.5.4.10", "value": "Example"}, {"type": "2.5.4.3", "value": "b"}]);
        assert_eq!(name(json!({})), []);
        assert_eq!(name(json!({"commonName": "a"})), [Told::Common("a".into())]);
        assert_eq!(name(json!({"commonName": "a", "extraNames": extra})), [Told::Common("b".into())]);
        assert_eq!(name(json!({"extraNames": [{"type": "2.5.4.3", "value": {"other": 1}}]})), [Told::Other]);
    }

    #[test]
    fn a_call_of_another_kind_or_without_what_is_needed_is_malformed() {
        let wrong = |change: &dyn Fn(&mut Value), kind| {
            let mut body = enriching();
            change(&mut body);
            matches!(read_value(&body, kind), Err(Error::Malformed(_)))
        };
        assert!(wrong(&|_| (), WebhookKind::Authorizing));
        assert!(wrong(&|_| (), WebhookKind::Generic));
        assert!(wrong(&|b| b["x509Certificate"] = b["x509CertificateRequest"].clone(), WebhookKind::Enriching));
        assert!(wrong(&|b| drop(b.as_object_mut().unwrap().remove("x509CertificateRequest")), WebhookKind::Enriching));
        assert!(wrong(&|b| b["timestamp"] = "yesterday".into(), WebhookKind::Enriching));
        assert!(wrong(&|b| drop(b.as_object_mut().unwrap().remove("timestamp")), WebhookKind::Enriching));
        assert!(wrong(&|b| b["x509CertificateRequest"]["publicKey"] = "AAAA".into(), WebhookKind::Enriching));
        assert!(wrong(&|b| b["x509CertificateRequest"]["publicKey"] = Value::Null, WebhookKind::Enriching));
        assert!(wrong(&|b| b["attestationData"]["permanentIdentifier"] = 7.into(), WebhookKind::Enriching));
        let mut unattested = enriching();
        unattested.as_object_mut().unwrap().remove("attestationData");
        assert_eq!(read_value(&unattested, WebhookKind::Enriching).unwrap().identifier, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for kind in [WebhookKind::Enriching, WebhookKind::Authorizing] {
                let _ = read(&bytes, kind);
            }
        }

        #[test]
        fn a_body_that_is_cut_is_malformed(cut in any::<prop::sample::Index>()) {
            let body = enriching().to_string();
            let body = &body.as_bytes()[..cut.index(body.len())];
            prop_assert!(matches!(read(body, WebhookKind::Enriching), Err(Error::Malformed(_))));
        }
    }
}
