use super::*;
use crate::acme::Acme;
use crate::acme_client::{self, Attesting};
use crate::attestation::{self, Facts, Fault};
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
            wishes: acme_client::Wishes::default(),
        }
    }

    async fn enroll(&self, identifier: &str, common_name: &str) -> Result<crate::signature::Identity> {
        self.enroll_with(identifier, common_name, Fault::None).await
    }

    async fn enroll_with(
        &self,
        identifier: &str,
        common_name: &str,
        fault: Fault,
    ) -> Result<crate::signature::Identity> {
        let attesting = Attesting { authority: &self.attesting, facts: self.facts.clone(), fault };
        let request = self.request(identifier, common_name);
        Ok(acme_client::enroll(&self.client, &request, Some(&attesting)).await?.0)
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
    assert_eq!(
        world.ca.issued(),
        [Issued {
            identifier: serial.clone(),
            attested: true,
            serial_number: Some(serial.clone()),
            certificate: der.clone()
        }]
    );
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
    let error = world.enroll_with(&serial, &serial, Fault::ForeignRoot(foreign)).await.unwrap_err().to_string();
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

#[tokio::test]
async fn every_fault_of_a_device_is_refused_by_name() {
    let world = World::new(|settings| settings).await;
    let serial = world.serial();
    let other = Record::new(crate::hardware::find("iPhone17,2").unwrap(), "18.1", "22B83", "other").unwrap();
    let foreign = attestation::Authority::new().unwrap();
    for (fault, why) in [
        (Fault::WrongNonce, "not for this challenge"),
        (Fault::Without(attestation::FRESHNESS), "not for this challenge"),
        (Fault::Blank(attestation::FRESHNESS), "not for this challenge"),
        (Fault::OtherDevice(Facts::of(&other)), "neither serial number"),
        (Fault::Without(attestation::SERIAL_NUMBER), "neither serial number"),
        (Fault::Blank(attestation::SERIAL_NUMBER), "neither serial number"),
        (Fault::ForeignRoot(foreign), "nobody who is trusted"),
        (Fault::Silent, "attestation is required"),
    ] {
        let text = format!("{fault:?}");
        let error = world.enroll_with(&serial, "", fault).await.unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(world.ca.issued().is_empty());
}

#[tokio::test]
async fn faults_of_the_authority_are_felt_and_pass() {
    let world = World::new(|settings| settings).await;
    let serial = world.serial();
    world.ca.set_faults(Faults { orders_expire: true, ..Faults::default() });
    assert!(world.enroll(&serial, "").await.is_err());
    world.ca.set_faults(Faults { delay: std::time::Duration::from_millis(20), ..Faults::default() });
    let start = std::time::Instant::now();
    world.enroll(&serial, "").await.unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_millis(160));
    world.ca.set_faults(Faults::default());
    world.ca.short_lived(&serial, 100, 50);
    let short = world.enroll(&serial, "").await.unwrap();
    let length = |identity: &crate::signature::Identity| {
        identity.certificate.not_before().diff(identity.certificate.not_after()).unwrap()
    };
    assert_eq!((length(&short).days, length(&short).secs), (0, 150));
    assert_eq!(length(&world.enroll(&serial, "").await.unwrap()).days, 90);
    world.ca.set_validity(Some((0, 86_400)));
    assert_eq!(length(&world.enroll(&serial, "").await.unwrap()).days, 1);
}

#[tokio::test]
async fn names_are_copied_where_the_authority_does_that() {
    let names = |identity: &crate::signature::Identity| {
        let der = identity.certificate.to_der().unwrap();
        attestation::extension(&der, "2.5.29.17").unwrap().unwrap()
    };
    for copies in [false, true] {
        let world = World::new(|settings| Settings { copies_names: copies, ..settings }).await;
        let mut request = world.request(&world.serial(), "");
        request.wishes.names.push(("dNSName".into(), "copied.example".into()));
        let attesting = Attesting { authority: &world.attesting, facts: world.facts.clone(), fault: Fault::None };
        let (identity, attested) = acme_client::enroll(&world.client, &request, Some(&attesting)).await.unwrap();
        assert!(attested);
        assert_eq!(names(&identity).windows(14).any(|window| window == b"copied.example"), copies);
    }
}

/// What the receiver of webhooks saw: the header with the id, whether the signature holds, the body.
type Calls = Arc<Mutex<Vec<(String, bool, Value)>>>;

#[tokio::test]
async fn webhooks_are_called_as_step_ca_calls_them() {
    let tls = Authority::new("Receiver").unwrap();
    let calls: Calls = Arc::default();
    let answering = Arc::clone(&calls);
    let server = Server::start(&tls, move |request| {
        let calls = Arc::clone(&answering);
        async move {
            let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let generic = header("x-assay-webhook-id");
            let signature = header("x-assay-signature").or_else(|| header("x-smallstep-signature"));
            let good = signature == webhook::sign("c2VjcmV0", request.body()).ok();
            let id = generic.or_else(|| header("x-smallstep-webhook-id")).unwrap();
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let refuse = id == "refuse";
            calls.lock().unwrap().push((id, good, body));
            http::Response::builder().body(json!({ "allow": !refuse }).to_string().into_bytes()).unwrap()
        }
    })
    .await
    .unwrap();
    let world = World::new(|settings| settings).await;
    let serial = world.serial();
    let trust = Trust::public().with_pem(tls.pem().unwrap().as_bytes()).unwrap();
    let hook = |id: &str, kind| Webhook { id: id.into(), url: server.url("/hook"), secret: "c2VjcmV0".into(), kind };
    let all = vec![hook("a", Kind::Authorizing), hook("e", Kind::Enriching), hook("g", Kind::Generic)];
    world.ca.set_webhooks(all, &trust).unwrap();
    let identity = world.enroll(&serial, "").await.unwrap();
    let seen = std::mem::take(&mut *calls.lock().unwrap());
    assert!(seen.iter().all(|(_, good, _)| *good));
    let ids: Vec<&str> = seen.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["e", "a", "g", "g"]);
    let key =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, identity.key.public_key_to_der().unwrap());
    let text = |call: usize, pointer: &str| seen[call].2.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(text(0, "/attestationData/permanentIdentifier"), serial);
    assert_eq!(text(0, "/x509CertificateRequest/publicKey"), key);
    assert_eq!(text(1, "/x509Certificate/publicKey"), key);
    assert_eq!((text(2, "/event"), text(2, "/publicKey")), ("authorize", key.as_str()));
    assert!(!text(2, "/attestation/object").is_empty());
    assert_eq!(text(3, "/event"), "issued");
    world.ca.set_webhooks(vec![hook("refuse", Kind::Enriching)], &trust).unwrap();
    let error = world.enroll(&serial, "").await.unwrap_err().to_string();
    assert!(error.contains("did not allow"), "{error}");
    assert_eq!(world.ca.issued().len(), 1);
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
            wishes: acme_client::Wishes::default(),
        };
        let csr = acme_client::certificate_request(&request, key).unwrap();
        let csr = json!({ "csr": base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, csr) });
        let csr = issue::read(&csr).unwrap();
        assert_eq!(issue::check(&settings, &csr, &record.serial_number, &checked).is_ok(), good);
    }
}
