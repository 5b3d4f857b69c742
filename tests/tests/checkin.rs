//! The device's door, on both databases: who is believed, what each message changes, and that no answer unenrolls a device.

#[cfg(test)]
#[expect(dead_code, reason = "the stories of the operator edge use the rest")]
mod api_world;
#[cfg(test)]
#[expect(dead_code, reason = "the other stories of the device's door use the rest")]
mod checkin_world;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checkin::{PeerAddress, Settings, Sha1};
use checkin_world::{Answer, CHECK_IN, Device, Proof, TOPIC, USER, World, p256, plist, rsa, story};
use http::StatusCode;
use mdm_core::enrollment::{Channel, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::EnrollmentId;

const BAD: StatusCode = StatusCode::BAD_REQUEST;

#[tokio::test]
async fn a_device_enrolls_is_given_its_commands_and_goes() {
    story(|world| async move {
        let device = world.device_with_key(1, rsa()).await;
        assert!(world.check_in(Proof::Signed(&device), &device.authenticate()).await.is_empty());
        let authenticated = world.live(&device).await.unwrap();
        assert!(matches!(authenticated.state, EnrollmentState::Authenticated { .. }));
        assert!(world.idle(&device).await.is_empty(), "nothing to do before the TokenUpdate, and no error");
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        let enrolled = world.live(&device).await.unwrap();
        assert!(matches!(enrolled.state, EnrollmentState::Enrolled { .. }));
        assert_eq!(enrolled.product_name.as_deref(), Some("iPhone17,2"));
        assert_eq!(world.events("enrollment.enrolled").await, 1);

        world.enqueue(enrolled.id, "one").await;
        world.enqueue(enrolled.id, "two").await;
        let first = world.idle(&device).await;
        assert!(first.body.contains("<string>one</string>"));
        assert!(first.headers["content-type"].to_str().unwrap().starts_with("application/xml"));
        let again = world.idle(&device).await;
        assert_eq!(again.body, first.body, "one command is outstanding, and it is sent again as it was");
        assert!(world.acknowledge(&device, "one").await.body.contains("<string>two</string>"));
        assert!(world.acknowledge(&device, "two").await.is_empty());
        assert_eq!(world.waiting(enrolled.id).await, 0);

        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
        let state = world.enrollment(enrolled.id).await.state;
        assert!(matches!(state, EnrollmentState::Unenrolled { why: UnenrolledWhy::CheckOut, .. }));
        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty(), "repeated: the same");
    })
    .await;
}

#[tokio::test]
async fn check_ins_come_to_the_server_url_too_and_by_mutual_tls() {
    story(|world| async move {
        let device = world.device(1).await;
        for message in [device.authenticate(), device.token_update()] {
            let request = world.request(
                "/mdm",
                Some("application/x-apple-aspen-mdm-checkin; charset=UTF-8"),
                &plist(&message),
                Proof::Tls(&device),
            );
            assert!(world.send(request).await.is_empty());
        }
        let id = world.live(&device).await.unwrap().id;
        world.enqueue(id, "one").await;
        for content_type in [None, Some("application/x-apple-aspen-mdm"), Some("text/plain")] {
            let request = world.request("/mdm", content_type, &plist(&device.idle()), Proof::Tls(&device));
            assert!(world.send(request).await.body.contains("one"));
        }
        // A check-in message without its Content-Type is known by its MessageType.
        let request = world.request("/mdm", None, &plist(&device.check_out()), Proof::Tls(&device));
        assert!(world.send(request).await.is_empty());
        assert!(world.live(&device).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_foreign_simulator_is_understood() {
    story(|mut world| async move {
        let device = world.device_with_key(1, rsa()).await;
        let foreign = Proof::SignedSha1(&device);
        assert!(world.check_in(foreign, &device.authenticate()).await.is_empty());
        assert!(world.check_in(foreign, &device.token_update_with("ZmFrZVRva2Vu", "")).await.is_empty());
        let id = world.live(&device).await.unwrap().id;
        world.enqueue(id, "one").await;
        assert!(world.report(foreign, &device.idle()).await.body.contains("one"));
        let result = format!("{}<key>RequestType</key><string></string>", device.status("Acknowledged", "one"));
        assert!(world.report(foreign, &result).await.is_empty());
        world.settings(Settings { sha1: Sha1::Refuse, ..Settings::default() });
        assert_eq!(world.report(foreign, &device.idle()).await.status, BAD);
        assert!(world.idle(&device).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn th_01_a_certificate_speaks_for_its_own_device_only() {
    story(|world| async move {
        let (a, a_id) = world.enrolled(1).await;
        let (b, b_id) = world.enrolled(2).await;
        world.enqueue(b_id, "for-b").await;
        let before = world.enrollment(b_id).await;
        let as_b = Device { udid: b.udid.clone(), serial: b.serial.clone(), ..a.clone() };
        for message in [
            as_b.authenticate(),
            as_b.token_update_with("b3RoZXJUb2tlbg==", ""),
            as_b.check_out(),
            as_b.message("SetBootstrapToken", "<key>BootstrapToken</key><data>AAAA</data>"),
            as_b.message("GetBootstrapToken", ""),
            as_b.message("DeclarativeManagement", "<key>Endpoint</key><string>tokens</string>"),
            as_b.message("GetToken", "<key>TokenServiceType</key><string>com.apple.maid</string>"),
            as_b.message("UserAuthenticate", &format!("<key>UserID</key><string>{USER}</string>")),
        ] {
            assert_eq!(world.check_in(Proof::Signed(&a), &message).await.status, BAD, "{message}");
            assert_eq!(world.check_in(Proof::Tls(&a), &message).await.status, BAD, "{message}");
        }
        for status in [as_b.idle(), as_b.status("Acknowledged", "for-b"), as_b.status("NotNow", "for-b")] {
            let answer = world.report(Proof::Signed(&a), &status).await;
            assert_eq!((answer.status, answer.body.as_str()), (BAD, ""));
        }
        assert_eq!(world.enrollment(b_id).await, before);
        assert_eq!(world.waiting(b_id).await, 1);
        assert!(world.events("enrollment.refused").await > 0);
        assert!(world.events("enrollment.refused").await < 10, "the log is not filled by one certificate");
        assert!(world.idle(&b).await.body.contains("for-b"));
        assert_eq!(world.live(&a).await.unwrap().id, a_id);
    })
    .await;
}

#[tokio::test]
async fn th_02_another_issued_certificate_does_not_take_a_device_over() {
    story(|world| async move {
        let (victim, id) = world.enrolled(1).await;
        world.enqueue(id, "for-victim").await;
        let token = victim.message("SetBootstrapToken", "<key>BootstrapToken</key><data>c2VjcmV0</data>");
        assert!(world.check_in(Proof::Signed(&victim), &token).await.is_empty());
        let before = world.enrollment(id).await;
        let attacker = world.again(&victim).await;
        assert_eq!(world.check_in(Proof::Signed(&attacker), &attacker.authenticate()).await.status, BAD);
        assert_eq!(world.check_in(Proof::Signed(&attacker), &attacker.token_update()).await.status, BAD);
        let stolen = world.check_in(Proof::Signed(&attacker), &attacker.message("GetBootstrapToken", "")).await;
        assert_eq!((stolen.status, stolen.body.as_str()), (BAD, ""));
        assert_eq!(world.idle(&attacker).await.status, BAD);
        assert_eq!(world.enrollment(id).await, before);
        assert!(world.idle(&victim).await.body.contains("for-victim"));
    })
    .await;
}

#[tokio::test]
async fn th_03_the_two_kinds_of_ids_are_not_mixed_up() {
    story(|world| async move {
        let (victim, id) = world.enrolled(1).await;
        world.enqueue(id, "for-victim").await;
        let as_user = format!("<key>EnrollmentID</key><string>{}</string>", victim.udid);
        let both = format!("{}{as_user}", victim.id());
        for ids in [as_user, both] {
            let poll = format!("{ids}<key>Status</key><string>Idle</string>");
            assert_eq!(world.report(Proof::Signed(&victim), &poll).await.status, BAD);
            let message = format!("<key>MessageType</key><string>CheckOut</string>{ids}");
            assert_eq!(world.check_in(Proof::Signed(&victim), &message).await.status, BAD);
        }
        assert!(world.live(&victim).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn th_04_ids_of_another_form_are_refused() {
    story(|world| async move {
        let (victim, id) = world.enrolled(1).await;
        let device = world.device(2).await;
        for udid in [format!("{}:{USER}", victim.udid), "*".into(), "../x".into(), "x".repeat(4000)] {
            let odd = Device { udid, ..device.clone() };
            assert_eq!(world.check_in(Proof::Signed(&odd), &odd.authenticate()).await.status, BAD);
        }
        for user in [USER.replace('-', ""), format!("{USER}:x"), "ann".to_owned()] {
            let message =
                victim.token_update_with("dXNlclRva2Vu", &format!("<key>UserID</key><string>{user}</string>"));
            assert_eq!(world.check_in(Proof::Signed(&victim), &message).await.status, BAD, "{user}");
        }
        assert!(world.user(id).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn th_06_one_certificate_enrolls_one_device_however_many_try() {
    story(|world| async move {
        let device = world.device(1).await;
        let claims: Vec<Device> =
            (0..8).map(|n| Device { udid: format!("00008110-{n:016X}"), ..device.clone() }).collect();
        let answers = futures_util::future::join_all(
            claims.iter().map(async |claim| world.check_in(Proof::Signed(claim), &claim.authenticate()).await),
        )
        .await;
        assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1);
        let mut live = 0;
        for claim in &claims {
            live += usize::from(world.live(claim).await.is_some());
        }
        assert_eq!(live, 1);
    })
    .await;
}

#[tokio::test]
async fn th_05_th_08_only_identities_with_a_record_are_believed() {
    story(|world| async move {
        let key = p256();
        let base = world.device(1).await;
        let unrecorded = Device { certificate: world.certificate(&key), key: key.clone(), ..base.clone() };
        let server = Device { certificate: world.other_certificate(&key), key: key.clone(), ..base.clone() };
        let pair = rcgen::KeyPair::from_pem(key.to_pkcs8_pem().unwrap().expose()).unwrap();
        let own = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&pair).unwrap();
        let own = mdm_core::certificate::Certificate::from_der(own.der()).unwrap();
        let stranger = Device { certificate: own, key, ..base };
        for device in [&unrecorded, &server, &stranger] {
            for proof in [Proof::Signed(device), Proof::Tls(device)] {
                assert_eq!(world.check_in(proof, &device.authenticate()).await.status, BAD);
                assert_eq!(world.report(proof, &device.idle()).await.status, BAD);
            }
        }
        assert!(world.live(&unrecorded).await.is_none(), "no trust on first use");
    })
    .await;
}

#[tokio::test]
async fn th_07_a_proxys_header_counts_from_a_trusted_peer_only() {
    story(|mut world| async move {
        let (device, _) = world.enrolled(1).await;
        let escaped = device.certificate.to_pem().replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B");
        let rfc_9440 = format!(":{}:", STANDARD.encode(device.certificate.der()));
        let proxy: SocketAddr = "192.0.2.9:1".parse().unwrap();
        let ask = |value: &str, peer: SocketAddr, proof: Proof<'_>| {
            let mut request = world.request("/mdm", None, &plist(&device.idle()), proof);
            request.headers_mut().insert("client-cert", value.parse().unwrap());
            request.extensions_mut().insert(PeerAddress(peer));
            request
        };
        let requests: Vec<_> = [&rfc_9440, &escaped].iter().map(|value| ask(value, proxy, Proof::Nothing)).collect();
        let forged = ask(&rfc_9440, "192.0.2.1:1".parse().unwrap(), Proof::Nothing);
        let unasked = ask(&rfc_9440, proxy, Proof::Nothing);
        let mut doubled = ask(&rfc_9440, proxy, Proof::Nothing);
        doubled.headers_mut().append("client-cert", rfc_9440.parse().unwrap());
        let garbled: Vec<_> = ["", ":", "::", ":AAAA:", "%00", "text"].map(|v| ask(v, proxy, Proof::Nothing)).into();
        let no_fallback = world.request("/mdm", None, &plist(&device.idle()), Proof::Signed(&device));

        assert_eq!(world.send(unasked).await.status, BAD, "without the setting the header is nothing");
        world.settings(Settings {
            trusted_peers: vec![proxy.ip()],
            certificate_header: Some("client-cert".parse().unwrap()),
            ..Settings::default()
        });
        for request in requests {
            assert!(world.send(request).await.is_empty());
        }
        assert_eq!(world.send(forged).await.status, BAD);
        assert_eq!(world.send(doubled).await.status, BAD);
        for request in garbled {
            assert_eq!(world.send(request).await.status, BAD);
        }
        assert_eq!(world.send(no_fallback).await.status, BAD, "never together with Mdm-Signature");
    })
    .await;
}

#[tokio::test]
async fn th_09_an_expired_or_revoked_identity_is_cut_off_at_once() {
    story(|world| async move {
        let (revoked, _) = world.enrolled(1).await;
        let (expired, _) = world.enrolled(2).await;
        assert!(world.idle(&revoked).await.is_empty());
        world.revoke(&revoked).await;
        assert_eq!(world.idle(&revoked).await.status, BAD);
        assert_eq!(world.check_in(Proof::Tls(&revoked), &revoked.token_update()).await.status, BAD);
        assert_eq!(world.check_in(Proof::Tls(&revoked), &revoked.authenticate()).await.status, BAD);
        world.later(366 * 24 * 3600);
        assert_eq!(world.idle(&expired).await.status, BAD);
        assert_eq!(world.idle(&expired).await.status, BAD);
        assert_eq!(world.events("identity.not_valid").await, 1, "an operator hears of it, once");
        assert_eq!(world.check_in(Proof::Tls(&expired), &expired.check_out()).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn th_10_a_renewal_keeps_everything_and_retires_the_old_identity() {
    story(|world| async move {
        for says_authenticate in [true, false] {
            let (old, id) = world.enrolled(1 + u32::from(says_authenticate)).await;
            world.enqueue(id, &format!("one-{says_authenticate}")).await;
            let token = old.message("SetBootstrapToken", "<key>BootstrapToken</key><data>c2VjcmV0</data>");
            assert!(world.check_in(Proof::Signed(&old), &token).await.is_empty());
            world.later(10);
            let new = world.renewed(&old, id).await;
            if says_authenticate {
                assert!(world.check_in(Proof::Signed(&new), &new.authenticate()).await.is_empty());
                assert!(
                    world.idle(&old).await.status.is_success(),
                    "the old one is good until the new one has proved itself"
                );
            }
            world.later(10);
            assert!(world.check_in(Proof::Signed(&new), &new.token_update()).await.is_empty());
            assert_eq!(world.live(&new).await.unwrap().id, id);
            assert_eq!(world.enrollment(id).await.generation, 1);
            assert_eq!(world.waiting(id).await, 1, "a renewal is no enrollment: the queue stays (RG-09)");
            let answer = world.check_in(Proof::Signed(&new), &new.message("GetBootstrapToken", "")).await;
            assert!(answer.body.contains("c2VjcmV0"));
            assert_eq!(world.idle(&old).await.status, BAD);
            // The last message under the old identity, sent again, does not put out the new one.
            assert_eq!(world.check_in(Proof::Signed(&old), &old.token_update()).await.status, BAD);
            assert!(world.idle(&new).await.body.contains("one-"));
        }
    })
    .await;
}

#[tokio::test]
async fn th_10_a_renewal_is_for_its_own_device() {
    story(|world| async move {
        let (a, a_id) = world.enrolled(1).await;
        let (b, _) = world.enrolled(2).await;
        let renewed = world.renewed(&a, a_id).await;
        let as_b = Device { udid: b.udid.clone(), ..renewed };
        assert_eq!(world.check_in(Proof::Signed(&as_b), &as_b.token_update()).await.status, BAD);
        assert_eq!(world.check_in(Proof::Signed(&as_b), &as_b.authenticate()).await.status, BAD);
        assert!(world.idle(&a).await.is_empty() && world.idle(&b).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn rg_09_a_new_enrollment_drops_the_old_queue_once() {
    story(|world| async move {
        let (old, id) = world.enrolled(1).await;
        world.enqueue(id, "old").await;
        assert!(world.check_in(Proof::Signed(&old), &old.check_out()).await.is_empty());
        let new = world.again(&old).await;
        assert!(world.check_in(Proof::Signed(&new), &new.authenticate()).await.is_empty());
        assert!(world.check_in(Proof::Signed(&new), &new.token_update()).await.is_empty());
        let live = world.live(&new).await.unwrap();
        assert_eq!(world.waiting(live.id).await, 0);
        world.enqueue(live.id, "new").await;
        // The answer to Authenticate got lost: the device says it again.
        assert!(world.check_in(Proof::Signed(&new), &new.authenticate()).await.is_empty());
        assert!(world.idle(&new).await.body.contains("new"));
        assert_eq!(world.idle(&old).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn th_12_no_error_path_unenrolls_a_device() {
    story(|mut world| async move {
        let (device, _) = world.enrolled(1).await;
        let (other, _) = world.enrolled(2).await;
        let unissued = Device { certificate: world.certificate(&device.key), ..device.clone() };
        world.settings(Settings { strict_skew: true, ..Settings::default() });
        let long = world.now().minus(Duration::from_secs(3 * 24 * 3600));
        let bodies: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"\0\0\0".to_vec(),
            b"bplist00".to_vec(),
            b"{}".to_vec(),
            plist(""),
            plist("<key>MessageType</key><string>Nonsense</string>"),
            plist("<array/>"),
            plist(&"<array>".repeat(20_000)),
            plist(&device.message("ReturnToService", "")),
            plist(&device.message("Authenticate", "")),
            plist(&device.message("TokenUpdate", "")),
            plist(&device.message("GetToken", "<key>TokenServiceType</key><string>x</string>")),
            plist(&device.message("UserAuthenticate", &format!("<key>UserID</key><string>{USER}</string>"))),
            plist(&device.message("DeclarativeManagement", "<key>Endpoint</key><string>declaration/asset/x</string>")),
            plist(&device.message("DeclarativeManagement", "<key>Endpoint</key><string>?</string>")),
            plist(&device.status("Unheard", "x")),
            plist(&device.status("Acknowledged", "")),
            plist(&other.idle()),
            plist(&other.check_out()),
            plist(&device.idle()),
            vec![b' '; 17 << 20],
        ];
        let mut seen = std::collections::BTreeSet::new();
        for path in ["/mdm", "/checkin"] {
            for body in &bodies {
                for content_type in [None, Some(CHECK_IN), Some("application/json")] {
                    let proofs =
                        [Proof::Nothing, Proof::Tls(&device), Proof::Tls(&unissued), Proof::SignedAt(&device, long)];
                    for proof in proofs.iter().take(if body.len() > 1 << 20 { 2 } else { 4 }) {
                        seen.insert(world.send(world.request(path, content_type, body, *proof)).await.status.as_u16());
                    }
                }
            }
            for method in ["GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "WHATEVER"] {
                let mut request = world.request(path, None, b"", Proof::Tls(&device));
                *request.method_mut() = method.parse().unwrap();
                assert_eq!(world.send(request).await.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
            }
            for encoding in ["gzip", "br", "gzip, identity"] {
                let mut request = world.request(path, None, b"", Proof::Tls(&device));
                request.headers_mut().insert("content-encoding", encoding.parse().unwrap());
                assert_eq!(world.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            for header in ["", "?", "AAAA", &"A".repeat(40_000)] {
                let mut request = world.request(path, None, &plist(&device.idle()), Proof::Nothing);
                request.headers_mut().insert("mdm-signature", header.parse().unwrap());
                assert_eq!(world.send(request).await.status, BAD);
            }
        }
        assert!(seen.iter().all(|status| [200, 400, 404, 410, 413].contains(status)), "{seen:?}");
        assert!(world.live(&device).await.is_some() && world.live(&other).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn rg_12_without_a_database_devices_are_asked_to_come_back_later() {
    story(|world| async move {
        let (device, _) = world.enrolled(1).await;
        world.store.close().await;
        for message in [device.authenticate(), device.token_update(), device.check_out()] {
            let answer = world.check_in(Proof::Signed(&device), &message).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        }
        for report in [device.idle(), device.status("Acknowledged", "x"), "<key>Status</key>".to_owned()] {
            let answer = world.report(Proof::Tls(&device), &report).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers.contains_key("retry-after"));
        }
    })
    .await;
}

/// An operator asks that the device be told to unenroll; with `?now=true` its enrollment ends at once.
async fn unenroll(world: &World, id: EnrollmentId, query: &str, status: u16) {
    let operator = api_world::World::new(world.store.clone()).await;
    operator.clock.advance(world.now().since(operator.clock.now()));
    let path = format!("/api/v1/enrollments/{}/unenroll{query}", id.0);
    operator.post(&path, serde_json::json!(null)).await.is(status);
}

fn assert_told(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.body.contains("\"code\":\"com.apple.unrecognized.device\""));
}

async fn why_over(world: &World, id: EnrollmentId) -> Option<UnenrolledWhy> {
    match world.enrollment(id).await.state {
        EnrollmentState::Unenrolled { why, .. } => Some(why),
        EnrollmentState::Authenticated { .. } | EnrollmentState::Enrolled { .. } => None,
    }
}

/// Enrollments on the device channel that count as live.
async fn counted(world: &World) -> i64 {
    store::anchors::live(&mut world.store.read().await.unwrap()).await.unwrap()
}

/// The device enrolls anew by a link that names no device; its former identity is nobody's, and unenrolls nothing.
async fn enrolls_anew(world: &World, device: &Device, id: EnrollmentId) {
    let anew = world.again(device).await;
    assert!(world.check_in(Proof::Signed(&anew), &anew.authenticate()).await.is_empty());
    assert!(world.check_in(Proof::Signed(&anew), &anew.token_update()).await.is_empty());
    let live = world.live(&anew).await.unwrap();
    assert_eq!((live.id, live.generation, live.unenroll_requested_at), (id, 2, None));
    assert_eq!(world.idle(device).await.status, BAD);
    assert_eq!(world.check_in(Proof::Signed(device), &device.token_update()).await.status, BAD);
    assert!(world.idle(&anew).await.is_empty());
}

#[tokio::test]
async fn th_12_a_device_is_told_to_unenroll_only_by_an_operators_word_and_its_enrollment_ends() {
    story(|world| async move {
        let user = format!("<key>UserID</key><string>{USER}</string>");
        for (n, first) in ["poll", "report", "TokenUpdate", "a user's poll", "renewed"].into_iter().enumerate() {
            let (device, id) = world.enrolled(u32::try_from(n).unwrap()).await;
            let of_user = device.token_update_with("dXNlclRva2Vu", &user);
            assert!(world.check_in(Proof::Signed(&device), &of_user).await.is_empty());
            let channel = world.user(id).await.unwrap().id;
            for (to, uuid) in [(id, format!("device-{n}")), (channel, format!("user-{n}"))] {
                world.enqueue(to, &uuid).await;
            }
            let renewed = world.renewed(&device, id).await;
            assert!(world.idle(&device).await.status.is_success());
            unenroll(&world, id, "", 202).await;
            assert_eq!(why_over(&world, id).await, None, "it ends when the device is told");

            let poll_of_user = format!("{user}{}", device.idle());
            // Nobody else is told, whatever he says that he is.
            let stranger = world.device(100).await;
            let as_device = Device { udid: device.udid.clone(), ..stranger.clone() };
            assert_eq!(world.idle(&as_device).await.status, BAD);
            let speaks = if first == "renewed" { &renewed } else { &device };
            let told = match first {
                "report" => world.acknowledge(speaks, "x").await,
                "TokenUpdate" => world.check_in(Proof::Signed(speaks), &speaks.token_update()).await,
                "a user's poll" => world.report(Proof::Signed(speaks), &poll_of_user).await,
                _ => world.idle(speaks).await,
            };
            assert_told(&told);
            assert_eq!(why_over(&world, id).await, Some(UnenrolledWhy::Removed), "{first}");
            let after = world.enrollment(id).await;
            assert!(after.unenroll_requested_at.is_some());
            assert!(world.user(id).await.is_none() && world.live(&device).await.is_none());
            assert_eq!((world.waiting(id).await, world.waiting(channel).await), (0, 0));
            assert_eq!(counted(&world).await, i64::try_from(n).unwrap(), "those before have enrolled anew");
            assert_eq!(world.events("enrollment.unenrolled").await, n + 1);

            // The answer was lost: the device hears it again, and nothing more follows from it.
            world.later(3600);
            let again = [
                world.idle(speaks).await,
                world.acknowledge(speaks, "x").await,
                world.check_in(Proof::Signed(speaks), &speaks.token_update()).await,
                world.check_in(Proof::Signed(speaks), &of_user).await,
                world.report(Proof::Signed(speaks), &poll_of_user).await,
            ];
            for answer in &again {
                assert_told(answer);
            }
            assert_eq!(world.enrollment(id).await, after);
            assert_eq!(world.idle(&as_device).await.status, BAD);
            if first != "renewed" {
                assert_eq!(world.idle(&renewed).await.status, BAD, "its renewal ended with it");
            }
            // It goes, and says so.
            assert!(world.check_in(Proof::Signed(speaks), &speaks.check_out()).await.is_empty());
            assert_eq!(why_over(&world, id).await, Some(UnenrolledWhy::Removed));
            assert_eq!(world.events("enrollment.unenrolled").await, n + 1);
            enrolls_anew(&world, &device, id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_device_that_is_to_be_told_to_unenroll_may_leave_by_itself() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        unenroll(&world, id, "", 202).await;
        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
        assert_eq!(why_over(&world, id).await, Some(UnenrolledWhy::CheckOut));
        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
        assert_eq!(world.events("enrollment.checked_out").await, 1);
        enrolls_anew(&world, &device, id).await;
    })
    .await;
}

#[tokio::test]
async fn th_12_an_enrollment_whose_device_is_never_seen_again_ends_at_once() {
    story(|world| async move {
        for (n, speaks) in [(1, true), (2, false)] {
            let (device, id) = world.enrolled(n).await;
            world.enqueue(id, &format!("waits-{n}")).await;
            let at_the_door = world.again(&device).await;
            let refused = world.check_in(Proof::Signed(&at_the_door), &at_the_door.authenticate()).await;
            assert_eq!(refused.status, BAD, "it is enrolled");
            unenroll(&world, id, "?now=true", 204).await;
            assert_eq!(why_over(&world, id).await, Some(UnenrolledWhy::Removed));
            assert_eq!((world.waiting(id).await, counted(&world).await), (0, i64::from(n) - 1));
            unenroll(&world, id, "?now=true", 409).await;
            if speaks {
                assert_told(&world.idle(&device).await);
                assert_told(&world.check_in(Proof::Signed(&device), &device.token_update()).await);
            }
            enrolls_anew(&world, &device, id).await;
        }
        assert_eq!(world.events("enrollment.unenrolled").await, 2);
    })
    .await;
}

#[tokio::test]
async fn th_13_messages_that_do_not_fit_the_state_are_refused() {
    story(|world| async move {
        let device = world.device(1).await;
        assert_eq!(world.check_in(Proof::Signed(&device), &device.token_update()).await.status, BAD);
        assert!(world.check_in(Proof::Signed(&device), &device.authenticate()).await.is_empty());
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
        for message in [device.token_update(), device.authenticate(), device.message("GetBootstrapToken", "")] {
            assert_eq!(world.check_in(Proof::Signed(&device), &message).await.status, BAD, "{message}");
        }
        assert_eq!(world.idle(&device).await.status, BAD);
        assert!(world.live(&device).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn th_14_topic_token_and_magic_are_checked() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let before = world.enrollment(id).await;
        let other_topic = device.token_update().replace(TOPIC, "com.apple.mgmt.External.other");
        let short = device.token_update_with("AAAA", "");
        let long_magic = device.token_update().replace(">magic<", &format!(">{}<", "m".repeat(257)));
        for message in [other_topic, short, long_magic] {
            assert_eq!(world.check_in(Proof::Signed(&device), &message).await.status, BAD);
        }
        assert_eq!(world.enrollment(id).await, before);
        let stranger = world.device(2).await;
        let odd = stranger.authenticate().replace(TOPIC, "com.example.app");
        assert_eq!(world.check_in(Proof::Signed(&stranger), &odd).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn th_17_a_replayed_message_changes_nothing() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let first = world.now();
        world.later(60);
        let set = |token: &str| {
            device.message("SetBootstrapToken", &format!("<key>BootstrapToken</key><data>{token}</data>"))
        };
        assert!(world.check_in(Proof::SignedAt(&device, first), &set("b2xk")).await.is_empty());
        assert!(world.check_in(Proof::Signed(&device), &set("bmV3")).await.is_empty());
        assert!(world.check_in(Proof::Signed(&device), &device.token_update_with("bmV3VG9rZW4=", "")).await.is_empty());
        world.enqueue(id, "one").await;
        let before = world.enrollment(id).await;

        world.later(60);
        for message in [device.token_update(), device.check_out(), set("b2xk"), device.authenticate()] {
            assert!(
                world.check_in(Proof::SignedAt(&device, first), &message).await.is_empty(),
                "taken, and nothing done"
            );
        }
        let after = world.enrollment(id).await;
        assert_eq!((after.state, after.token_at, after.generation), (before.state, before.token_at, before.generation));
        let kept = world.check_in(Proof::Signed(&device), &device.message("GetBootstrapToken", "")).await;
        assert!(kept.body.contains("bmV3"));
        assert!(world.idle(&device).await.body.contains("one"));
        // One of the same time is the same message: it is processed (RG-24).
        let same = before.token_signed_at.unwrap();
        assert!(world.check_in(Proof::SignedAt(&device, same), &device.token_update()).await.is_empty());
        assert_eq!(world.enrollment(id).await.token_at, Some(world.now()));
    })
    .await;
}

#[tokio::test]
async fn rg_24_older_data_never_overwrites_newer() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.later(1000);
        let at = |seconds| Some(world.now().minus(Duration::from_secs(seconds)));
        // When each message was signed (none: it came by mutual TLS), and whether it is to be stored.
        let messages = [
            (at(500), true),
            (at(600), false),
            (at(500), true),
            (at(400), true),
            (None, true),
            (at(500), false),
            (at(300), true),
        ];
        for (n, (signed_at, stored)) in messages.into_iter().enumerate() {
            let proof = signed_at.map_or(Proof::Tls(&device), |at| Proof::SignedAt(&device, at));
            world.later(1);
            assert!(world.check_in(proof, &device.token_update()).await.is_empty());
            assert_eq!(world.enrollment(id).await.token_at == Some(world.now()), stored, "TokenUpdate {n}");
            let token = STANDARD.encode(format!("token-{n}"));
            let set = device.message("SetBootstrapToken", &format!("<key>BootstrapToken</key><data>{token}</data>"));
            assert!(world.check_in(proof, &set).await.is_empty());
            let kept = world.check_in(Proof::Tls(&device), &device.message("GetBootstrapToken", "")).await;
            assert_eq!(kept.body.contains(&token), stored, "SetBootstrapToken {n}");
        }
    })
    .await;
}

#[tokio::test]
async fn rg_14_a_lost_answer_costs_one_redelivery_at_most() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.enqueue(id, "one").await;
        world.enqueue(id, "two").await;
        assert!(world.idle(&device).await.body.contains("one"));
        let lost = world.acknowledge(&device, "one").await;
        let again = world.acknowledge(&device, "one").await;
        assert!(lost.body.contains("two"));
        assert_eq!(again.body, lost.body, "the report counts once, and the same command comes again");
        assert!(world.acknowledge(&device, "two").await.is_empty());
        assert!(world.acknowledge(&device, "two").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn th_17_the_signing_time_is_strict_only_by_setting() {
    story(|mut world| async move {
        let (device, _) = world.enrolled(1).await;
        let past = world.now().minus(Duration::from_secs(25 * 3600));
        let future = world.now().plus(Duration::from_secs(25 * 3600));
        for at in [past, future] {
            assert!(world.report(Proof::SignedAt(&device, at), &device.idle()).await.is_empty());
        }
        world.settings(Settings { strict_skew: true, ..Settings::default() });
        for at in [past, future] {
            assert_eq!(world.report(Proof::SignedAt(&device, at), &device.idle()).await.status, BAD);
        }
        assert!(world.idle(&device).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn th_24_bodies_are_limited() {
    story(|world| async move {
        let (device, _) = world.enrolled(1).await;
        let large = |bytes: usize| {
            let filler = "A".repeat(bytes);
            format!("{}<key>Filler</key><string>{filler}</string>", device.status("Acknowledged", "unknown"))
        };
        assert!(world.report(Proof::Tls(&device), &large(2 << 20)).await.is_empty(), "results are allowed 16 MiB");
        let too_large = world.report(Proof::Tls(&device), &large(16 << 20)).await;
        assert_eq!(too_large.status, StatusCode::PAYLOAD_TOO_LARGE);
        let check_in =
            device.message("CheckOut", &format!("<key>Filler</key><string>{}</string>", "A".repeat(1 << 20)));
        let on_check_in = world.check_in(Proof::Tls(&device), &check_in).await;
        assert_eq!(on_check_in.status, StatusCode::PAYLOAD_TOO_LARGE);
        let on_server = world.report(Proof::Tls(&device), &check_in).await;
        assert_eq!(on_server.status, StatusCode::PAYLOAD_TOO_LARGE, "a check-in message is small on either URL");
        let mut declared = world.request("/mdm", None, b"", Proof::Tls(&device));
        declared.headers_mut().insert("content-length", "99999999999".parse().unwrap());
        assert_eq!(world.send(declared).await.status, StatusCode::PAYLOAD_TOO_LARGE, "before anything is read");
    })
    .await;
}

#[tokio::test]
async fn an_idle_with_an_empty_queue_writes_nothing() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.seen.flush(&world.store).await.unwrap();
        world.later(60);
        let mut writer = world.store.begin().await.unwrap();
        store::enrollments::lock(&mut writer, id).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), world.idle(&device)).await;
        assert!(answer.expect("no lock is waited for").is_empty());
        writer.rollback().await.unwrap();
        assert!(world.enrollment(id).await.last_seen_at.unwrap() < world.now(), "not written yet");
        assert_eq!(world.seen.flush(&world.store).await.unwrap(), 1);
        assert_eq!(world.enrollment(id).await.last_seen_at, Some(world.now()));
    })
    .await;
}

#[tokio::test]
async fn rg_05_a_report_on_an_unknown_command_changes_nothing_and_the_next_command_comes() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let (_, other) = world.enrolled(2).await;
        world.enqueue(id, "mine").await;
        world.enqueue(other, "foreign").await;
        for uuid in ["unknown", "foreign"] {
            assert!(world.acknowledge(&device, uuid).await.body.contains("<string>mine</string>"));
        }
        assert_eq!((world.waiting(id).await, world.waiting(other).await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn rg_06_a_session_ends_on_not_now_and_a_push_is_planned() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.enqueue(id, "later").await;
        assert!(world.idle(&device).await.body.contains("later"));
        let answer = world.report(Proof::Signed(&device), &device.status("NotNow", "later")).await;
        assert!(answer.is_empty());
        let mut tx = world.store.read().await.unwrap();
        assert!(store::push::pending(&mut tx, id).await.unwrap());
        drop(tx);
        assert!(world.idle(&device).await.body.contains("later"), "offered again in the next session");
        assert!(world.acknowledge(&device, "later").await.is_empty());
        let mut tx = world.store.read().await.unwrap();
        assert!(!store::push::pending(&mut tx, id).await.unwrap(), "nothing waits: no push");
    })
    .await;
}

#[tokio::test]
async fn rg_07_answers_that_cannot_be_read_do_not_block_the_queue_for_ever() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.enqueue(id, "one").await;
        world.enqueue(id, "two").await;
        assert!(world.idle(&device).await.body.contains("one"));
        let garbage = format!("{}<key>X</key><nonsense/>", device.status("Acknowledged", "one"));
        let mut refused = 0;
        while world.report(Proof::Signed(&device), &garbage).await.status == BAD {
            refused += 1;
            assert!(refused < 10, "the queue is blocked");
        }
        assert_eq!(refused, 4);
        assert!(world.idle(&device).await.body.contains("two"));
        let stranger = world.device(2).await;
        assert_eq!(world.report(Proof::Signed(&stranger), &garbage).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn rg_11_parallel_polls_are_given_one_command() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        for n in 0..5 {
            world.enqueue(id, &format!("command-{n}")).await;
        }
        let polls = (0..20).map(|_| world.idle(&device));
        let answers = futures_util::future::join_all(polls).await;
        assert!(answers.iter().all(|answer| answer.body.contains("command-0")));
    })
    .await;
}

#[tokio::test]
async fn a_user_channel_begins_with_its_token_update_and_ends_with_its_device() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let user = format!("<key>UserID</key><string>{USER}</string><key>UserShortName</key><string>ann</string>");
        let poll = format!("{user}{}", device.idle());
        assert_eq!(world.report(Proof::Signed(&device), &poll).await.status, BAD, "not enrolled yet");
        assert!(
            world.check_in(Proof::Signed(&device), &device.token_update_with("dXNlclRva2Vu", &user)).await.is_empty()
        );
        let channel = world.user(id).await.unwrap();
        assert_eq!((channel.channel, channel.user_short_name.as_deref()), (Channel::User, Some("ann")));
        world.enqueue(channel.id, "for-ann").await;
        assert!(world.idle(&device).await.is_empty(), "the device channel has a queue of its own");
        assert!(world.report(Proof::Signed(&device), &poll).await.body.contains("for-ann"));
        let declarations =
            device.message("DeclarativeManagement", &format!("<key>Endpoint</key><string>tokens</string>{user}"));
        assert_eq!(world.check_in(Proof::Signed(&device), &declarations).await.status, StatusCode::OK);

        // Another device's certificate does not reach this user.
        let (other, _) = world.enrolled(2).await;
        let stolen = format!("{user}{}", other.idle());
        assert_eq!(world.report(Proof::Signed(&other), &stolen).await.status, BAD);

        assert!(world.check_in(Proof::Signed(&device), &device.check_out()).await.is_empty());
        assert!(world.user(id).await.is_none());
        assert_eq!(world.waiting(channel.id).await, 0);
    })
    .await;
}

#[tokio::test]
async fn shared_ipad_users_are_told_apart_by_their_short_names() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let user = |name: &str| {
            format!("<key>UserID</key><string>FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF</string><key>UserShortName</key><string>{name}</string>")
        };
        for name in ["ann@example.org", "bob@example.org", "ann@example.org"] {
            let message = device.token_update_with("dXNlclRva2Vu", &user(name));
            assert!(world.check_in(Proof::Signed(&device), &message).await.is_empty());
        }
        let mut tx = world.store.read().await.unwrap();
        let users = store::enrollments::users_of(&mut tx, id).await.unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.iter().all(|user| user.kind == EnrollmentKind::SharedIpad));
    })
    .await;
}

#[tokio::test]
async fn tokens_and_declarations_are_answered_truthfully() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let signed = Proof::Signed(&device);
        let get = device.message("GetBootstrapToken", "");
        let none = world.check_in(signed, &get).await;
        assert_eq!(none.status, StatusCode::OK);
        assert!(!none.body.contains("BootstrapToken"));
        let set = device.message("SetBootstrapToken", "<key>BootstrapToken</key><data>c2VjcmV0</data>");
        assert!(world.check_in(signed, &set).await.is_empty());
        let mut tx = world.store.read().await.unwrap();
        let (sealed, _) = store::enrollments::bootstrap_token(&mut tx, id).await.unwrap();
        assert!(!sealed.unwrap().windows(6).any(|part| part == b"secret"), "sealed at rest (TH-64)");
        drop(tx);
        assert!(world.check_in(signed, &get).await.body.contains("c2VjcmV0"));
        assert!(world.check_in(signed, &device.message("SetBootstrapToken", "")).await.is_empty());
        assert!(!world.check_in(signed, &get).await.body.contains("BootstrapToken"));

        let user = device.message("UserAuthenticate", &format!("<key>UserID</key><string>{USER}</string>"));
        assert_eq!(world.check_in(signed, &user).await.status, StatusCode::GONE);
        let maid = device.message("GetToken", "<key>TokenServiceType</key><string>com.apple.maid</string>");
        assert_eq!(world.check_in(signed, &maid).await.status, BAD);

        let ask = |endpoint: &str| {
            device.message("DeclarativeManagement", &format!("<key>Endpoint</key><string>{endpoint}</string>"))
        };
        let tokens: serde_json::Value =
            serde_json::from_str(&world.check_in(signed, &ask("tokens")).await.body).unwrap();
        let items = world.check_in(signed, &ask("declaration-items")).await;
        assert_eq!(items.headers["content-type"], "application/json");
        let items: serde_json::Value = serde_json::from_str(&items.body).unwrap();
        assert_eq!(tokens["SyncTokens"]["DeclarationsToken"], items["DeclarationsToken"]);
        assert_eq!(items["Declarations"]["Configurations"], serde_json::json!([]));
        assert!(world.check_in(signed, &ask("status")).await.is_empty());
        let missing = world.check_in(signed, &ask("declaration/configuration/x")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn an_unlock_token_is_sealed_and_outlives_an_update_without_one() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        let with = device.token_update_with("ZmFrZVRva2Vu", "<key>UnlockToken</key><data>dW5sb2NrTWU=</data>");
        assert!(world.check_in(Proof::Signed(&device), &with).await.is_empty());
        assert!(world.check_in(Proof::Signed(&device), &device.token_update()).await.is_empty());
        let mut tx = world.store.begin().await.unwrap();
        store::enrollments::archive_escrow(&mut tx, id, [uuid::Uuid::nil(), uuid::Uuid::max()], world.now())
            .await
            .unwrap();
        let kept = store::enrollments::archived_escrow(&mut tx, id).await.unwrap();
        assert_eq!(kept.len(), 1, "absence of UnlockToken does not clear the stored one");
    })
    .await;
}

#[tokio::test]
async fn a_request_without_a_body_or_with_a_broken_one_is_refused() {
    story(|world| async move {
        let (device, _) = world.enrolled(1).await;
        let mut request = world.request("/mdm", None, b"", Proof::Tls(&device));
        let broken =
            futures_util::stream::iter([Ok("<plist"), Err(std::io::Error::from(std::io::ErrorKind::TimedOut))]);
        *request.body_mut() = Body::from_stream(broken);
        assert_eq!(world.send(request).await.status, BAD);
    })
    .await;
}

#[tokio::test]
async fn th_17_a_device_whose_clock_ran_ahead_is_not_taken_for_its_own_replay() {
    story(|world| async move {
        let (device, id) = world.enrolled(1).await;
        world.later(60);
        let ahead = world.now().plus(Duration::from_secs(365 * 86_400));
        let update = device.token_update_with("YWhlYWRUb2tlbg==", "");
        assert!(world.check_in(Proof::SignedAt(&device, ahead), &update).await.is_empty());
        world.later(60);
        let update = device.token_update_with("cmlnaHRUb2tlbg==", "");
        assert!(world.check_in(Proof::Signed(&device), &update).await.is_empty());
        assert_eq!(world.enrollment(id).await.token_at, Some(world.now()), "the later token is the one that counts");
    })
    .await;
}

/// `UserAuthenticate` of this user, with an answer where there is one.
fn user_authenticate(device: &Device, response: Option<&str>) -> String {
    let response = response.map(|r| {
        let escaped = r.replace('&', "&amp;").replace('<', "&lt;");
        format!("<key>DigestResponse</key><string>{escaped}</string>")
    });
    let user = format!("<key>UserID</key><string>{USER}</string>");
    device.message("UserAuthenticate", &format!("{user}{}", response.unwrap_or_default()))
}

fn string(body: &str, key: &str) -> Option<String> {
    let rest = body.split(&format!("<key>{key}</key>")).nth(1)?.trim_start();
    if rest.starts_with("<string/>") || rest.starts_with("<string></string>") {
        return Some(String::new());
    }
    let text = rest.strip_prefix("<string>")?.split("</string>").next()?;
    Some(text.replace("&quot;", "\"").replace("&amp;", "&"))
}

/// What a Mac's login window answers to this challenge (RFC 2617), written out by hand.
fn digest_response(challenge: &str, name: &str, password: &str) -> String {
    let md5 =
        |text: String| hex::encode(openssl::hash::hash(openssl::hash::MessageDigest::md5(), text.as_bytes()).unwrap());
    let of = |key: &str| challenge.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (realm, nonce) = (of("realm"), of("nonce"));
    let ha1 = md5(format!("{name}:{realm}:{password}"));
    let ha2 = md5("PUT:/checkin".to_owned());
    let response = md5(format!("{ha1}:{nonce}:00000001:abcd:auth:{ha2}"));
    format!(
        "Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"/checkin\", qop=auth, nc=00000001, \
         cnonce=\"abcd\", response=\"{response}\", algorithm=MD5"
    )
}

#[tokio::test]
async fn network_users_are_refused_unless_a_setting_says_otherwise() {
    story(|mut world| async move {
        for n in [1, 2] {
            let (device, _) = world.enrolled(n).await;
            world.settings(Settings::default());
            let first = user_authenticate(&device, None);
            assert_eq!(world.check_in(Proof::Signed(&device), &first).await.status, StatusCode::GONE);
            world.settings(Settings { network_users: checkin::NetworkUsers::WithoutPassword, ..Settings::default() });
            let answer = world.check_in(Proof::Signed(&device), &first).await;
            assert_eq!(string(&answer.body, "DigestChallenge").as_deref(), Some(""), "{}", answer.body);
            let stranger = world.device(50 + n).await;
            assert_eq!(world.check_in(Proof::Signed(&stranger), &user_authenticate(&stranger, None)).await.status, BAD);
            let shared = device.message(
                "UserAuthenticate",
                "<key>UserID</key><string>FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF</string><key>UserShortName</key><string>a</string>",
            );
            assert_eq!(world.check_in(Proof::Signed(&device), &shared).await.status, StatusCode::GONE);
        }
    })
    .await;
}

#[tokio::test]
async fn network_users_prove_their_password_by_a_digest() {
    story(|mut world| async move {
        let realm = "mdm.example.org";
        world.settings(Settings {
            network_users: checkin::NetworkUsers::Digest,
            realm: realm.to_owned(),
            ..Settings::default()
        });
        for n in [1, 2] {
            let name = format!("ada{n}");
            world.network_user(&name, realm, "s3cret").await;
            let (device, id) = world.enrolled(n).await;
            let ask = async |response: Option<&str>| {
                let answer = world.check_in(Proof::Signed(&device), &user_authenticate(&device, response)).await;
                assert_eq!(answer.status, StatusCode::OK);
                answer.body
            };
            let challenge = async || string(&ask(None).await, "DigestChallenge").unwrap();
            let token = async |response: &str| string(&ask(Some(response)).await, "AuthToken").unwrap();

            let first = challenge().await;
            assert_eq!(token(&digest_response(&first, &name, "wrong")).await, "");
            assert_eq!(token(&digest_response(&first, &name, "s3cret")).await, "", "a challenge is good once");
            assert_eq!(token(&digest_response(&challenge().await, "nobody", "s3cret")).await, "");
            assert_eq!(token("Digest").await, "");
            let late = challenge().await;
            world.later(300);
            assert_eq!(token(&digest_response(&late, &name, "s3cret")).await, "");
            let right = digest_response(&challenge().await, &name, "s3cret");
            let auth_token = token(&right).await;
            assert!(auth_token.len() > 20);
            assert_eq!(token(&right).await, "", "replayed");

            let user = format!("<key>UserID</key><string>{USER}</string>");
            let with = |token: &str| format!("{user}<key>AuthToken</key><string>{token}</string>");
            let update = |token: &str| device.token_update_with("dXNlclRva2Vu", &with(token));
            assert_eq!(world.check_in(Proof::Signed(&device), &update("other")).await.status, BAD);
            assert!(world.user(id).await.is_none(), "nothing was changed");
            assert!(world.check_in(Proof::Signed(&device), &update(&auth_token)).await.is_empty());
            let channel = world.user(id).await.unwrap();
            let waits = format!("user-{n}");
            world.enqueue(channel.id, &waits).await;
            let poll = |token: &str| format!("{}{}", device.idle(), with(token));
            let refused = world.report(Proof::Signed(&device), &poll("other")).await;
            assert_eq!((refused.status, refused.body.as_str()), (BAD, ""));
            assert!(world.report(Proof::Signed(&device), &poll(&auth_token)).await.body.contains(&waits));

            // Somebody guesses at the login window.
            for _ in 0..12 {
                let challenge = challenge().await;
                assert_eq!(token(&digest_response(&challenge, &name, "guess")).await, "");
            }
            let now_right = digest_response(&challenge().await, &name, "s3cret");
            assert_eq!(token(&now_right).await, "", "not so many in so short a time");
            world.later(600);
            assert_ne!(token(&digest_response(&challenge().await, &name, "s3cret")).await, "");
        }
    })
    .await;
}

#[tokio::test]
async fn th_12_a_device_that_came_in_without_an_account_is_never_asked_to_sign_in() {
    story(|world| async move {
        for n in [1, 2] {
            let (device, _) = world.enrolled(n).await;
            for authorization in ["Bearer x", "Basic eDp5", "Bearer", ""] {
                for (path, body) in [("/checkin", device.token_update()), ("/mdm", device.idle())] {
                    let mut request = world.request(
                        path,
                        Some(CHECK_IN).filter(|_| path == "/checkin"),
                        &plist(&body),
                        Proof::Signed(&device),
                    );
                    request.headers_mut().insert("authorization", authorization.parse().unwrap());
                    assert!(world.send(request).await.is_empty(), "{authorization:?}");
                }
            }
        }
    })
    .await;
}
