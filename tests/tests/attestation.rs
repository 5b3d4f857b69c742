//! Device attestation on a database: when a device is asked, and what becomes of its answer. Apple is played by the simulator.

mod attestation_world;

use std::time::Duration;

use attestation::{Claims, Context, Identity, Judged, Verdict};
use attestation_world::{DAY, Device, MINUTE, START, World, key, mac, phone, story, udid};
use mdm_core::crypto::attestation::AttestationError;
use mdm_core::enrollment::{EnrollmentEvent, EnrollmentKind};
use mdm_core::hardware::Platform;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use simulator::attestation as apple;
use simulator::attestation::{Facts, Fault, Statement};
use store::enrollments;

fn refused(judged: &Judged) -> Option<AttestationError> {
    match judged.verdict {
        Verdict::Refused(error) => Some(error),
        Verdict::Accepted | Verdict::Absent => None,
    }
}

#[tokio::test]
async fn th_38_a_device_is_asked_once_in_seven_days_and_fresh_is_as_of_the_question() {
    story(|world| async move {
        let phone = phone("A1");
        let enrollment = world.enroll(&phone, EnrollmentKind::Device).await;
        let nonce = world.nonce(&phone, &enrollment, START).await;
        assert_eq!(nonce.len(), 32);

        // It answers with one that it had: believed, its own, and of unknown age. The same nonce is asked for again.
        let cached = world.chain(&phone, &[9; 32]);
        let judged = world.judge(&phone, &enrollment, &cached, START.plus(MINUTE)).await;
        assert_eq!((judged.verdict, judged.identity, judged.fresh_as_of), (Verdict::Accepted, Identity::Matches, None));
        assert_eq!(world.nonce(&phone, &enrollment, START.plus(DAY)).await, nonce);

        // Then it has a new one. Fresh is it as of when the nonce was first sent, however late it comes.
        let fresh = world.chain(&phone, &nonce);
        let judged = world.judge(&phone, &enrollment, &fresh, START.plus(DAY * 3)).await;
        assert_eq!(judged.fresh_as_of, Some(START));
        assert_eq!(world.ask(&phone, &enrollment, START.plus(DAY * 6)).await.1, None, "not before 7 days");
        // Shown once more much later, it is no fresher.
        let judged = world.judge(&phone, &enrollment, &fresh, START.plus(DAY * 6)).await;
        assert_eq!(judged.fresh_as_of, Some(START));

        let next = world.nonce(&phone, &enrollment, START.plus(DAY * 8)).await;
        assert_ne!(next, nonce);
        let judged = world.judge(&phone, &enrollment, &fresh, START.plus(DAY * 8 + MINUTE)).await;
        assert_eq!(judged.fresh_as_of, Some(START), "the old one does not become new by a new question");
        let judged = world.judge(&phone, &enrollment, &world.chain(&phone, &next), START.plus(DAY * 9)).await;
        assert_eq!(judged.fresh_as_of, Some(START.plus(DAY * 8)));
        // Apple's page leaves open whether the code is the nonce or its SHA-256 (Q9).
        let hashed = openssl::hash::hash(openssl::hash::MessageDigest::sha256(), &next).unwrap();
        let judged = world.judge(&phone, &enrollment, &world.chain(&phone, &hashed), START.plus(DAY * 9)).await;
        assert_eq!(judged.fresh_as_of, Some(START.plus(DAY * 8)));
        assert!(world.events(&enrollment).await.is_empty(), "none of this is an alarm");
    })
    .await;
}

#[tokio::test]
async fn th_36_th_37_th_39_what_is_foreign_or_missing_is_refused_with_its_own_word_and_told_once() {
    story(|world| async move {
        let other = phone("B2").facts;
        let foreign = apple::Authority::new().unwrap();
        for (n, (fault, expected, kind)) in [
            (Fault::ForeignRoot(foreign), AttestationError::Untrusted, "attestation.refused"),
            (Fault::Without(apple::FRESHNESS), AttestationError::FreshnessMissing, "attestation.refused"),
            (Fault::Blank(apple::FRESHNESS), AttestationError::FreshnessMissing, "attestation.refused"),
            (Fault::OtherDevice(other), AttestationError::SerialMismatch, "attestation.mismatch"),
            (Fault::Value(apple::UDID, b"X".to_vec()), AttestationError::UdidMismatch, "attestation.mismatch"),
            (
                Fault::Value(apple::SERIAL_NUMBER, b"A\0B".to_vec()),
                AttestationError::Value(mdm_core::crypto::attestation::Value::SerialNumber),
                "attestation.refused",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let phone = phone(&format!("A{n}"));
            let enrollment = world.enroll(&phone, EnrollmentKind::Device).await;
            let nonce = world.nonce(&phone, &enrollment, START).await;
            let chain = world.apple.attest_with(&phone.facts, &key(), &nonce, &fault).unwrap().unwrap();
            for _ in 0..2 {
                let judged = world.judge(&phone, &enrollment, &chain, START.plus(MINUTE)).await;
                assert_eq!(refused(&judged), Some(expected), "{fault:?}");
                assert!(judged.attested.is_none());
            }
            let rows = world.rows(&enrollment).await;
            assert_eq!(rows.len(), 1, "the same answer is kept once");
            assert_eq!(
                (rows[0].verdict.as_str(), rows[0].body.as_str()),
                (expected.as_str(), r#"{"serial_number_attested":false,"udid_attested":false}"#)
            );
            let events = world.events(&enrollment).await;
            assert_eq!(events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), [kind]);
            assert!(events[0].data.contains(expected.as_str()), "{}", events[0].data);
            // And the device is asked again: this was no answer.
            assert_eq!(world.nonce(&phone, &enrollment, START.plus(DAY)).await, nonce);
        }
        // Without test roots, which no server that others can reach can have, Apple's root alone is believed.
        let world = World { ctx: mdm_tests::attestation(), ..world };
        let phone = phone("C3");
        let enrollment = world.enroll(&phone, EnrollmentKind::Device).await;
        let nonce = world.nonce(&phone, &enrollment, START).await;
        let judged = world.judge(&phone, &enrollment, &world.chain(&phone, &nonce), START.plus(MINUTE)).await;
        assert_eq!(refused(&judged), Some(AttestationError::Untrusted));
        assert_eq!(judged.identity, Identity::Unknown);
    })
    .await;
}

#[tokio::test]
async fn th_39_a_device_that_shows_another_ones_attestation_is_found_out() {
    story(|world| async move {
        let (ours, theirs) = (phone("A1"), phone("B2"));
        let enrollment = world.enroll(&ours, EnrollmentKind::Device).await;
        let nonce = world.nonce(&ours, &enrollment, START).await;
        // The other device was made to answer our very nonce: the relay is found by the name.
        let judged = world.judge(&ours, &enrollment, &world.chain(&theirs, &nonce), START.plus(MINUTE)).await;
        assert_eq!((refused(&judged), judged.identity), (Some(AttestationError::SerialMismatch), Identity::Mismatch));

        // In User Enrollment there is no name: the nonce of another enrollment gives it away.
        let nameless =
            |device: &Device| Device { facts: Facts { udid: None, ..device.facts.clone() }, ..device.clone() };
        let own = world.enroll(&nameless(&ours), EnrollmentKind::User).await;
        let other = world.enroll(&nameless(&theirs), EnrollmentKind::User).await;
        let nonce = world.nonce(&theirs, &other, START).await;
        let unnamed = Facts { serial_number: None, udid: None, ..theirs.facts.clone() };
        let chain = world.apple.attest(&unnamed, &key(), &nonce).unwrap();
        let judged = world.judge(&ours, &own, &chain, START.plus(MINUTE)).await;
        assert_eq!((refused(&judged), judged.identity), (Some(AttestationError::FreshnessForeign), Identity::Mismatch));
        let judged = world.judge(&theirs, &other, &chain, START.plus(MINUTE)).await;
        assert_eq!((judged.identity, judged.fresh_as_of), (Identity::NotAttested, Some(START)));

        // A device that enrolled anew may have kept the attestation of the enrollment before: that is no attack, and not fresh.
        let mut tx = world.store.begin().await.unwrap();
        let over = other.state.on(EnrollmentEvent::CheckOut, START).unwrap();
        enrollments::set_state(&mut tx, other.id, over).await.unwrap();
        tx.commit().await.unwrap();
        let judged = world.judge(&ours, &own, &chain, START.plus(DAY)).await;
        assert_eq!((judged.verdict, judged.fresh_as_of), (Verdict::Accepted, None));
    })
    .await;
}

#[tokio::test]
async fn th_40_th_41_a_mac_is_named_by_its_provisioning_udid_and_blank_names_nobody() {
    story(|world| async move {
        let mac = mac("5AC1");
        let enrollment = world.enroll(&mac, EnrollmentKind::Device).await;
        let nonce = world.nonce(&mac, &enrollment, START).await;
        let judge = async |fault: Fault, second: u32| {
            let chain = world.apple.attest_with(&mac.facts, &key(), &nonce, &fault).unwrap().unwrap();
            world.judge(&mac, &enrollment, &chain, START.plus(MINUTE * second)).await
        };
        assert_eq!(judge(Fault::None, 1).await.identity, Identity::Matches);
        // The UDID of the MDM protocol is not what Apple attests of a Mac.
        let mdm_udid = udid("5AC1").into_bytes();
        let judged = judge(Fault::Value(apple::UDID, mdm_udid), 2).await;
        assert_eq!(refused(&judged), Some(AttestationError::UdidMismatch));
        // The serial number alone is enough; nothing at all is not.
        assert_eq!(judge(Fault::Blank(apple::UDID), 3).await.identity, Identity::Matches);
        let blank = Facts { serial_number: Some(String::new()), udid: Some(String::new()), ..mac.facts.clone() };
        let judged = judge(Fault::OtherDevice(blank), 4).await;
        assert_eq!((refused(&judged), judged.identity), (Some(AttestationError::IdentityMissing), Identity::Unknown));
    })
    .await;
}

#[tokio::test]
async fn a_question_without_an_answer_is_a_verdict_and_no_question_is_none() {
    story(|world| async move {
        let phone = phone("A1");
        let enrollment = world.enroll(&phone, EnrollmentKind::Device).await;
        let stranger = Random::System.uuid_v4().to_string().parse().unwrap();
        assert_eq!(world.answer(&phone, &enrollment, &stranger, None, START).await, None);
        let (command, nonce) = world.ask(&phone, &enrollment, START).await;
        assert!(nonce.is_some());
        let judged = world.answer(&phone, &enrollment, &command, None, START.plus(MINUTE)).await.unwrap();
        assert_eq!((judged.verdict, judged.identity), (Verdict::Absent, Identity::Unknown));
        assert_eq!(world.rows(&enrollment).await[0].verdict, "absent");
        assert!(world.events(&enrollment).await.is_empty());
        assert_eq!(world.ask(&phone, &enrollment, START.plus(DAY)).await.1, nonce);

        // Who enrolls anew is asked again: what was known of it is forgotten.
        let chain = world.chain(&phone, nonce.as_deref().unwrap());
        world.judge(&phone, &enrollment, &chain, START.plus(DAY)).await;
        assert_eq!(world.ask(&phone, &enrollment, START.plus(DAY * 2)).await.1, None);
        let mut tx = world.store.begin().await.unwrap();
        enrollments::authenticated(&mut tx, enrollment.id, true, &enrollments::Claims::default(), START.plus(DAY * 3))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let anew = world.token_update(enrollment.id, START.plus(DAY * 3)).await;
        assert_eq!(world.ask(&phone, &anew, START.plus(DAY * 3)).await.1, nonce);

        // Nobody is asked who would ignore it.
        for device in
            [Device { os: "15.8", ..phone.clone() }, Device { platform: Platform::Macos, os: "13.6", ..phone }]
        {
            assert_eq!(world.ask(&device, &anew, START.plus(DAY * 30)).await.1, None);
        }
    })
    .await;
}

#[tokio::test]
async fn th_37_th_39_th_42_an_acme_statement_is_judged_by_token_device_and_key() {
    story(|world| async move {
        let (ours, theirs) = (phone("A1"), phone("B2"));
        let enrollment = world.enroll(&ours, EnrollmentKind::Device).await;
        let token = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
        let code = openssl::sha::sha256(token.as_bytes());
        let attested = key();
        let spki = attested.public_key_to_der().unwrap();
        let object =
            |facts: &Facts, code: &[u8]| Statement::apple(world.apple.attest(facts, &attested, code).unwrap()).encode();
        let stranger = key().public_key_to_der().unwrap();
        let good = object(&ours.facts, &code);
        for (object, token, spki, expected) in [
            (&good, token, &spki, None),
            (&good, "another", &spki, Some(AttestationError::FreshnessMismatch)),
            (&object(&theirs.facts, &code), token, &spki, Some(AttestationError::SerialMismatch)),
            (&good, token, &stranger, Some(AttestationError::KeyMismatch)),
            (&b"junk".to_vec(), token, &spki, Some(AttestationError::Malformed)),
        ] {
            let claims = Claims { platform: Some(Platform::Ios), ..Claims::default() };
            let mut tx = world.store.begin().await.unwrap();
            let said = (object.as_slice(), token, spki.as_slice());
            let judged =
                attestation::judge_object(&mut tx, &world.ctx, &enrollment, &claims, said, START, START.plus(MINUTE))
                    .await
                    .unwrap();
            tx.commit().await.unwrap();
            assert_eq!(refused(&judged), expected);
            assert_eq!(judged.attested.is_some(), expected.is_none());
            let row = world.rows(&enrollment).await.into_iter().find(|row| row.verdict == judged.verdict.as_str());
            assert_eq!(row.map(|row| row.source).as_deref(), Some("acme"));
        }
        let none = Statement::none().encode();
        let mut tx = world.store.begin().await.unwrap();
        let said = (none.as_slice(), token, spki.as_slice());
        let judged =
            attestation::judge_object(&mut tx, &world.ctx, &enrollment, &Claims::default(), said, START, START)
                .await
                .unwrap();
        assert_eq!(judged.verdict, Verdict::Absent);
    })
    .await;
}

#[tokio::test]
async fn th_49_certificates_are_forgotten_and_what_stays_names_nobody() {
    story(|world| async move {
        let phone = phone("5E81A177");
        let enrollment = world.enroll(&phone, EnrollmentKind::Device).await;
        let nonce = world.nonce(&phone, &enrollment, START).await;
        let chain = world.chain(&phone, &nonce);
        world.judge(&phone, &enrollment, &chain, START).await;
        let stranger = world.chain(&self::phone("5E81A188"), &nonce);
        world.judge(&phone, &enrollment, &stranger, START.plus(MINUTE)).await;
        let row = &world.rows(&enrollment).await[1];
        assert_eq!(row.chain.as_deref(), Some(chain.concat().as_slice()));
        let told: String = world.events(&enrollment).await.into_iter().map(|e| e.data + &e.summary).collect();
        for row in world.rows(&enrollment).await {
            assert!(!row.body.contains("5E81A177") && !row.body.contains("00008110"), "{}", row.body);
        }
        assert!(!told.is_empty() && !told.contains("5E81A177") && !told.contains("5E81A188"), "{told}");

        let forget = async |now: Timestamp| {
            let mut tx = world.store.begin().await.unwrap();
            let forgotten = attestation::forget(&mut tx, &world.ctx, 100, now).await.unwrap();
            tx.commit().await.unwrap();
            forgotten
        };
        assert_eq!(forget(START.plus(DAY * 30)).await, 0);
        assert_eq!(forget(START.plus(DAY * 31)).await, 2);
        let rows = world.rows(&enrollment).await;
        assert!(rows.iter().all(|row| row.chain.is_none()));
        assert_eq!(rows[1].verdict, "accepted");
        assert_eq!(forget(START.plus(DAY * 91)).await, 1, "the nonce");
        assert_eq!(forget(START.plus(DAY * 401)).await, 2, "the verdicts");

        // With a retention of nothing they are not kept at all.
        let ctx = Context { retention: Duration::ZERO, ..world.ctx.clone() };
        let world = World { ctx, ..world };
        world.judge(&phone, &enrollment, &chain, START.plus(DAY * 402)).await;
        assert!(world.rows(&enrollment).await[0].chain.is_none());
    })
    .await;
}
