use policy::proof::{Expected, Name};
use serde_json::json;

use super::*;

fn expectation() -> Expectation {
    let name = |kind: &str, value: &str| Name { kind: kind.into(), value: Expected::Text(value.into()) };
    let json = json!({
        "client_identifier_sha256": "00", "names_device": true, "key_type": "ECSECPrimeRandom", "key_size": 256,
        "hardware_bound": true, "attested": true, "subject": [],
    });
    Expectation {
        subject: vec![name("2.5.4.10", "Example"), name(COMMON_NAME, "phone")],
        names: vec![name("dNSName", "C02.example.com"), name("ntPrincipalName", "ada@example.com")],
        ..serde_json::from_value(json).unwrap()
    }
}

fn differ(told: &[Told]) -> Vec<&Told> {
    let expectation = expectation();
    told.iter().filter(|name| !name.was_delivered("C02", &expectation)).collect()
}

fn certificate(body: &serde_json::Value) -> Vec<Told> {
    let subject = body.get("subject").cloned().map(|subject| serde_json::from_value(subject).unwrap());
    serde_json::from_value::<Alternatives>(body.clone()).unwrap().told(subject)
}

/// What step-ca's own encoder and ours write for these names.
fn extension(sans: Vec<rcgen::SanType>) -> serde_json::Value {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = sans;
    let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let certificate = mdm_core::certificate::Certificate::from_der(der.der()).unwrap();
    json!({"id": SUBJECT_ALT_NAME, "critical": false, "value": STANDARD.encode(certificate.extension(SUBJECT_ALT_NAME).unwrap())})
}

fn raw(common_name: &str) -> String {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    STANDARD.encode(mdm_core::certificate::Certificate::from_der(der.der()).unwrap().subject_der())
}

#[test]
fn what_the_documented_templates_make_was_delivered() {
    for body in [
        json!({}),
        json!({"subject": {}, "sans": null, "extensions": [], "dnsNames": null, "rawSubject": null}),
        json!({"subject": {"commonName": "C02"}, "sans": [{"type": "permanentIdentifier", "value": "C02"}]}),
        json!({"subject": {"extraNames": [{"type": "2.5.4.10", "value": "Any"}, {"type": "2.5.4.3", "value": "phone"}]}, "sans": [
            {"type": "permanentIdentifier", "value": "C02"}, {"type": "dns", "value": "c02.example.com"},
            {"type": "1.3.6.1.4.1.311.20.2.3", "value": "utf8:ada@example.com"}]}),
        json!({"subject": {"commonName": ""}, "dnsNames": "c02.example.com"}),
        json!({"rawSubject": raw("phone"), "dnsNames": ["C02.example.com"], "sans": [{"value": "C02.example.com"}]}),
        json!({"extensions": [{"id": "2.5.29.37", "value": 1}, extension(vec![
            rcgen::SanType::DnsName("C02.example.com".try_into().unwrap()),
            rcgen::SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "ada@example.com".into())),
        ])]}),
    ] {
        assert_eq!(differ(&certificate(&body)), Vec::<&Told>::new(), "{body}");
    }
}

#[test]
fn a_name_that_was_not_delivered_differs_wherever_it_stands() {
    for body in [
        json!({"subject": {"commonName": "ceo"}}),
        json!({"subject": {"commonName": "PHONE"}}),
        json!({"subject": {"commonName": "phone", "extraNames": [{"type": "2.5.4.3", "value": "ceo"}]}}),
        json!({"subject": {"extraNames": [{"type": "2.5.4.3", "value": "phone"}, {"type": "2.5.4.3", "value": "ceo"}]}}),
        json!({"subject": {"extraNames": [{"type": "2.5.4.3", "value": {"other": 1}}]}}),
        json!({"subject": {"commonName": "phone"}, "rawSubject": raw("ceo")}),
        json!({"rawSubject": "AAAA"}),
        json!({"dnsNames": ["ceo.example.com"]}),
        json!({"dnsNames": "ceo.example.com"}),
        json!({"dnsNames": [1]}),
        json!({"emailAddresses": ["ceo@example.com"]}),
        json!({"emailAddresses": ["c02.example.com"]}),
        json!({"ipAddresses": ["192.0.2.1"]}),
        json!({"uris": {"Host": "ceo"}}),
        json!({"sans": [{"type": "permanentIdentifier", "value": "C03"}]}),
        json!({"sans": [{"type": "email", "value": "ceo@example.com"}]}),
        json!({"sans": [{"type": "ip", "value": "192.0.2.1"}]}),
        json!({"sans": [{"type": "1.3.6.1.4.1.311.20.2.3", "value": "utf8:ceo@example.com"}]}),
        json!({"sans": [{"type": "1.3.6.1.4.1.311.20.2.3", "value": "ada@example.com"}]}),
        json!({"sans": [{"type": "auto", "value": "ceo@example.com"}]}),
        json!({"sans": [{"type": "dn", "asn1Value": "AAAA"}]}),
        json!({"extensions": [{"id": "2.5.29.17", "value": "AAAA"}]}),
        json!({"extensions": [{"id": "2.5.29.17"}]}),
        json!({"extensions": [extension(vec![rcgen::SanType::Rfc822Name("ceo@example.com".try_into().unwrap())])]}),
        json!({"extensions": [extension(vec![rcgen::SanType::IpAddress([192, 0, 2, 1].into())])]}),
    ] {
        assert_eq!(differ(&certificate(&body)).len(), 1, "{body}");
    }
}
