//! A server, devices, and the simulator in Apple's place.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use attestation::{Asked, Claims, Context, Judged};
use mdm_core::certificate::Certificate;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::hardware::{AttestSupport, Platform};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use simulator::attestation as apple;
use simulator::attestation::Facts;
use store::Store;
use store::attestations::Row;
use store::enrollments::{self, Enrollment, NewDevice, Tokens};
use store::events::Filter;

pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A server, and whoever signs attestations.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) ctx: Context,
    pub(crate) apple: apple::Authority,
}

/// What a device says of itself, and what Apple would say of it.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) platform: Platform,
    pub(crate) os: &'static str,
    pub(crate) facts: Facts,
}

/// Its serial number is of hexadecimal digits, so that it makes a UDID.
pub(crate) fn phone(serial: &str) -> Device {
    let facts = Facts {
        serial_number: Some(serial.to_owned()),
        udid: Some(udid(serial)),
        sep_os_version: Some("17.5".into()),
        os_version: Some("17.5".into()),
        model: Some("iPhone15,2".into()),
        llb_version: None,
        sip_enabled: None,
        secure_boot: None,
        third_party_kexts: None,
    };
    Device { platform: Platform::Ios, os: "17.5", facts }
}

pub(crate) fn mac(serial: &str) -> Device {
    let facts = Facts {
        // Not the UDID that it enrolls with.
        udid: Some(format!("00008112-{serial}")),
        model: Some("J413AP".into()),
        os_version: Some("14.6".into()),
        sip_enabled: Some(true),
        secure_boot: Some("Full Security".into()),
        third_party_kexts: Some(false),
        ..phone(serial).facts
    };
    Device { platform: Platform::Macos, os: "14.6", facts }
}

pub(crate) fn udid(serial: &str) -> String {
    format!("00008110-{serial:0>16}")
}

pub(crate) fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

impl World {
    pub(crate) fn new(store: Store) -> Self {
        let apple = apple::Authority::new().unwrap();
        let root = Certificate::from_der(&apple.root().unwrap()).unwrap();
        let ctx = Context { test_roots: Arc::new(vec![root]), ..mdm_tests::attestation() };
        Self { store, ctx, apple }
    }

    pub(crate) async fn enroll(&self, device: &Device, kind: EnrollmentKind) -> Enrollment {
        let serial = device.facts.serial_number.clone().unwrap();
        let id = EnrollmentId(Random::System.uuid_v7(START));
        let key = match kind {
            EnrollmentKind::User => DeviceKey::EnrollmentId(Random::System.uuid_v4().to_string().parse().unwrap()),
            _ => DeviceKey::Udid(udid(&serial).parse().unwrap()),
        };
        let mut tx = self.store.begin().await.unwrap();
        enrollments::insert_device(&mut tx, &NewDevice { id, kind, key: &key }, START).await.unwrap();
        let claims = enrollments::Claims {
            os_version: Some(device.os),
            serial_number: (kind != EnrollmentKind::User).then_some(serial.as_str()),
            ..enrollments::Claims::default()
        };
        enrollments::authenticated(&mut tx, id, false, &claims, START).await.unwrap();
        tx.commit().await.unwrap();
        self.token_update(id, START).await
    }

    pub(crate) async fn token_update(&self, id: EnrollmentId, now: Timestamp) -> Enrollment {
        let tokens = Tokens {
            topic: "com.apple.mgmt.External.test",
            push_token: b"fakeToken",
            push_magic: "magic",
            signed_at: None,
            awaiting_configuration: false,
            unlock_token_sealed: None,
            raw_sealed: b"",
            user_short_name: None,
            user_long_name: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        let state = EnrollmentState::Enrolled { since: now };
        enrollments::token_update(&mut tx, id, state, &tokens, now).await.unwrap();
        let enrollment = enrollments::get(&mut tx, id).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        enrollment
    }

    /// The nonce that goes out with the next `DeviceInformation`, where one does.
    pub(crate) async fn ask(
        &self,
        device: &Device,
        enrollment: &Enrollment,
        now: Timestamp,
    ) -> (CommandUuid, Option<Vec<u8>>) {
        let command: CommandUuid = Random::System.uuid_v4().to_string().parse().unwrap();
        let asked = Asked {
            platform: Some(device.platform),
            os_version: device.os.parse().ok(),
            hardware: AttestSupport::Supported,
        };
        let mut tx = self.store.begin().await.unwrap();
        let nonce = attestation::ask(&mut tx, &self.ctx, enrollment, &asked, &command, now).await.unwrap();
        let again = attestation::ask(&mut tx, &self.ctx, enrollment, &asked, &command, now).await.unwrap();
        assert_eq!(
            nonce.is_some().then_some(&nonce),
            again.is_some().then_some(&again),
            "the same command, the same nonce"
        );
        tx.commit().await.unwrap();
        (command, nonce)
    }

    pub(crate) async fn nonce(&self, device: &Device, enrollment: &Enrollment, now: Timestamp) -> Vec<u8> {
        self.ask(device, enrollment, now).await.1.expect("asked for an attestation")
    }

    pub(crate) fn chain(&self, device: &Device, freshness: &[u8]) -> Vec<Vec<u8>> {
        self.apple.attest(&device.facts, &key(), freshness).unwrap()
    }

    pub(crate) async fn judge(
        &self,
        device: &Device,
        enrollment: &Enrollment,
        chain: &[Vec<u8>],
        now: Timestamp,
    ) -> Judged {
        let command = Random::System.uuid_v4().to_string().parse().unwrap();
        self.answer(device, enrollment, &command, Some(chain), now).await.expect("a verdict")
    }

    pub(crate) async fn answer(
        &self,
        device: &Device,
        enrollment: &Enrollment,
        command: &CommandUuid,
        chain: Option<&[Vec<u8>]>,
        now: Timestamp,
    ) -> Option<Judged> {
        let is_mac = device.platform == Platform::Macos;
        let claims = Claims {
            platform: Some(device.platform),
            serial_number: None,
            provisioning_udid: device.facts.udid.as_deref().filter(|_| is_mac),
        };
        let mut tx = self.store.begin().await.unwrap();
        let judged = attestation::judge(&mut tx, &self.ctx, enrollment, &claims, chain, command, now).await.unwrap();
        tx.commit().await.unwrap();
        judged
    }

    pub(crate) async fn rows(&self, enrollment: &Enrollment) -> Vec<Row> {
        let mut tx = self.store.read().await.unwrap();
        store::attestations::list(&mut tx, enrollment.id, None, 100).await.unwrap()
    }

    pub(crate) async fn events(&self, enrollment: &Enrollment) -> Vec<store::events::Row> {
        let filter = Filter { enrollment: Some(enrollment.id), kind: Some("attestation.".into()) };
        let mut tx = self.store.read().await.unwrap();
        store::events::newest(&mut tx, &filter, None, 100).await.unwrap()
    }
}

pub(crate) async fn story<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move { story(World::new(store)).await }
    })
    .await;
}
