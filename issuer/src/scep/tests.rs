use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE};
use mdm_core::crypto::key::Hash;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use store::enrollments::NewDevice;
use tower::ServiceExt;

use super::message::client::{Answer, Client, certificates_in};
use super::*;
use crate::issuance::tests::{NOW, World, request};

struct Server {
    world: World,
    shared: Shared,
}

struct Got {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

impl Server {
    async fn new(settings: Settings) -> Self {
        let world = World::new().await;
        let authority = CurrentAuthority::new(world.authority.clone());
        let shared = Shared::new(world.store.clone(), authority, Clock::fixed(NOW), Random::System, settings);
        Self { world, shared }
    }

    fn ra(&self) -> &Certificate {
        self.world.authority.ra_certificate()
    }

    async fn call(&self, request: http::Request<Body>) -> Got {
        let response = router(self.shared.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let content_type =
            response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec();
        Got { status, content_type, body }
    }

    async fn get(&self, path: &str) -> Got {
        self.call(http::Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, message: Vec<u8>) -> Got {
        self.call(http::Request::post(path).body(Body::from(message)).unwrap()).await
    }

    async fn enroll(&self, client: &Client, challenge: &str) -> Answer {
        let got = self.post("/scep?operation=PKIOperation", client.message(self.ra(), Some(challenge))).await;
        assert_eq!((got.status, got.content_type.as_str()), (StatusCode::OK, "application/x-pki-message"));
        client.read(self.ra(), &got.body)
    }
}

fn failed(answer: &Answer, with: &str) -> bool {
    matches!(answer, Answer::Failure(info) if info == with)
}

fn legacy() -> Settings {
    Settings { legacy: true, ..Settings::default() }
}

#[tokio::test]
async fn capabilities_and_certificates_are_what_clients_look_for() {
    let server = Server::new(Settings::default()).await;
    let caps = server.get("/scep?operation=GetCACaps").await;
    assert_eq!(caps.content_type, "text/plain");
    let caps = String::from_utf8(caps.body).unwrap();
    assert!(caps.contains("POSTPKIOperation\n") && caps.contains("AES\n") && caps.contains("Renewal\n"), "{caps}");
    assert!(!caps.contains("DES3"));

    let got = server.get("/scep?operation=GetCACert&message=anything").await;
    assert_eq!(got.content_type, "application/x-x509-ca-ra-cert");
    let certificates = certificates_in(&got.body);
    assert_eq!(certificates.len(), 2);
    assert!(certificates.contains(server.ra()) && certificates.contains(server.world.authority.certificate()));

    assert_eq!(server.get("/scep?operation=GetNextCACert").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.get("/scep").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.get("/scep/not-an-id?operation=GetCACaps").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_device_gets_its_certificate_by_post_and_by_both_kinds_of_get() {
    let server = Server::new(Settings::default()).await;
    for way in ["post", "base64", "base64url", "post with a raw query"] {
        let (id, challenge) = server.world.open().await;
        let client = Client::new();
        let message = client.message(server.ra(), Some(challenge.expose()));
        let got = match way {
            "post" => server.post(&format!("/scep/{id}?operation=PKIOperation"), message).await,
            "base64" => {
                let encoded = percent_encode(BASE64.encode(&message).as_bytes(), NON_ALPHANUMERIC).to_string();
                server.get(&format!("/scep/{id}?operation=PKIOperation&message={encoded}")).await
            }
            "base64url" => {
                let encoded = URL_SAFE.encode(&message);
                server.get(&format!("/scep?message={encoded}&operation=PKIOperation")).await
            }
            _ => {
                // Not UTF-8 once decoded, and some 6 kB long.
                let raw = percent_encode(&message, NON_ALPHANUMERIC).to_string();
                server.post(&format!("/scep?message={raw}&operation=PKIOperation"), message).await
            }
        };
        let Answer::Success(certificate) = client.read(server.ra(), &got.body) else { panic!("{way}") };
        assert_eq!(certificate.common_name(), Some(id.to_string()), "{way}");
        assert!(certificate.names_as_issuer(server.world.authority.certificate()));
    }
}

#[tokio::test]
async fn rg_25_a_lost_answer_is_given_again() {
    let server = Server::new(Settings::default()).await;
    let (_, challenge) = server.world.open().await;
    let client = Client::new();
    let Answer::Success(first) = server.enroll(&client, challenge.expose()).await else { panic!() };
    let Answer::Success(again) = server.enroll(&client, challenge.expose()).await else { panic!() };
    assert_eq!(first, again);
    assert!(failed(&server.enroll(&Client::new(), challenge.expose()).await, "2"));
}

#[tokio::test]
async fn th_27_only_pkcs_req_and_renewal_req_are_served() {
    let server = Server::new(legacy()).await;
    // A renewal is not entitled by a challenge.
    for message_type in ["3", "17", "18", "20", "21", "22", "1", "", "19 "] {
        let (_, challenge) = server.world.open().await;
        let client = Client { message_type, ..Client::new() };
        assert!(failed(&server.enroll(&client, challenge.expose()).await, "2"), "message type {message_type}");
    }
}

impl Server {
    /// A client that was given a certificate, which is pinned to a device that is enrolled.
    async fn enrolled(&self) -> (Client, Certificate, EnrollmentId) {
        let (record, challenge) = self.world.open().await;
        let client = Client::new();
        let Answer::Success(certificate) = self.enroll(&client, challenge.expose()).await else { panic!() };
        let id = EnrollmentId(Random::System.uuid_v7(NOW));
        let key = DeviceKey::Udid(id.0.to_string().parse().unwrap());
        let mut tx = self.world.store.begin().await.unwrap();
        let new = NewDevice { id, kind: EnrollmentKind::Device, key: &key };
        store::enrollments::insert_device(&mut tx, &new, NOW).await.unwrap();
        store::enrollments::set_state(&mut tx, id, EnrollmentState::Enrolled { since: NOW }).await.unwrap();
        assert!(store::identities::bind(&mut tx, id, Some(record), &certificate, NOW).await.unwrap());
        assert!(store::issuance::mark_used(&mut tx, record, id, NOW).await.unwrap());
        tx.commit().await.unwrap();
        (client, *certificate, id)
    }

    /// A `RenewalReq` for this key, signed by the holder of `certificate`, so many days later.
    async fn renew(&self, holder: &Client, certificate: &Certificate, key: &Client, days: u32) -> Answer {
        let message_type = "17";
        let signer_key = holder.signer_key.clone();
        let client =
            Client { message_type, key: key.key.clone(), signer_key, signer: certificate.clone(), ..Client::new() };
        let later = Clock::fixed(NOW.plus(std::time::Duration::from_hours(24) * days));
        let shared = Shared { clock: later, ..self.shared.clone() };
        let message = client.message(self.ra(), None);
        let request = http::Request::post("/scep?operation=PKIOperation").body(Body::from(message)).unwrap();
        let response = router(shared).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        client.read(self.ra(), &to_bytes(response.into_body(), 1 << 20).await.unwrap())
    }
}

#[tokio::test]
async fn th_30_the_holder_of_a_current_identity_gets_the_next_one_in_its_window() {
    let server = Server::new(Settings::default()).await;
    let (client, certificate, id) = server.enrolled().await;
    let next = Client::new();
    assert!(failed(&server.renew(&client, &certificate, &next, 100).await, "2"), "too early");
    let Answer::Success(renewed) = server.renew(&client, &certificate, &next, 300).await else { panic!() };
    let Answer::Success(again) = server.renew(&client, &certificate, &next, 300).await else { panic!() };
    assert_eq!(renewed, again, "a lost answer is given again");
    let mut tx = server.world.store.read().await.unwrap();
    let record = store::issuance::by_certificate(&mut tx, renewed.fingerprint()).await.unwrap().unwrap();
    assert_eq!((record.flow, record.purpose), (issuance::Flow::Renewal, issuance::Purpose::Renewal));
    assert_eq!((record.state, record.enrollment), (issuance::State::Issued, Some(id)));
    assert_eq!(renewed.common_name(), Some(record.id.to_string()), "the name is the record's");
}

#[tokio::test]
async fn th_30_a_renewal_leads_around_no_setting() {
    let server = Server::new(Settings { renewal: false, ..Settings::default() }).await;
    let (client, certificate, _) = server.enrolled().await;
    let caps = server.get("/scep?operation=GetCACaps").await.body;
    assert!(!String::from_utf8(caps).unwrap().contains("Renewal"));
    assert!(failed(&server.renew(&client, &certificate, &Client::new(), 300).await, "2"));

    let server = Server::new(Settings::default()).await;
    let (client, certificate, _) = server.enrolled().await;
    let set = async |body: &str| {
        let mut tx = server.world.store.begin().await.unwrap();
        store::doors::put(&mut tx, mdm_core::enrollment::Door::Link, body, "test", NOW).await.unwrap();
        tx.commit().await.unwrap();
    };
    for refused in [
        r#"{"identity":{"prefer":"acme","otherwise":"refuse"}}"#,
        r#"{"require":"attestation","identity":{"prefer":"acme","otherwise":"fall_back"}}"#,
    ] {
        set(refused).await;
        assert!(failed(&server.renew(&client, &certificate, &Client::new(), 300).await, "2"), "{refused}");
    }
    set(r#"{"identity":{"prefer":"acme","otherwise":"fall_back"}}"#).await;
    assert!(matches!(server.renew(&client, &certificate, &Client::new(), 300).await, Answer::Success(_)));
}

#[tokio::test]
async fn th_30_a_renewal_without_proof_is_refused() {
    let server = Server::new(Settings::default()).await;
    let (client, certificate, id) = server.enrolled().await;
    let next = Client::new();
    // A certificate that was issued and never pinned; one that its holder made; one of the registration authority's kind.
    let (_, challenge) = server.world.open().await;
    let stranger = Client::new();
    let Answer::Success(unpinned) = server.enroll(&stranger, challenge.expose()).await else { panic!() };
    assert!(failed(&server.renew(&stranger, &unpinned, &next, 300).await, "2"));
    assert!(failed(&server.renew(&stranger, &stranger.signer, &next, 300).await, "2"));
    // It has ended.
    assert!(failed(&server.renew(&client, &certificate, &next, 366).await, "2"));
    // The enrollment is over; then it is not, but the identity is revoked.
    let change = async |state| {
        let mut tx = server.world.store.begin().await.unwrap();
        store::enrollments::set_state(&mut tx, id, state).await.unwrap();
        tx.commit().await.unwrap();
    };
    change(EnrollmentState::Unenrolled { at: NOW, why: mdm_core::enrollment::UnenrolledWhy::CheckOut }).await;
    assert!(failed(&server.renew(&client, &certificate, &next, 300).await, "2"));
    change(EnrollmentState::Enrolled { since: NOW }).await;
    let mut tx = server.world.store.begin().await.unwrap();
    assert!(store::identities::revoke(&mut tx, certificate.fingerprint(), NOW).await.unwrap());
    tx.commit().await.unwrap();
    assert!(failed(&server.renew(&client, &certificate, &next, 300).await, "2"));
}

#[tokio::test]
async fn th_31_th_32_every_broken_envelope_has_the_same_answer() {
    let server = Server::new(Settings::default()).await;
    let client = Client::new();
    let ra = server.ra();
    let (_, challenge) = server.world.open().await;
    let good = mdm_core::crypto::enveloped::seal_to(
        ra.der(),
        &request(&client.key, Some(challenge.expose())),
        client.cipher,
        &Random::System,
    )
    .unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        client.sign(&bytes)
    };
    // The wrapped key ends before the content; both lie well inside these offsets.
    let wrapped_key = good.len() - 1000;
    let cases = [
        ("content", flipped(good.len() - 40)),
        ("last block", flipped(good.len() - 1)),
        ("wrapped key", flipped(wrapped_key)),
        ("written to another key", client.message(&Client::new().signer, Some(challenge.expose()))),
        ("no request inside", client.around(ra, b"hello")),
        ("no envelope", client.sign(b"hello")),
        ("unknown challenge", client.message(ra, Some("guess"))),
        ("no challenge", client.message(ra, None)),
        ("another key's request", client.around(ra, &request(&Client::new().key, Some(challenge.expose())))),
    ];
    for (case, message) in cases {
        let got = server.post("/scep?operation=PKIOperation", message).await;
        assert_eq!(got.status, StatusCode::OK, "{case}");
        assert!(failed(&client.read(ra, &got.body), "2"), "{case}");
    }
    assert!(matches!(server.enroll(&client, challenge.expose()).await, Answer::Success(_)), "nothing was used up");
}

#[tokio::test]
async fn th_32_a_client_hears_one_fixed_failure_and_nothing_of_the_inside() {
    let server = Server::new(Settings::default()).await;
    let client = Client::new();
    let (_, challenge) = server.world.open().await;
    let Answer::Success(unpinned) = server.enroll(&client, challenge.expose()).await else { panic!() };
    let renewal = Client { message_type: "17", signer: *unpinned, ..Client::new() };
    let messages = [
        client.message(server.ra(), Some("guess")),
        client.message(server.ra(), None),
        Client { key: Client::new().key, ..Client::new() }.message(server.ra(), Some(challenge.expose())),
        Client { signer_key: client.signer_key.clone(), ..renewal }.message(server.ra(), None),
        client.sign(b"no envelope"),
    ];
    for message in messages {
        let got = server.post("/scep?operation=PKIOperation", message).await;
        assert_eq!(got.status, StatusCode::OK);
        let text = String::from_utf8_lossy(&got.body);
        for word in ["challenge", "signer", "pinned", "envelope", "record", "refused"] {
            assert!(!text.contains(word), "{word}");
        }
    }
    // A fault of ours: no words either.
    server.world.store.close().await;
    let message = client.message(server.ra(), Some(challenge.expose()));
    let got = server.post("/scep?operation=PKIOperation", message).await;
    assert_eq!((got.status, got.body.len()), (StatusCode::SERVICE_UNAVAILABLE, 0));
}

#[tokio::test]
async fn th_33_the_address_and_the_challenge_belong_together() {
    let server = Server::new(Settings::default()).await;
    let (_, challenge) = server.world.open().await;
    let (other, _) = server.world.open().await;
    let client = Client::new();
    let message = client.message(server.ra(), Some(challenge.expose()));
    let got = server.post(&format!("/scep/{other}?operation=PKIOperation"), message).await;
    assert!(failed(&client.read(server.ra(), &got.body), "2"));
}

#[tokio::test]
async fn th_34_the_signer_must_hold_the_requested_key() {
    let server = Server::new(Settings::default()).await;
    let (_, challenge) = server.world.open().await;
    let client = Client { cipher: Client::new().cipher, hash: Hash::Sha256, ..Client::old() };
    assert!(failed(&server.enroll(&client, challenge.expose()).await, "2"));
}

#[tokio::test]
async fn old_clients_are_served_in_kind_and_only_where_the_operator_said_so() {
    let (strict, lenient) = (Server::new(Settings::default()).await, Server::new(legacy()).await);
    let triple_des = Client { cipher: mdm_core::crypto::enveloped::ContentCipher::TripleDesCbc, ..Client::new() };
    let sha1 = Client { hash: Hash::Sha1, ..Client::new() };
    for client in [Client::old(), triple_des, sha1] {
        let (_, challenge) = strict.world.open().await;
        assert!(failed(&strict.enroll(&client, challenge.expose()).await, "0"));
        let (_, challenge) = lenient.world.open().await;
        // The client itself checks that cipher and hash of the answer are its own.
        let answer = lenient.enroll(&client, challenge.expose()).await;
        assert!(matches!(answer, Answer::Success(_)), "{answer:?}");
    }
    assert!(String::from_utf8(lenient.get("/scep?operation=GetCACaps").await.body).unwrap().contains("DES3"));
}

#[tokio::test]
async fn th_24_what_is_too_long_or_no_message_is_turned_away() {
    let server = Server::new(Settings::default()).await;
    let got = server.post("/scep?operation=PKIOperation", vec![0x30; MAX_MESSAGE + 1]).await;
    assert_eq!(got.status, StatusCode::PAYLOAD_TOO_LARGE);
    for bad in [&b""[..], b"hello", &[0x30, 0x80], &[0x30; 5000]] {
        let got = server.post("/scep?operation=PKIOperation", bad.to_vec()).await;
        assert_eq!((got.status, got.body.len()), (StatusCode::BAD_REQUEST, 0));
    }
    assert_eq!(server.get("/scep?operation=PKIOperation&message=%%%").await.status, StatusCode::BAD_REQUEST);
    let packed = http::Request::post("/scep?operation=PKIOperation")
        .header("content-encoding", "gzip")
        .body(Body::from("x"))
        .unwrap();
    assert_eq!(server.call(packed).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn th_31_an_address_that_asks_too_often_waits() {
    let server = Server::new(Settings { per_ip_per_minute: 2, ..Settings::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let mut request = http::Request::post("/scep?operation=PKIOperation").body(Body::from("x")).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
        statuses.push(server.call(request).await.status);
    }
    assert_eq!(statuses, [StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST, StatusCode::TOO_MANY_REQUESTS]);
}
