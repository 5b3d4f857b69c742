//! Wishes to push: their rows, the loop over them, and the push certificates.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mdm_core::crypto::seal::Sealer;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState, UnenrolledWhy};
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use mdm_tests::on_both;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::{X509, X509NameBuilder};
use push::Error as E;
use push::{Apns, Client, Outcome, Pusher, Settings, Target, cert};
use store::enrollments::{NewDevice, Tokens};
use store::push::{Lease, PARKED};
use store::{Store, Wake};
use uuid::Uuid;

const TOPIC: &str = "com.apple.mgmt.External.0f8fad5b-d9cb-469f-a165-70867728950e";
const OTHER: &str = "com.apple.mgmt.External.7c9e6679-7425-40de-944b-e07fc1f90ae7";
const START: Timestamp = Timestamp(1_795_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

// ---- rows -----------------------------------------------------------------------------------------------------------

async fn device(store: &Store, number: u128) -> EnrollmentId {
    let id = EnrollmentId(Uuid::from_u128(number));
    let key = DeviceKey::Udid(format!("{number:040x}").parse().unwrap());
    let mut tx = store.begin().await.unwrap();
    let new = NewDevice { id, kind: EnrollmentKind::Device, key: &key };
    store::enrollments::insert_device(&mut tx, &new, START).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn token_update(store: &Store, id: EnrollmentId, token: &[u8], now: Timestamp) {
    let tokens = Tokens {
        topic: TOPIC,
        push_token: token,
        push_magic: "magic",
        signed_at: None,
        awaiting_configuration: false,
        unlock_token_sealed: None,
        raw_sealed: &[],
        user_short_name: None,
        user_long_name: None,
    };
    let mut tx = store.begin().await.unwrap();
    let state = EnrollmentState::Enrolled { since: now };
    store::enrollments::token_update(&mut tx, id, state, &tokens, now).await.unwrap();
    store::push::revived(&mut tx, id, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// An enrolled device whose token is its number.
async fn enrolled(store: &Store, number: u128) -> EnrollmentId {
    let id = device(store, number).await;
    token_update(store, id, &number.to_be_bytes(), START).await;
    id
}

async fn wish(store: &Store, id: EnrollmentId, at: Timestamp) {
    let mut tx = store.begin().await.unwrap();
    store::push::due(&mut tx, id, at).await.unwrap();
    tx.wake(Wake::Push);
    tx.commit().await.unwrap();
}

async fn intent(store: &Store, id: EnrollmentId) -> Option<store::push::Intent> {
    store::push::intent(&mut store.read().await.unwrap(), id).await.unwrap()
}

async fn take(store: &Store, number: u128, now: Timestamp, limit: i64) -> Vec<store::push::Leased> {
    let lease = Lease { id: Uuid::from_u128(number), now, until: now.plus(MINUTE), limit };
    let mut tx = store.begin().await.unwrap();
    let rows = store::push::lease(&mut tx, lease).await.unwrap();
    tx.commit().await.unwrap();
    rows
}

fn settled(id: EnrollmentId, lease: u128, version: i64, due_at: Timestamp) -> store::push::Settled<'static> {
    store::push::Settled {
        enrollment: id,
        lease: Uuid::from_u128(lease),
        version,
        due_at,
        not_before: Timestamp(0),
        attempt: 1,
        failures: 0,
        sent_at: Some(START),
        outcome: "accepted",
    }
}

async fn settle(store: &Store, settled: &store::push::Settled<'_>) -> bool {
    let mut tx = store.begin().await.unwrap();
    let held = store::push::settle(&mut tx, settled).await.unwrap();
    tx.commit().await.unwrap();
    held
}

#[tokio::test]
async fn wishes_coalesce_and_the_earliest_counts() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        assert!(!store::push::pending(&mut store.read().await.unwrap(), id).await.unwrap());
        for minutes in [5, 9, 3, 7] {
            wish(&store, id, START.plus(minutes * MINUTE)).await;
        }
        assert_eq!(intent(&store, id).await.unwrap().due_at, START.plus(3 * MINUTE).0);
        assert!(store::push::pending(&mut store.read().await.unwrap(), id).await.unwrap());

        let all: Vec<EnrollmentId> = vec![id, enrolled(&store, 2).await, enrolled(&store, 3).await];
        let mut tx = store.begin().await.unwrap();
        store::push::due_many(&mut tx, &store::IdSet::new(&all), START).await.unwrap();
        tx.commit().await.unwrap();
        let backlog = store::push::backlog(&mut store.read().await.unwrap(), START.plus(MINUTE)).await.unwrap();
        assert_eq!((backlog.due, backlog.oldest_due_at, backlog.parked), (3, Some(START.0), 0));

        let mut tx = store.begin().await.unwrap();
        store::push::connected(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(intent(&store, id).await, None);
    })
    .await;
}

#[tokio::test]
async fn rg_23_only_the_holder_of_the_lease_settles() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        wish(&store, id, START).await;
        let first = take(&store, 100, START, 10).await;
        assert_eq!(first.len(), 1);
        assert!(take(&store, 101, START, 10).await.is_empty(), "a held wish is not taken");
        let mut tx = store.read().await.unwrap();
        assert!(!store::push::any_due(&mut tx, START).await.unwrap());
        drop(tx);

        // The first holder stalls for longer than its lease; another takes the wish and settles it.
        let later = START.plus(2 * MINUTE);
        let second = take(&store, 102, later, 10).await;
        assert_eq!(second.len(), 1);
        assert!(!settle(&store, &settled(id, 100, first[0].version, START.plus(9 * MINUTE))).await, "late: no effect");
        let mut tx = store.begin().await.unwrap();
        store::push::discard(&mut tx, id, Uuid::from_u128(100)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(settle(&store, &settled(id, 102, second[0].version, START.plus(30 * MINUTE))).await);
        assert_eq!(intent(&store, id).await.unwrap().due_at, START.plus(30 * MINUTE).0);
        assert!(!settle(&store, &settled(id, 102, second[0].version, START)).await, "settled once");
    })
    .await;
}

#[tokio::test]
async fn a_wish_that_comes_while_a_push_flies_is_not_lost() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        wish(&store, id, START).await;
        let row = take(&store, 100, START, 10).await.remove(0);
        wish(&store, id, START.plus(Duration::from_secs(1))).await;
        assert!(settle(&store, &settled(id, 100, row.version, START.plus(30 * MINUTE))).await);
        let intent = intent(&store, id).await.unwrap();
        assert!(intent.due_at <= START.plus(Duration::from_secs(1)).0, "the newer wish keeps its own time");
        assert_eq!(intent.attempt, 0);
    })
    .await;
}

#[tokio::test]
async fn rg_16_claimers_never_share_a_wish_and_miss_none() {
    on_both(|store| async move {
        let mut expected = BTreeSet::new();
        for number in 1..=120 {
            let id = enrolled(&store, number).await;
            wish(&store, id, START).await;
            expected.insert(id.0);
        }
        let claimers = (0..4_u128).map(|claimer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for turn in 0..40 {
                    let lease = Lease {
                        id: Uuid::from_u128(1000 * (claimer + 1) + turn),
                        now: START,
                        until: START.plus(MINUTE),
                        limit: 7,
                    };
                    let rows = store::retry(|| async {
                        let mut tx = store.begin().await?;
                        let rows = store::push::lease(&mut tx, lease).await?;
                        tx.commit().await?;
                        Ok::<_, store::Error>(rows)
                    });
                    mine.extend(rows.await.unwrap().into_iter().map(|row| row.enrollment_id));
                }
                mine
            })
        });
        let mut taken = Vec::new();
        for claimer in futures_util::future::join_all(claimers).await {
            taken.extend(claimer.unwrap());
        }
        assert_eq!(taken.len(), 120, "no wish is taken twice");
        assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), expected);
    })
    .await;
}

#[tokio::test]
async fn rg_17_a_token_is_dead_only_as_of_its_own_time() {
    on_both(|store| async move {
        let id = enrolled(&store, 1).await;
        let dead = async |token: &[u8], as_of| {
            let mut tx = store.begin().await.unwrap();
            let dead = store::push::dead(&mut tx, id, token, as_of, START).await.unwrap();
            tx.commit().await.unwrap();
            dead
        };
        let token = 1_u128.to_be_bytes();
        assert!(!dead(&token, START.minus(MINUTE)).await, "APNs speaks of the time before the TokenUpdate");
        assert!(!dead(&[9; 32], START.plus(MINUTE)).await, "APNs speaks of a former token");
        assert!(dead(&token, START.plus(MINUTE)).await);
        token_update(&store, id, &token, START.plus(MINUTE)).await;
        let enrollment = store::enrollments::get(&mut store.read().await.unwrap(), id).await.unwrap().unwrap();
        assert_eq!(enrollment.push_dead_at, None);
    })
    .await;
}

// ---- the loop -------------------------------------------------------------------------------------------------------

/// APNs in process: remembers to whom it was asked to push, and refuses some.
#[derive(Default)]
struct Fake {
    pushed: Mutex<Vec<u128>>,
    dead: Mutex<BTreeSet<u128>>,
}

#[async_trait]
impl Apns for Fake {
    async fn send(&self, target: &Target) -> Outcome {
        let number = u128::from_be_bytes(target.token.as_slice().try_into().unwrap());
        self.pushed.lock().unwrap().push(number);
        if self.dead.lock().unwrap().contains(&number) {
            return Outcome::BadToken { reason: "BadDeviceToken".to_owned() };
        }
        Outcome::Accepted { apns_id: None }
    }
}

impl Fake {
    fn pushed(&self) -> Vec<u128> {
        self.pushed.lock().unwrap().clone()
    }
}

fn pusher(store: &Store, clock: &Clock, client: Client) -> Pusher {
    Pusher::new(store.clone(), Sealer::new(&[7; 32]), clock.clone(), Random::seeded(3), Settings::new(client))
}

fn given(fake: &Arc<Fake>) -> Client {
    Client::Given(Arc::clone(fake) as Arc<dyn Apns>)
}

#[tokio::test]
async fn rg_16_a_wish_is_pushed_again_until_the_device_has_connected() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let mut pusher = pusher(&store, &clock, given(&fake));
        let id = enrolled(&store, 1).await;
        wish(&store, id, START).await;
        for _ in 0..60 * 24 * 30 / 5 {
            pusher.round().await.unwrap();
            clock.advance(5 * MINUTE);
        }
        let pushes = fake.pushed().len();
        assert!(
            (7..=9).contains(&pushes),
            "at once, 10 minutes, 1 hour, 8 hours, then about weekly: {pushes} in 30 days"
        );
    })
    .await;
}

#[tokio::test]
async fn a_burst_of_commands_is_one_push() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let mut pusher = pusher(&store, &clock, given(&fake));
        let id = enrolled(&store, 1).await;
        for _ in 0..10 {
            wish(&store, id, clock.now()).await;
            pusher.round().await.unwrap();
            clock.advance(Duration::from_millis(100));
        }
        assert_eq!(fake.pushed().len(), 1);
        clock.advance(Duration::from_secs(2));
        pusher.round().await.unwrap();
        assert_eq!(fake.pushed().len(), 2, "and one more for those that came after the first");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_says_not_now_is_woken_ever_more_rarely() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let mut pusher = pusher(&store, &clock, given(&fake));
        let id = enrolled(&store, 1).await;
        let mut gaps = Vec::new();
        for _ in 0..9 {
            let mut tx = store.begin().await.unwrap();
            store::push::not_now(&mut tx, id, clock.now()).await.unwrap();
            tx.commit().await.unwrap();
            let (said_at, before) = (clock.now(), fake.pushed().len());
            while fake.pushed().len() == before {
                pusher.round().await.unwrap();
                clock.advance(MINUTE);
            }
            gaps.push(clock.now().since(said_at).as_secs() / 60);
        }
        let expected = [15, 30, 60, 120, 240, 480, 960, 1440, 1440];
        for (gap, expected) in gaps.iter().zip(expected) {
            assert!((expected..=expected * 11 / 10 + 3).contains(gap), "{gaps:?}");
        }
        // A new command is worth a push at once.
        let before = fake.pushed().len();
        let mut tx = store.begin().await.unwrap();
        store::push::not_now(&mut tx, id, clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        pusher.round().await.unwrap();
        wish(&store, id, clock.now()).await;
        clock.advance(Duration::from_secs(3));
        pusher.round().await.unwrap();
        assert_eq!(fake.pushed().len(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn who_cannot_be_pushed_waits_and_who_is_gone_is_forgotten() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let mut pusher = pusher(&store, &clock, given(&fake));
        let (fresh, gone) = (device(&store, 1).await, enrolled(&store, 2).await);
        wish(&store, fresh, START).await;
        wish(&store, gone, START).await;
        let mut tx = store.begin().await.unwrap();
        let over = EnrollmentState::Unenrolled { at: START, why: UnenrolledWhy::CheckOut };
        store::enrollments::set_state(&mut tx, gone, over).await.unwrap();
        tx.commit().await.unwrap();
        pusher.round().await.unwrap();
        assert_eq!(intent(&store, gone).await, None);
        assert_eq!(intent(&store, fresh).await.unwrap().due_at, PARKED.0);
        let backlog = store::push::backlog(&mut store.read().await.unwrap(), START).await.unwrap();
        assert_eq!((backlog.due, backlog.parked), (0, 1));
        token_update(&store, fresh, &1_u128.to_be_bytes(), START).await;
        pusher.round().await.unwrap();
        assert_eq!(fake.pushed(), [1]);
    })
    .await;
}

#[tokio::test]
async fn rg_16_what_was_taken_before_a_crash_is_pushed_after_it() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let id = enrolled(&store, 1).await;
        wish(&store, id, START).await;
        assert_eq!(take(&store, 100, START, 10).await.len(), 1); // and the process is gone
        let mut pusher = pusher(&store, &clock, given(&fake));
        pusher.round().await.unwrap();
        assert!(fake.pushed().is_empty(), "it may still be on its way");
        clock.advance(2 * MINUTE);
        pusher.round().await.unwrap();
        assert_eq!(fake.pushed(), [1]);
    })
    .await;
}

#[tokio::test]
async fn rg_19_a_dead_token_among_many_harms_only_itself() {
    on_both(|store| async move {
        let (fake, clock) = (Arc::new(Fake::default()), Clock::fixed(START));
        let mut pusher = pusher(&store, &clock, given(&fake));
        for number in 1..=50 {
            let id = enrolled(&store, number).await;
            wish(&store, id, START).await;
        }
        fake.dead.lock().unwrap().insert(25);
        let round = pusher.round().await.unwrap();
        assert_eq!((round.taken, round.sent, round.accepted), (50, 50, 49));
        clock.advance(20 * MINUTE);
        pusher.round().await.unwrap();
        assert_eq!(fake.pushed().iter().filter(|n| **n == 25).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn rg_20_the_running_loop_keeps_its_pace_and_wakes_at_once() {
    on_both(|store| async move {
        let fake = Arc::new(Fake::default());
        for number in 1..=100 {
            let id = enrolled(&store, number).await;
            wish(&store, id, START).await;
        }
        let settings = Settings { per_second: 50, ..Settings::new(given(&fake)) };
        let pusher = Pusher::new(store.clone(), Sealer::new(&[7; 32]), Clock::System, Random::System, settings);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(pusher.run(async move { drop(stopped.await) }));
        let started = std::time::Instant::now();
        while fake.pushed().len() < 100 {
            assert!(started.elapsed() < Duration::from_secs(20), "{} pushed", fake.pushed().len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(started.elapsed() > Duration::from_millis(1700), "100 pushes at 50 a second: {:?}", started.elapsed());

        tokio::time::sleep(Duration::from_millis(200)).await;
        let id = enrolled(&store, 101).await;
        let wished = std::time::Instant::now();
        wish(&store, id, Clock::System.now()).await;
        while fake.pushed().len() < 101 {
            assert!(wished.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stop);
        running.await.unwrap();
        assert_eq!(
            intent(&store, id).await.unwrap().last_outcome.as_deref(),
            Some("accepted"),
            "written before the end"
        );
    })
    .await;
}

// ---- certificates ---------------------------------------------------------------------------------------------------

struct Pair {
    certificate: X509,
    key: PKey<Private>,
}

impl Pair {
    fn new(topic: &str, key: PKey<Private>, from: i64, to: i64) -> Self {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::USERID, topic).unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, &format!("APSP:{}", &topic[topic.len() - 4..])).unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(77).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(START.unix_seconds() + from).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(START.unix_seconds() + to).unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    fn rsa(topic: &str) -> Self {
        Self::new(topic, PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(), -60, 365 * 86_400)
    }

    fn ec(topic: &str, from: i64, to: i64) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self::new(topic, PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap(), from, to)
    }

    fn good(topic: &str) -> Self {
        Self::ec(topic, -60, 365 * 86_400)
    }

    fn certificate_pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    fn pem(&self) -> String {
        self.certificate_pem() + &self.key_pem()
    }
}

async fn upload(
    store: &Store,
    bytes: &[u8],
    password: Option<&str>,
    force: bool,
) -> Result<cert::PushCertInfo, push::Error> {
    let (sealer, random) = (Sealer::new(&[7; 32]), Random::seeded(1));
    let mut tx = store.begin().await.unwrap();
    let context = cert::Context { sealer: &sealer, random: &random };
    let info = cert::upload(&mut tx, context, bytes, password, force, START).await?;
    tx.commit().await.unwrap();
    Ok(info)
}

#[tokio::test]
async fn a_push_certificate_is_taken_in_every_form_that_people_have() {
    on_both(|store| async move {
        let (rsa, ec, issuer) = (Pair::rsa(TOPIC), Pair::good(TOPIC), Pair::good(OTHER));
        let pkcs1 = String::from_utf8(rsa.key.rsa().unwrap().private_key_to_pem().unwrap()).unwrap();
        let sec1 = String::from_utf8(ec.key.ec_key().unwrap().private_key_to_pem().unwrap()).unwrap();
        let glued = ec.pem().replace('\n', "");
        let forms = [
            rsa.pem(),
            rsa.key_pem() + &rsa.certificate_pem(),
            pkcs1 + &rsa.certificate_pem(),
            ec.certificate_pem() + &sec1,
            issuer.certificate_pem() + &ec.pem(),
            ec.certificate_pem() + &issuer.certificate_pem() + &ec.key_pem(),
            format!("Bag Attributes\r\n    friendlyName: x\r\n{}", ec.pem().replace('\n', "\r\n")),
            glued,
        ];
        for form in forms {
            let info = upload(&store, form.as_bytes(), None, false).await.unwrap();
            assert_eq!(info.topic, TOPIC);
            assert_eq!(info.not_after, START.plus(Duration::from_secs(365 * 86_400)));
        }
        let mut chain = Stack::new().unwrap();
        chain.push(issuer.certificate.clone()).unwrap();
        let pkcs12 =
            Pkcs12::builder().name("push").pkey(&rsa.key).cert(&rsa.certificate).ca(chain).build2("secret").unwrap();
        let der = pkcs12.to_der().unwrap();
        assert!(upload(&store, &der, None, false).await.is_err());
        assert!(upload(&store, &der, Some("wrong"), false).await.is_err());
        upload(&store, &der, Some("secret"), false).await.unwrap();

        let listed = cert::list(&mut store.read().await.unwrap()).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].usable(START) && !listed[0].usable(listed[0].not_after));
        assert_eq!(listed[0].serial.trim_start_matches('0'), "4D".to_lowercase());
    })
    .await;
}

#[tokio::test]
async fn th_68_a_push_certificate_that_would_lose_devices_is_refused() {
    on_both(|store| async move {
        let (good, other) = (Pair::good(TOPIC), Pair::good(TOPIC));
        let refused = async |pem: String| {
            let error = upload(&store, pem.as_bytes(), None, true).await.expect_err("refused even with force");
            assert!(cert::list(&mut store.read().await.unwrap()).await.unwrap().is_empty());
            error
        };
        assert!(matches!(refused(good.certificate_pem() + &other.key_pem()).await, E::Mismatch));
        assert!(matches!(refused(good.certificate_pem()).await, E::Key(_)));
        assert!(matches!(refused(good.key_pem()).await, E::Upload(_)));
        assert!(matches!(refused(good.pem() + &other.key_pem()).await, E::Key(_)));
        assert!(matches!(refused("hello".to_owned()).await, E::Upload(_)));
        assert!(matches!(refused(Pair::good("com.example.app").pem()).await, E::NotMdm { .. }));
        assert!(matches!(refused(Pair::ec(TOPIC, -600, -60).pem()).await, E::Expired { .. }));
        assert!(matches!(refused(Pair::ec(TOPIC, 60, 600).pem()).await, E::NotYet { .. }));
        let encrypted = good.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"x").unwrap();
        assert!(matches!(refused(good.certificate_pem() + &String::from_utf8(encrypted).unwrap()).await, E::Key(_)));

        upload(&store, good.pem().as_bytes(), None, false).await.unwrap();
        let renewed = Pair::good(TOPIC);
        upload(&store, renewed.pem().as_bytes(), None, false).await.unwrap();
        let foreign = Pair::good(OTHER);
        let error = upload(&store, foreign.pem().as_bytes(), None, false).await.unwrap_err();
        assert!(matches!(error, E::OtherTopic { .. }), "{error}");
        upload(&store, foreign.pem().as_bytes(), None, true).await.unwrap();
        assert_eq!(cert::list(&mut store.read().await.unwrap()).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn th_64_the_push_key_is_sealed_at_rest() {
    on_both(|store| async move {
        let pair = Pair::rsa(TOPIC);
        upload(&store, pair.pem().as_bytes(), None, false).await.unwrap();
        let rows = store::push::certs(&mut store.read().await.unwrap()).await.unwrap();
        let [row] = &rows[..] else { panic!("one certificate") };
        let secret = pair.key.rsa().unwrap().d().to_vec();
        for place in [&row.key_sealed, &row.certificate, &row.chain] {
            assert!(!place.windows(16).any(|w| w == &secret[..16]), "the private exponent is not in the row");
        }
        assert!(Sealer::new(&[7; 32]).open(&format!("push_cert.key_sealed:{TOPIC}"), &row.key_sealed).is_ok());
        assert!(Sealer::new(&[7; 32]).open(&format!("push_cert.key_sealed:{OTHER}"), &row.key_sealed).is_err());
        assert!(!format!("{row:?}").contains("key"));
    })
    .await;
}

#[tokio::test]
async fn rg_19_a_topic_without_a_usable_certificate_holds_its_own_devices_only() {
    on_both(|store| async move {
        let clock = Clock::fixed(START);
        let endpoint = push::direct::Endpoint { host: "localhost".to_owned(), port: 1, ca_pem: None, proxy: None };
        let mut pusher = pusher(&store, &clock, Client::Direct(endpoint));
        let id = enrolled(&store, 1).await;
        wish(&store, id, START).await;
        let round = pusher.round().await.unwrap();
        assert_eq!((round.taken, round.sent), (1, 0), "no certificate at all");
        assert_eq!(intent(&store, id).await.unwrap().last_outcome.as_deref(), Some("held"));

        // A certificate that expires: held again once it has ended.
        upload(&store, Pair::ec(TOPIC, -60, 600).pem().as_bytes(), None, false).await.unwrap();
        let round = pusher.round().await.unwrap();
        assert_eq!((round.taken, round.sent, round.accepted), (1, 1, 0), "sent at once, though nobody listens there");
        clock.advance(20 * MINUTE);
        let round = pusher.round().await.unwrap();
        assert_eq!((round.taken, round.sent), (1, 0), "the certificate has ended");

        // A key that was sealed with another key than the server has.
        let (sealer, random) = (Sealer::new(&[9; 32]), Random::seeded(1));
        let mut tx = store.begin().await.unwrap();
        let context = cert::Context { sealer: &sealer, random: &random };
        let pem = Pair::good(TOPIC).pem();
        cert::upload(&mut tx, context, pem.as_bytes(), None, false, clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let round = pusher.round().await.unwrap();
        assert_eq!((round.taken, round.sent), (1, 0));
    })
    .await;
}

#[test]
fn secrets_do_not_show() {
    let target = Target {
        token: vec![0xab; 32],
        push_magic: mdm_core::secret::Secret::new("hunter2".to_owned()),
        topic: TOPIC.to_owned(),
        expiration: START,
    };
    let shown = format!("{target:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("171"), "the token neither: {shown}");
}
