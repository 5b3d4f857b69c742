use super::*;
use crate::acme::Acme;
use crate::acme_client;
use crate::attestation::{self, Facts};
use crate::http::{Client, Trust};
use crate::record::Record;

struct World {
    ca: AcmeCa,
    client: Client,
    attesting: attestation::Authority,
    facts: Facts,
}

impl World {
    async fn new(change: impl FnOnce(Settings) -> Settings) -> Self {
        let tls = Authority::new("TLS").unwrap();
        let attesting = attestation::Authority::new().unwrap();
        let settings = change(Settings::strict(attesting.root().unwrap()));
        let ca = AcmeCa::start(&tls, settings).await.unwrap();
        let trust = Trust::public().with_pem(tls.pem().unwrap().as_bytes()).unwrap();
        let record = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "acme").unwrap();
        Self { ca, client: Client::new(&trust, None).unwrap(), attesting, facts: Facts::of(&record) }
    }

    fn request(&self, identifier: &str, common_name: &str) -> acme_client::Request {
        acme_client::Request {
            acme: Acme {
                directory_url: self.ca.directory_url(),
                client_identifier: identifier.into(),
                key_type: "ECSECPrimeRandom".into(),
                key_size: 256,
                hardware_bound: true,
                attest: Some(true),
                key_is_extractable: None,
                allow_all_apps_access: None,
            },
            subject: vec![vec![("CN".into(), common_name.into())]],
        }
    }

    async fn enroll(&self, identifier: &str, common_name: &str) -> Result<crate::signature::Identity> {
        let attesting = Some((&self.attesting, &self.facts));
        acme_client::enroll(&self.client, &self.request(identifier, common_name), attesting).await
    }

    fn serial(&self) -> String {
        self.facts.serial_number.clone().unwrap()
    }
}

#[tokio::test]
async fn an_attested_device_gets_a_certificate_that_names_it() {
    let world = World::new(|settings| settings).await;
    let serial = world.serial();
    let identity = world.enroll(&serial, &serial).await.unwrap();
    let der = identity.certificate.to_der().unwrap();
    assert_eq!(world.ca.issued(), [Issued { identifier: serial.clone(), attested: true, certificate: der.clone() }]);
    let issuer = openssl::x509::X509::from_der(&world.ca.issuer_der().unwrap()).unwrap();
    assert!(identity.certificate.verify(&issuer.public_key().unwrap()).unwrap());
    // SEQUENCE { otherName [0] { OID, [0] { SEQUENCE { UTF8String } } } }
    let names = attestation::extension(&der, "2.5.29.17").unwrap().unwrap();
    assert!(names.windows(serial.len()).any(|window| window == serial.as_bytes()));
    // The UDID is as good; the common name may be empty.
    let udid = world.facts.udid.clone().unwrap();
    world.enroll(&udid, "").await.unwrap();
}

#[tokio::test]
async fn what_step_ca_refuses_is_refused() {
    let world = World::new(|settings| settings).await;
    let serial = world.serial();
    for (identifier, common_name, why) in
        [("another serial", "another serial", "neither serial number"), (serial.as_str(), "Ada", "common name")]
    {
        let error = world.enroll(identifier, common_name).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let request = world.request(&serial, &serial);
    let error = acme_client::enroll(&world.client, &request, None).await.unwrap_err().to_string();
    assert!(error.contains("attestation is required"), "{error}");
    let foreign = attestation::Authority::new().unwrap();
    let attesting = Some((&foreign, &world.facts));
    let error = acme_client::enroll(&world.client, &request, attesting).await.unwrap_err().to_string();
    assert!(error.contains("nobody who is trusted"), "{error}");
    assert!(world.ca.issued().is_empty());
    assert_eq!(world.ca.refusals().len(), 4);
    world.ca.set_down(true);
    assert!(world.enroll(&serial, &serial).await.is_err());
}

#[tokio::test]
async fn a_lenient_authority_takes_random_identifiers_and_devices_without_attestation() {
    let world = World::new(|settings| Settings::lenient(settings.attestation_roots[0].clone())).await;
    world.enroll("f3b1", "f3b1").await.unwrap();
    let request = world.request("f3b2", "f3b2");
    acme_client::enroll(&world.client, &request, None).await.unwrap();
    let attested: Vec<bool> = world.ca.issued().iter().map(|issued| issued.attested).collect();
    assert_eq!(attested, [true, false]);
}

#[test]
fn a_stale_attestation_and_another_key_are_refused() {
    let attesting = attestation::Authority::new().unwrap();
    let settings = Settings::strict(attesting.root().unwrap());
    let record = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "acme").unwrap();
    let facts = Facts::of(&record);
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let key = || openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&curve).unwrap()).unwrap();
    let (one, other) = (key(), key());
    let object = |token: &str| {
        let freshness = openssl::hash::hash(openssl::hash::MessageDigest::sha256(), token.as_bytes()).unwrap();
        let statement = attestation::Statement::apple(attesting.attest(&facts, &one, &freshness).unwrap());
        json!({ "attObj": base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, statement.encode()) })
    };
    let check = |token: &str| attest::check(&settings, &object(token), &record.serial_number, "token");
    assert!(check("an older token").unwrap_err().detail.contains("not for this challenge"));
    let checked = check("token").unwrap();
    let issuer = Issuer::new().unwrap();
    for (key, good) in [(&one, true), (&other, false)] {
        let request = acme_client::Request {
            acme: Acme {
                directory_url: String::new(),
                client_identifier: String::new(),
                key_type: String::new(),
                key_size: 256,
                hardware_bound: true,
                attest: None,
                key_is_extractable: None,
                allow_all_apps_access: None,
            },
            subject: Vec::new(),
        };
        let csr = acme_client::certificate_request(&request, key).unwrap();
        let csr = json!({ "csr": base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, csr) });
        assert_eq!(issuer.issue(&settings, &csr, &record.serial_number, &checked).is_ok(), good);
    }
}
