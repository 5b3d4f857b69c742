//! Which form of the profile each device is sent, and which device is sent none.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::plist::Dictionary;
use mdm_core::profile::acme::Attest;
use mdm_core::report::Status;
use mdm_tests::on_both;
use policy::decision::{Outcome, Target, decision};
use policy::facts::{FactName, FactValue, Facts, Source};
use policy::reason::ReasonCode;
use policy::target;
use serde_json::json;

use super::device::{Device, device, flag, phone, text};
use super::world::{START, World, acme, everybody, state};

#[tokio::test]
async fn each_device_gets_the_form_that_apples_table_allows_it() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({"ca_accepts_unattested": true})).await;
        for (n, product, os, bound, attest, mac) in [
            (1, "Mac14,2", "14.5", true, Some(true), true),
            (2, "Mac14,2", "13.6", false, Some(false), true),
            (3, "MacBookPro16,1", "14.0", true, Some(false), true),
            (4, "MacBookPro14,2", "13.1", false, Some(false), true),
            (5, "VirtualMac2,1", "15.0", false, Some(false), true),
            (6, "AppleTV6,2", "17.0", true, Some(false), false),
            (7, "Watch6,18", "9.6", true, None, false),
            (8, "iPad8,1", "16.1", true, Some(true), false),
        ] {
            let device = device(n, product, os);
            let id = w.enroll(device).await;
            let sent = w.answer(id, device).await.unwrap_or_else(|| panic!("{product} gets nothing"));
            let (_, payload) = sent.acme();
            assert_eq!(
                (flag(&payload, "HardwareBound"), flag(&payload, "Attest")),
                (Some(bound), attest),
                "{product} {os}"
            );
            assert_eq!(flag(&payload, "KeyIsExtractable"), mac.then_some(false), "{product}");
            assert_eq!(flag(&payload, "AllowAllAppsAccess"), mac.then_some(false), "{product}");
            w.acknowledge(id, &sent).await;
            assert_eq!(w.state(policy, id).await.0, "installed");
        }
    })
    .await;
}

#[tokio::test]
async fn th_48_a_device_that_cannot_attest_is_refused_with_the_reason_and_sent_nothing() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let old = device(1, "iPhone9,1", "16.1");
        let id = w.enroll(old).await;
        assert!(w.answer(id, old).await.is_none(), "no profile");
        assert_eq!(w.state(policy, id).await, state("blocked", Some(ReasonCode::AttestIgnoredBySilicon)));
        let decision = w.explain(json!({}), id).await;
        assert_eq!(decision.device.chip.as_deref(), Some("A10 Fusion"));
        assert!(decision.reason.unwrap().source.contains("row Ignored"));

        let unknown = device(2, "HomePod1,1", "18.0");
        let other = w.enroll(unknown).await;
        assert!(w.answer(other, unknown).await.is_none());
        assert_eq!(w.state(policy, other).await.1.as_deref(), Some("hardware_unknown"));

        let mut tx = w.store.read().await.unwrap();
        let run = policy::dry_run(&mut tx, &acme(json!({}), None), &everybody(), START).await.unwrap();
        assert_eq!((run.total, run.open, run.closed, run.need_facts), (2, 0, 2, 0));
        let run = policy::dry_run(&mut tx, &acme(json!({"ca_accepts_unattested": true}), None), &everybody(), START)
            .await
            .unwrap();
        assert_eq!((run.open, run.closed), (2, 0), "a policy that nobody has yet");
    })
    .await;
}

#[tokio::test]
async fn channels_and_kinds_get_what_is_theirs() {
    on_both(|store| async move {
        let w = World::new(store);
        let names = json!({"channel": "both", "ca_accepts_unattested": true, "client_identifier": "{user_short_name}-{serial}"});
        let policy = w.policy_for_all(json!({"channel": "both", "ca_accepts_unattested": true})).await;
        let mac = device(1, "Mac14,2", "14.5");
        let id = w.enroll(mac).await;
        let user = w.enroll_user(id, EnrollmentKind::Device, 9).await;
        let on_device = w.answer(id, mac).await.unwrap();
        let on_user = w.answer(user, mac).await.unwrap();
        let ((profile, _), (user_profile, payload)) = (on_device.acme(), on_user.acme());
        assert_eq!((text(&profile, "PayloadScope"), text(&user_profile, "PayloadScope")), ("System", "User"));
        assert_ne!(text(&profile, "PayloadIdentifier"), text(&user_profile, "PayloadIdentifier"));
        assert_eq!(flag(&payload, "HardwareBound"), Some(false), "only by the switch");
        assert_eq!(text(&payload, "ClientIdentifier"), "SERIAL1", "the user's Mac is known");
        let refused = w.explain(names.clone(), id).await;
        assert_eq!(refused.reason.map(|r| r.code), Some(ReasonCode::TemplateValueMissing));
        assert!(w.explain(names, user).await.reason.is_none());

        let shared = Device { kind: EnrollmentKind::SharedIpad, ..device(2, "iPad8,1", "17.0") };
        let ipad = w.enroll(shared).await;
        let someone = w.enroll_user(ipad, EnrollmentKind::SharedIpad, 8).await;
        assert!(w.answer(ipad, shared).await.is_some());
        assert!(w.answer(someone, shared).await.is_none());
        assert_eq!(w.state(policy, someone).await.1.as_deref(), Some("shared_ipad_user_channel"));

        let byod = Device { kind: EnrollmentKind::User, ..device(3, "iPhone15,2", "17.0") };
        let personal = w.enroll(byod).await;
        assert!(w.answer(personal, byod).await.is_none());
        assert_eq!(w.state(policy, personal).await.1.as_deref(), Some("template_not_in_user_enrollment"));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_refuses_to_say_what_it_is_is_decided_by_authenticate() {
    on_both(|store| async move {
        let w = World::new(store);
        let policy = w.policy_for_all(json!({})).await;
        let one = phone(1);
        let id = w.enroll(one).await;
        let asked = w.idle(id).await.unwrap();
        let sent = w.poll(id, Status::Error, Some(&asked), Dictionary::new()).await.expect("Authenticate said enough");
        assert_eq!(flag(&sent.acme().1, "Attest"), Some(true));
        assert_eq!(w.state(policy, id).await.0, "installing");
    })
    .await;
}

/// Where attestation is required there is no weaker way, whatever the device is, says of itself, or can do, and although the
/// authority would take it.
#[tokio::test]
async fn th_48_where_attestation_is_required_no_weaker_form_is_ever_sent() {
    on_both(|store| async move {
        let w = World::new(store);
        let id = w.enroll(phone(1)).await;
        let mut tx = w.store.read().await.unwrap();
        let phone = store::enrollments::get(&mut tx, id).await.unwrap().unwrap();
        let strict = w.acme(json!({"attest": "required", "ca_accepts_unattested": true, "channel": "both",
            "client_identifier": "{enrollment_id}", "subject": [[["O", "Example"]]]}));
        let authority = ca::Authority::bare("https://ca.example.com/acme/directory", true, vec![]);
        let products = [
            "iPhone15,2",
            "iPhone9,1",
            "iPhone10,1",
            "iPad7,5",
            "iPad8,1",
            "iPad13,1",
            "iPod9,1",
            "AppleTV5,3",
            "AppleTV11,1",
            "Watch3,1",
            "Watch6,18",
            "RealityDevice14,1",
            "Mac14,2",
            "MacBookPro14,2",
            "MacBookPro16,1",
            "iMac19,1",
            "VirtualMac2,1",
            "VMware7,1",
            "HomePod1,1",
            "",
            "nonsense",
        ];
        let versions =
            ["1.0", "9.0", "10.0", "13.0", "13.1", "13.6", "14.0", "15.8", "16.0", "16.1", "17.4", "26.0", "27.0", ""];
        let (mut open, mut closed) = (0, 0);
        for (product, os) in products.iter().flat_map(|p| versions.iter().map(move |v| (*p, *v))) {
            for silicon in [None, Some(true), Some(false)] {
                let mut facts = Facts { asked_at: Some(START), ..Facts::default() };
                for (name, text) in [(FactName::ProductName, product), (FactName::OsVersion, os)] {
                    facts.learn(name, FactValue::Text(text.to_owned()), Source::DeviceInformation, START);
                }
                if let Some(flag) = silicon {
                    facts.learn(FactName::IsAppleSilicon, FactValue::Flag(flag), Source::DeviceInformation, START);
                }
                let values = target::values(&phone, &facts, "random");
                for kind in [
                    EnrollmentKind::Device,
                    EnrollmentKind::Automated,
                    EnrollmentKind::User,
                    EnrollmentKind::SharedIpad,
                ] {
                    for channel in [Channel::Device, Channel::User] {
                        let target = Target { kind, channel, facts: &facts, values: &values, now: START };
                        let (decided, payload) = decision(&strict, &authority, &target);
                        if decided.outcome == Outcome::Open {
                            open += 1;
                            let form = decided.form.unwrap();
                            assert_eq!(
                                (form.hardware_bound, form.attest),
                                (true, Attest::True),
                                "{product} {os} {kind}"
                            );
                            assert!(payload.unwrap().keys().hardware_bound);
                        } else {
                            closed += 1;
                            assert!(payload.is_none() && decided.form.is_none(), "{product} {os} {kind}");
                        }
                    }
                }
            }
        }
        assert!(open > 100 && closed > 1000, "{open} {closed}");
    })
    .await;
}
