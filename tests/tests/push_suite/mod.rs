//! What every client of APNs must do, as one suite over the whole path: rows, loop, client, HTTP/2, and the stand-in.
//!
//! It runs against `direct` here, on both databases, and against unmodified a2 in `tests/apns-a2`, which includes this file.
//! Time stands still unless a test moves it; what is real is the network.

pub mod pki;

use std::net::SocketAddr;
use std::time::Duration;

use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use push::{Client, Pusher, Settings, cert};
use simulator::apns::{Answer, ApnsStandIn, Settings as StandInSettings};
use store::Store;
use store::enrollments::{NewDevice, Tokens};

use pki::Pki;

pub const TOPIC: &str = "com.apple.mgmt.External.5f0c2c4e-9d3b-4b7e-9f0a-1c2d3e4f5a6b";
const START: Timestamp = Timestamp(1_795_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A client to put through the suite.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Where it looks for APNs.
    pub listen: ([u8; 4], u16),
    /// How to make it, where APNs listens and its CA (PEM) being known.
    pub client: fn(SocketAddr, &str) -> Client,
    /// Whether it passes on `Retry-After`.
    pub keeps_retry_after: bool,
}

/// A server's half (database, loop) and Apple's half (the stand-in), with a client between them.
pub struct Bench {
    pub store: Store,
    pub clock: Clock,
    pub random: Random,
    pub sealer: Sealer,
    pub apns: ApnsStandIn,
    pub pusher: Pusher,
    subject: Subject,
    devices: u32,
}

/// An enrolled device as APNs and the database know it.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: EnrollmentId,
    pub token: String,
}

impl Bench {
    pub async fn new(store: Store, subject: Subject) -> Self {
        let pki = Pki::get();
        let listen = SocketAddr::from(subject.listen);
        let settings = StandInSettings {
            listen,
            ..StandInSettings::new(pki.server_pem.clone(), pki.server_key_pem.clone(), pki.ca_pem.clone())
        };
        let apns = ApnsStandIn::start(settings).await.unwrap();
        let (clock, random, sealer) = (Clock::fixed(START), Random::seeded(1), Sealer::new(&[7; 32]));
        let client = (subject.client)(apns.addr(), &pki.ca_pem);
        let pusher = Pusher::new(store.clone(), sealer.clone(), clock.clone(), random.clone(), Settings::new(client));
        let bench = Self { store, clock, random, sealer, apns, pusher, subject, devices: 0 };
        bench.upload(&pki.push_pem(TOPIC)).await;
        bench
    }

    pub async fn upload(&self, pem: &str) {
        let mut tx = self.store.begin().await.unwrap();
        let context = cert::Context { sealer: &self.sealer, random: &self.random };
        cert::upload(&mut tx, context, pem.as_bytes(), None, false, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Enrolls a device and wishes that it be pushed.
    pub async fn device(&mut self) -> Device {
        self.devices += 1;
        let now = self.clock.now();
        let id = EnrollmentId(self.random.uuid_v7(now));
        let key = DeviceKey::Udid(format!("{:040x}", self.devices).parse().unwrap());
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::insert_device(&mut tx, &NewDevice { id, kind: EnrollmentKind::Device, key: &key }, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let token = format!("{:064x}", 0xabc0_0000_u64 + u64::from(self.devices));
        let device = Device { id, token };
        self.token_update(&device).await;
        self.wish(&device).await;
        device
    }

    pub async fn devices(&mut self, n: usize) -> Vec<Device> {
        let mut devices = Vec::new();
        for _ in 0..n {
            devices.push(self.device().await);
        }
        devices
    }

    /// The device sends a `TokenUpdate`.
    pub async fn token_update(&self, device: &Device) {
        let now = self.clock.now();
        let tokens = Tokens {
            topic: TOPIC,
            push_token: &hex::decode(&device.token).unwrap(),
            push_magic: &magic(device),
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: &[],
            user_short_name: None,
            user_long_name: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        store::enrollments::token_update(&mut tx, device.id, EnrollmentState::Enrolled { since: now }, &tokens, now)
            .await
            .unwrap();
        store::push::revived(&mut tx, device.id, now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A command is queued for the device.
    pub async fn wish(&self, device: &Device) {
        let mut tx = self.store.begin().await.unwrap();
        store::push::due(&mut tx, device.id, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn intent(&self, device: &Device) -> store::push::Intent {
        let mut tx = self.store.read().await.unwrap();
        store::push::intent(&mut tx, device.id).await.unwrap().expect("the wish stands until the device has connected")
    }

    pub async fn dead(&self, device: &Device) -> bool {
        let mut tx = self.store.read().await.unwrap();
        store::enrollments::get(&mut tx, device.id).await.unwrap().unwrap().push_dead_at.is_some()
    }

    pub async fn events(&self, kind: &str) -> usize {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { kind: Some(kind.to_owned()), ..Default::default() };
        store::events::newest(&mut tx, &filter, None, 1000).await.unwrap().len()
    }

    pub fn accepted(&self, device: &Device) -> usize {
        self.apns
            .received_for(&device.token)
            .iter()
            .filter(|r| matches!(r.answer, Answer::Accept | Answer::Drain))
            .count()
    }

    /// Rounds, a little later each, until every device's push was accepted; how many rounds it took.
    pub async fn until_accepted(&mut self, devices: &[Device]) -> usize {
        for round in 1..400 {
            self.pusher.round().await.unwrap();
            let mut waiting = Vec::new();
            for device in devices {
                if self.intent(device).await.last_outcome.as_deref() != Some("accepted") {
                    waiting.push(device);
                }
            }
            if waiting.is_empty() {
                return round;
            }
            self.clock.advance(Duration::from_secs(5));
        }
        panic!("some pushes were never accepted");
    }
}

fn magic(device: &Device) -> String {
    format!("{{\"é\\{}", &device.token[60..])
}

pub async fn th_14_rg_18_a_push_is_what_apple_asks_for(mut bench: Bench) {
    let device = bench.device().await;
    bench.pusher.round().await.unwrap();
    let received = bench.apns.received_for(&device.token);
    let [push] = &received[..] else { panic!("one push, not {}", received.len()) };
    assert_eq!(push.answer, Answer::Accept, "the stand-in found nothing wrong");
    let header = |name: &str| push.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header("apns-topic"), TOPIC);
    assert_eq!(header("apns-push-type"), "mdm");
    assert_eq!(header("apns-priority"), "10");
    assert_eq!(header("apns-expiration"), START.plus(7 * DAY).unix_seconds().to_string());
    let body: serde_json::Value = serde_json::from_slice(&push.body).unwrap();
    assert_eq!(body, serde_json::json!({ "mdm": magic(&device) }), "PushMagic is encoded, never pasted in");

    let intent = bench.intent(&device).await;
    assert_eq!((intent.attempt, intent.last_outcome.as_deref()), (1, Some("accepted")));
    assert!(intent.due_at > START.plus(Duration::from_secs(9 * 60)).0, "it is not sent again at once");
    bench.clock.advance(Duration::from_secs(12 * 60));
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.accepted(&device), 2, "a device that does not answer is pushed again");

    let mut tx = bench.store.begin().await.unwrap();
    store::push::connected(&mut tx, device.id).await.unwrap();
    tx.commit().await.unwrap();
    bench.clock.advance(30 * DAY);
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.accepted(&device), 2, "a device that has connected is left alone");
}

pub async fn rg_16_rg_17_no_push_is_lost_whatever_apns_answers(mut bench: Bench) {
    let later = u64::try_from(START.0).unwrap() - 1000;
    let faults = [
        Answer::refuse(500, "InternalServerError"),
        Answer::refuse(503, "ServiceUnavailable"),
        Answer::refuse(503, "Shutdown"),
        Answer::refuse(400, "IdleTimeout"),
        Answer::refuse(400, "InvalidPushType"),
        Answer::refuse(429, "TooManyRequests"),
        Answer::Refuse { code: 429, reason: "TooManyRequests".to_owned(), timestamp: None, retry_after: Some(30) },
        Answer::Refuse { code: 503, reason: "ServiceUnavailable".to_owned(), timestamp: None, retry_after: Some(9) },
        Answer::unregistered(later),
        Answer::Html { code: 502 },
        Answer::Html { code: 200 + 102 },
        Answer::GoAway,
        Answer::Drain,
        Answer::RefuseStream,
        Answer::Kill,
    ];
    let mut devices = Vec::new();
    for fault in &faults {
        for times in 1..=3 {
            let device = bench.device().await;
            bench.apns.script(&device.token, vec![fault.clone(); times]);
            devices.push(device);
        }
    }
    bench.until_accepted(&devices).await;
    for device in &devices {
        assert!(bench.accepted(device) >= 1);
        assert!(!bench.dead(device).await);
        assert_eq!(bench.intent(device).await.failures, 0);
    }
    assert_eq!(bench.events("push.topic_stopped").await, 0);
}

pub async fn rg_17_a_bad_token_waits_for_a_token_update(mut bench: Bench) {
    let newer = u64::try_from(START.0).unwrap() + 1000;
    let answers = [
        Answer::refuse(400, "BadDeviceToken"),
        Answer::refuse(400, "DeviceTokenNotForTopic"),
        Answer::unregistered(newer),
        Answer::refuse(410, "ExpiredToken"),
    ];
    let mut devices = Vec::new();
    for answer in answers {
        let device = bench.device().await;
        bench.apns.script(&device.token, [answer]);
        devices.push(device);
    }
    bench.pusher.round().await.unwrap();
    for device in &devices {
        assert!(bench.dead(device).await);
        bench.wish(device).await;
    }
    bench.clock.advance(30 * DAY);
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.apns.requests(), 4, "nothing is sent to a dead token, not even for a new command");
    assert_eq!(bench.events("push.token_dead").await, 4);
    for device in &mut devices {
        // A new token for some, the same again for others: both revive.
        if device.token.ends_with('1') {
            device.token = device.token.replace("abc", "def");
        }
        bench.token_update(device).await;
    }
    bench.pusher.round().await.unwrap();
    for device in &devices {
        assert_eq!(bench.accepted(device), 1, "what was queued is pushed once the token lives");
        assert!(!bench.dead(device).await);
    }
}

pub async fn rg_17_an_old_410_does_not_disable(mut bench: Bench) {
    let device = bench.device().await;
    let before = u64::try_from(START.minus(DAY).0).unwrap();
    bench.apns.script(&device.token, [Answer::unregistered(before), Answer::unregistered(before)]);
    bench.pusher.round().await.unwrap();
    assert!(!bench.dead(&device).await, "the TokenUpdate came after what APNs speaks of");
    bench.until_accepted(std::slice::from_ref(&device)).await;
}

pub async fn rg_17_a_refused_certificate_stops_the_topic(mut bench: Bench) {
    let devices = bench.devices(5).await;
    bench.apns.script(&devices[0].token, vec![Answer::refuse(403, "BadCertificate"); 9]);
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.events("push.topic_stopped").await, 1);
    let mut tx = bench.store.read().await.unwrap();
    let certs = cert::list(&mut tx).await.unwrap();
    drop(tx);
    assert!(certs[0].stopped_at.is_some() && certs[0].stopped_why.is_some(), "{certs:?}");
    assert!(!certs[0].usable(bench.clock.now()));
    for device in &devices {
        assert!(!bench.dead(device).await, "the devices are not to blame");
        bench.wish(device).await;
    }
    let before = bench.apns.requests();
    bench.clock.advance(Duration::from_secs(30 * 60));
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.apns.requests(), before, "a stopped topic rests");

    bench.apns.script(&devices[0].token, []);
    bench.upload(&Pki::get().push_pem(TOPIC)).await;
    bench.pusher.round().await.unwrap();
    for device in &devices {
        assert!(bench.accepted(device) >= 1, "the new certificate is used at once");
    }

    // Without a new certificate a topic is tried again after its rest, in case APNs has changed its mind.
    bench.apns.script(&devices[0].token, [Answer::refuse(403, "BadCertificate")]);
    bench.clock.advance(DAY);
    for device in &devices {
        bench.wish(device).await;
    }
    bench.pusher.round().await.unwrap();
    bench.clock.advance(Duration::from_secs(3700));
    bench.until_accepted(&devices).await;
    let mut tx = bench.store.read().await.unwrap();
    let certs = cert::list(&mut tx).await.unwrap();
    assert!(certs[0].usable(bench.clock.now()), "{certs:?}");
}

pub async fn rg_17_too_many_requests_hold_back_one_device(mut bench: Bench) {
    let (busy, other) = (bench.device().await, bench.device().await);
    let answer =
        Answer::Refuse { code: 429, reason: "TooManyRequests".to_owned(), timestamp: None, retry_after: Some(600) };
    bench.apns.script(&busy.token, [answer]);
    bench.pusher.round().await.unwrap();
    let held = Timestamp(bench.intent(&busy).await.due_at).since(START).as_secs();
    if bench.subject.keeps_retry_after {
        assert!((600..=660).contains(&held), "{held}");
    } else {
        assert!((30..=60).contains(&held), "{held}");
    }
    bench.clock.advance(Duration::from_secs(10));
    bench.wish(&busy).await;
    bench.wish(&other).await;
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.apns.received_for(&busy.token).len(), 1, "a new command does not undo the back-off");
    assert_eq!(bench.accepted(&other), 2);
    bench.clock.advance(Duration::from_secs(700));
    bench.pusher.round().await.unwrap();
    assert_eq!(bench.accepted(&busy), 1);
}

pub async fn rg_16_an_outage_loses_nothing(mut bench: Bench) {
    let devices = bench.devices(20).await;
    bench.apns.set_down(true);
    for _ in 0..60 {
        bench.pusher.round().await.unwrap();
        bench.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(bench.apns.accepted(), 0);
    bench.apns.set_down(false);
    let rounds = bench.until_accepted(&devices).await;
    assert!(rounds <= 61, "after ten minutes without APNs, all are pushed within five: {rounds} rounds of 5 s");
}

pub async fn rg_19_one_bad_device_in_500_stops_no_other(mut bench: Bench) {
    let devices = bench.devices(500).await;
    bench.apns.script(&devices[250].token, vec![Answer::Html { code: 500 }; 1000]);
    let round = bench.pusher.round().await.unwrap();
    assert_eq!((round.taken, round.sent, round.accepted), (500, 500, 499));
}

pub async fn connections_that_end_under_load_lose_nothing(mut bench: Bench) {
    let devices = bench.devices(300).await;
    for (i, device) in devices.iter().enumerate() {
        let fault = match i % 60 {
            10 => Answer::Drain,
            25 => Answer::GoAway,
            40 => Answer::RefuseStream,
            55 => Answer::Kill,
            _ => continue,
        };
        bench.apns.script(&device.token, [fault]);
    }
    bench.until_accepted(&devices).await;
    assert!(bench.apns.connections() > 1, "the client connected anew");
}

pub async fn a_push_without_an_answer_times_out(mut bench: Bench) {
    let devices = bench.devices(2).await;
    bench.apns.script(&devices[0].token, [Answer::Hang]);
    let round = bench.pusher.round().await.unwrap();
    assert_eq!((round.sent, round.accepted), (2, 1));
    assert_eq!(bench.intent(&devices[0]).await.last_outcome.as_deref(), Some("retry"));
    bench.until_accepted(&devices).await;
}
