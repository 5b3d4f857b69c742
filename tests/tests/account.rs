//! Account-driven enrollment: both modes by both methods, and everything that must not get in.

mod account_world;

use account::Mode;
use account_world::{Pkce, REDIRECTION, RESULTS, World, story, story_with_provider};
use enroll::door::account::{DeviceSignature, Method};
use http::{Request, StatusCode};
use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_core::plist::Value;
use sha2::{Digest, Sha256};
use simulator::account::Account;
use simulator::browser::Person;
use simulator::device::{Behaviour, ChannelId, Device};
use simulator::hardware;
use simulator::http::Trust;
use simulator::machine_info::Tampering;
use simulator::oidc;
use simulator::record::Record;

const IPHONE: &str = "iPhone17,2";
const MAC: &str = "Mac14,2";
const USER: &str = "<key>EnrollmentUserID</key><string>11111111-2222-3333-4444-555555555555</string>";

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_string)
}

/// A token by whichever method the door is set to.
async fn token(world: &World, mode: Mode, method: Method, code: &str) -> String {
    match method {
        Method::AsWeb => world.web_token(mode, code).await,
        Method::OAuth2 => {
            let code = world.code(mode, code, None).await;
            world.exchange(mode, &code, None).await.json()["access_token"].as_str().unwrap().to_owned()
        }
    }
}

/// Discovery, challenge, sign-in, profile, enrollment, and the token in every later request.
async fn the_whole_way(mode: Mode, method: Method) {
    story(|world| async move {
        world.set(mode, |door| door.account.method = method).await;
        let account = world.account("ada");
        let code = world.invite(&account, mode).await;

        let query = "?user-identifier=ada%40example.org&model-family=iPhone";
        let found = world.get(&format!("/.well-known/com.apple.remotemanagement{query}")).await;
        let servers = found.json()["Servers"].as_array().unwrap().clone();
        assert_eq!(servers.len(), 1);
        assert_eq!(servers[0]["Version"], format!("mdm-{}", mode.as_str()));
        assert!(servers[0]["BaseURL"].as_str().unwrap().ends_with(&format!("/account/{}", mode.as_str())));

        let body = world.machine_info(mode, IPHONE, &Tampering::None);
        let challenge = world.ask(mode, &body, None).await.challenge();
        assert_eq!(challenge["method"], method.as_str());
        let keys: Vec<&str> = challenge.keys().map(String::as_str).collect();
        match method {
            Method::AsWeb => assert_eq!(keys, ["method", "url"]),
            Method::OAuth2 => {
                assert_eq!(keys, ["authorization-url", "client-id", "method", "redirect-url", "scope", "token-url"]);
            }
        }

        let token = token(&world, mode, method, &code).await;
        let profile = world.ask(mode, &body, Some(&token)).await.profile();
        assert_eq!(text(profile.mdm("EnrollmentMode")), Some(if mode == Mode::Byod { "BYOD" } else { "ADDE" }));
        assert_eq!(text(profile.mdm("AssignedManagedAppleID")), Some(account.as_str()));
        assert_eq!(
            profile.mdm("AccessRights").is_some(),
            mode == Mode::Adde,
            "with it a device gives up User Enrollment"
        );

        let device = world.device(mode, IPHONE, &profile).await;
        assert_eq!(world.authenticate(&device, Some(&token)).await.status, StatusCode::OK);
        assert_eq!(world.authenticate(&device, Some(&token)).await.status, StatusCode::OK, "no answer came: again");
        assert_eq!(world.token_update(&device, "", Some(&token)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, "", Some(&token)).await.status, StatusCode::OK);

        let enrollment = world.enrollment(&device).await;
        assert_eq!(enrollment.door, mode.door());
        assert_eq!(enrollment.managed_apple_account.as_deref(), Some(account.as_str()));
        let kind = if mode == Mode::Byod { EnrollmentKind::User } else { EnrollmentKind::Device };
        assert_eq!(enrollment.kind, kind);
        let tokens = world.tokens(&account).await;
        assert_eq!(tokens.len(), 1);
        assert_eq!((tokens[0].state.as_str(), tokens[0].enrollment_id), ("live", Some(enrollment.id.0)));
        assert_eq!(
            tokens[0].expires_at.is_some(),
            method == Method::OAuth2,
            "a web token lives as long as the enrollment"
        );
        assert!(tokens[0].last_used_at.is_some());
        // A year later it still does.
        if method == Method::AsWeb {
            world.later(300 * 86_400);
            assert_eq!(world.idle(&device, "", Some(&token)).await.status, StatusCode::OK);
        }
    })
    .await;
}

#[tokio::test]
async fn an_iphone_enrolls_as_byod_by_web_sign_in() {
    the_whole_way(Mode::Byod, Method::AsWeb).await;
}

#[tokio::test]
async fn an_iphone_enrolls_as_byod_by_oauth2() {
    the_whole_way(Mode::Byod, Method::OAuth2).await;
}

#[tokio::test]
async fn an_iphone_enrolls_as_adde_by_web_sign_in() {
    the_whole_way(Mode::Adde, Method::AsWeb).await;
}

#[tokio::test]
async fn an_iphone_enrolls_as_adde_by_oauth2() {
    the_whole_way(Mode::Adde, Method::OAuth2).await;
}

/// The same with simulated devices, over TLS, by their own idea of Apple's rules; SCEP included.
#[tokio::test]
async fn simulated_devices_come_in_and_sign_in_again() {
    story(|world| async move {
        for (mode, kind) in [(Mode::Byod, simulator::account::Mode::Byod), (Mode::Adde, simulator::account::Mode::Adde)]
        {
            for method in [Method::AsWeb, Method::OAuth2] {
                for other in Mode::ALL {
                    world.set(other, |door| (door.enabled, door.account.method) = (other == mode, method)).await;
                }
                let account = world.account("sim");
                let person = Person::with_code(&world.invite(&account, mode).await);
                let record = Record::new(hardware::find(IPHONE).unwrap(), "18.5", "22F76", &account).unwrap();
                let trust = Trust::only(&[]).with_pem(world.authority.pem().unwrap().as_bytes()).unwrap();
                let device = Device::new(record, trust, Behaviour::default()).unwrap();
                let mut device = device.built_by(world.factory.clone());
                let at = Account::new(&account).discovered_at(&world.server.url(""));
                device.enroll_account(&at, kind, &person).await.unwrap();
                device.session(ChannelId::DEVICE).await.unwrap();
                assert_eq!(device.sign_ins().await, 1);
                let first = device.access_token().await.unwrap();

                if method == Method::OAuth2 {
                    world.later(86_400);
                    device.session(ChannelId::DEVICE).await.unwrap();
                    assert_eq!(device.sign_ins().await, 1, "refreshed without a word");
                    assert_ne!(device.access_token().await.unwrap(), first);
                }
                world.later(1);
                world.revoke(&account).await;
                device.session(ChannelId::DEVICE).await.unwrap();
                assert_eq!(device.sign_ins().await, 2, "the person signed in again");
                assert!(device.is_enrolled());
                let newest = world.tokens(&account).await.remove(0);
                assert_eq!(newest.state, "live");
                assert!(newest.enrollment_id.is_some(), "the new token is the same enrollment's");
            }
        }
    })
    .await;
}

/// By each method, with a provider in place of codes: the person gives the password to the provider, and to nobody else.
#[tokio::test]
async fn a_person_signs_in_at_an_openid_connect_provider() {
    let ada = oidc::Account::new("ada@example.org", "correct horse");
    story_with_provider(&ada, |world| async move {
        for method in [Method::AsWeb, Method::OAuth2] {
            world.set(Mode::Byod, |door| door.account.method = method).await;
            let record = Record::new(hardware::find(IPHONE).unwrap(), "18.5", "22F76", method.as_str()).unwrap();
            let trust = Trust::only(&[]).with_pem(world.authority.pem().unwrap().as_bytes()).unwrap();
            let device = Device::new(record, trust, Behaviour::default()).unwrap();
            let mut device = device.built_by(world.factory.clone());
            let at = Account::new("ada@example.org").discovered_at(&world.server.url(""));
            let wrong = Person::with_password("ada@example.org", "wrong");
            device.enroll_account(&at, simulator::account::Mode::Byod, &wrong).await.unwrap_err();
            let right = Person::with_password("ada@example.org", "correct horse");
            device.enroll_account(&at, simulator::account::Mode::Byod, &right).await.unwrap();
            device.session(ChannelId::DEVICE).await.unwrap();
            let sha256 = Sha256::digest(device.access_token().await.unwrap()).to_vec();
            let token = world.tokens("ada@example.org").await.into_iter().find(|token| token.sha256 == sha256).unwrap();
            assert_eq!((token.method.as_str(), token.state.as_str()), (method.as_str(), "live"));
            assert!(token.enrollment_id.is_some());
            world.later(1);
        }
    })
    .await;
}

#[tokio::test]
async fn service_discovery_refuses_with_apples_words() {
    story(|world| async move {
        let well_known = "/.well-known/com.apple.remotemanagement";
        let refused = async |query: &str| {
            let answer = world.get(&format!("{well_known}?{query}")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{query}");
            assert_eq!(answer.json()["code"], "com.apple.well-known.failed");
        };
        let iphone = "user-identifier=a%40example.org&model-family=iPhone";
        refused(iphone).await;
        world.set(Mode::Byod, |door| door.account.domains = vec!["example.org".into()]).await;
        world.set(Mode::Adde, |door| door.account.model_families = vec!["Mac".into()]).await;
        let version = async |query: &str| {
            world.get(&format!("{well_known}?{query}")).await.json()["Servers"][0]["Version"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(version(iphone).await, "mdm-byod");
        assert_eq!(version("user-identifier=a%40example.com&model-family=Mac").await, "mdm-adde");
        refused("user-identifier=a%40example.com&model-family=iPhone").await;
        refused("user-identifier=a%40example.org&model-family=Watch").await;
        refused("").await;
    })
    .await;
}

/// What a device says of itself must be signed by what Apple built into it; then, too, there is only a challenge.
#[tokio::test]
async fn th_52_a_request_that_proves_no_device_gets_not_even_a_challenge() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let token = world.web_token(Mode::Byod, &world.invite(&world.account("eve"), Mode::Byod).await).await;
        let long_ago = Tampering::SignedAt(world.now().unix_seconds() - 3 * 365 * 86_400);
        for tampering in [Tampering::Unsigned, Tampering::ForeignCa, Tampering::Garbled, long_ago] {
            let body = world.machine_info(Mode::Byod, IPHONE, &tampering);
            for shown in [None, Some(token.as_str())] {
                let answer = world.ask(Mode::Byod, &body, shown).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{tampering:?}");
                assert!(answer.body.is_empty() && answer.header("www-authenticate").is_empty());
            }
        }
        assert_eq!(world.ask(Mode::Byod, b"", None).await.status, StatusCode::BAD_REQUEST);
        assert!(world.refusals().await.iter().any(|why| why == "machine_info_foreign"));

        // By setting the person's word is enough; a broken signature is still none.
        world.set(Mode::Byod, |door| door.account.device_signature = DeviceSignature::Any).await;
        let foreign = world.machine_info(Mode::Byod, IPHONE, &Tampering::ForeignCa);
        assert_eq!(world.ask(Mode::Byod, &foreign, None).await.status, StatusCode::UNAUTHORIZED);
        world.ask(Mode::Byod, &foreign, Some(&token)).await.profile();
        let garbled = world.machine_info(Mode::Byod, IPHONE, &Tampering::Garbled);
        assert_eq!(world.ask(Mode::Byod, &garbled, Some(&token)).await.status, StatusCode::BAD_REQUEST);
    })
    .await;
}

#[tokio::test]
async fn th_51_nobody_gets_a_profile_without_a_good_token() {
    story(|world| async move {
        let body = world.machine_info(Mode::Byod, IPHONE, &Tampering::None);
        assert_eq!(world.ask(Mode::Byod, &body, None).await.status, StatusCode::FORBIDDEN, "the door is closed");
        world.set(Mode::Byod, |_| {}).await;
        let account = world.account("ada");
        let code = world.invite(&account, Mode::Byod).await;
        let token = world.web_token(Mode::Byod, &code).await;

        let refused = async |token: &str, why: &str| {
            let challenge = world.ask(Mode::Byod, &body, Some(token)).await.challenge();
            assert_eq!(challenge["method"], "apple-as-web");
            assert_eq!(world.refusals().await[0], why);
        };
        refused("made-up", "token_unknown").await;
        let shorter = &token[..token.len() - 1];
        refused(shorter, "token_unknown").await;

        // Nobody came for a profile within the hour.
        world.later(3600);
        refused(&token, "token_expired").await;

        // Revoked before it was used.
        let token = world.web_token(Mode::Byod, &code).await;
        world.revoke(&account).await;
        refused(&token, "token_revoked").await;

        // One device came in by it: no second one does.
        let token = world.web_token(Mode::Byod, &code).await;
        world.enroll(Mode::Byod, IPHONE, &token).await;
        refused(&token, "token_other_enrollment").await;
        let before = world.get("/account/byod").await;
        assert_eq!(before.status, StatusCode::METHOD_NOT_ALLOWED, "a GET gives nothing");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_request_voids_the_challenge_of_the_earlier_profile() {
    story(|world| async move {
        world.set(Mode::Adde, |_| {}).await;
        let token = world.web_token(Mode::Adde, &world.invite(&world.account("ada"), Mode::Adde).await).await;
        let body = world.machine_info(Mode::Adde, IPHONE, &Tampering::None);
        let first = world.ask(Mode::Adde, &body, Some(&token)).await.profile();
        assert!(world.is_open(&first).await);
        let second = world.ask(Mode::Adde, &body, Some(&token)).await.profile();
        assert!(!world.is_open(&first).await && world.is_open(&second).await);
    })
    .await;
}

#[tokio::test]
async fn th_54_a_token_of_one_mode_is_nothing_in_the_other() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        world.set(Mode::Adde, |_| {}).await;
        let account = world.account("ada");
        let byod = world.web_token(Mode::Byod, &world.invite(&account, Mode::Byod).await).await;
        let adde = world.web_token(Mode::Adde, &world.invite(&account, Mode::Adde).await).await;
        for (mode, token) in [(Mode::Adde, &byod), (Mode::Byod, &adde)] {
            let body = world.machine_info(mode, IPHONE, &Tampering::None);
            assert_eq!(world.ask(mode, &body, Some(token)).await.status, StatusCode::UNAUTHORIZED);
            assert_eq!(world.refusals().await[0], "token_other_mode");
        }
        // Nor is it one for the enrollment of the other mode, though it is the same person's.
        let device = world.enroll(Mode::Byod, IPHONE, &byod).await;
        assert_eq!(world.idle(&device, "", Some(&adde)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(world.idle(&device, "", Some(&byod)).await.status, StatusCode::OK);
        let unused = world.tokens(&account).await.into_iter().find(|row| row.mode == "adde").unwrap();
        assert_eq!(unused.enrollment_id, None);

        // An invitation for one mode signs nobody in for the other.
        let invited = world.invite(&account, Mode::Byod).await;
        assert_eq!(world.browse("/account/adde/sign-in", &invited).await.header("location"), "");
    })
    .await;
}

#[tokio::test]
async fn th_54_the_token_of_another_enrollment_or_person_opens_nothing() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let (ada, eve) = (world.account("ada"), world.account("eve"));
        let (ada_code, eve_code) = (world.invite(&ada, Mode::Byod).await, world.invite(&eve, Mode::Byod).await);
        let ada_token = world.web_token(Mode::Byod, &ada_code).await;
        let device = world.enroll(Mode::Byod, IPHONE, &ada_token).await;
        let second_token = world.web_token(Mode::Byod, &ada_code).await;
        let second = world.enroll(Mode::Byod, IPHONE, &second_token).await;

        // Another enrollment's, of the same person.
        assert_eq!(world.idle(&device, "", Some(&second_token)).await.status, StatusCode::UNAUTHORIZED);
        // Another person's who has just signed in.
        let eve_token = world.web_token(Mode::Byod, &eve_code).await;
        assert_eq!(world.idle(&device, "", Some(&eve_token)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(world.token_update(&device, "", Some(&eve_token)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(world.tokens(&eve).await[0].enrollment_id, None);
        // Nothing has changed for either.
        assert_eq!(world.idle(&device, "", Some(&ada_token)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&second, "", Some(&second_token)).await.status, StatusCode::OK);
        let filter = store::events::Filter { enrollment: None, kind: Some("account.sign_in_again".into()) };
        let told = store::events::newest(&mut world.store.read().await.unwrap(), &filter, None, 100).await.unwrap();
        assert!(!told.is_empty(), "an operator hears of it");
        assert!(told.iter().all(|event| event.enrollment_id.is_some() && event.data.contains("why")));
    })
    .await;
}

#[tokio::test]
async fn th_54_after_a_revocation_only_the_same_person_goes_on() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let (ada, eve) = (world.account("ada"), world.account("eve"));
        let (ada_code, eve_code) = (world.invite(&ada, Mode::Byod).await, world.invite(&eve, Mode::Byod).await);
        let token = world.web_token(Mode::Byod, &ada_code).await;
        let device = world.enroll(Mode::Byod, IPHONE, &token).await;
        let before = world.enrollment(&device).await;

        world.revoke(&ada).await;
        for shown in [Some(token.as_str()), None] {
            let challenge = world.idle(&device, "", shown).await.challenge();
            assert!(challenge["url"].ends_with("/account/byod/sign-in"));
            assert_eq!(world.token_update(&device, "", shown).await.status, StatusCode::UNAUTHORIZED);
        }
        let eves = world.web_token(Mode::Byod, &eve_code).await;
        assert_eq!(world.idle(&device, "", Some(&eves)).await.status, StatusCode::UNAUTHORIZED);

        let again = world.web_token(Mode::Byod, &ada_code).await;
        assert_eq!(world.idle(&device, "", Some(&again)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, "", Some(&token)).await.status, StatusCode::UNAUTHORIZED);
        let after = world.enrollment(&device).await;
        assert_eq!((after.id, after.generation, after.state), (before.id, before.generation, before.state));
    })
    .await;
}

#[tokio::test]
async fn th_54_a_profile_of_adde_is_for_the_device_that_fetched_it() {
    story(|world| async move {
        world.set(Mode::Adde, |_| {}).await;
        let token = world.web_token(Mode::Adde, &world.invite(&world.account("ada"), Mode::Adde).await).await;
        let body = world.machine_info(Mode::Adde, IPHONE, &Tampering::None);
        let profile = world.ask(Mode::Adde, &body, Some(&token)).await.profile();
        let device = world.device(Mode::Adde, IPHONE, &profile).await;
        let other = account_world::Device {
            key:
                "<key>UDID</key><string>00008110-00000000000000AA</string><key>SerialNumber</key><string>OTHER</string>"
                    .into(),
            ..device.clone()
        };
        assert_eq!(world.authenticate(&other, Some(&token)).await.status, StatusCode::BAD_REQUEST);
        assert_eq!(world.authenticate(&device, Some(&token)).await.status, StatusCode::OK);
    })
    .await;
}

/// A Mac shows its token on user channels only (open question Q12).
#[tokio::test]
async fn a_mac_is_asked_for_its_token_on_the_user_channel_only() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let account = world.account("ada");
        let token = world.web_token(Mode::Byod, &world.invite(&account, Mode::Byod).await).await;
        let body = world.machine_info(Mode::Byod, MAC, &Tampering::None);
        let profile = world.ask(Mode::Byod, &body, Some(&token)).await.profile();
        let device = world.device(Mode::Byod, MAC, &profile).await;
        assert_eq!(world.authenticate(&device, None).await.status, StatusCode::OK);
        assert_eq!(world.token_update(&device, "", None).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, "", None).await.status, StatusCode::OK);

        assert_eq!(world.token_update(&device, USER, Some(&token)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, USER, Some(&token)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, USER, None).await.status, StatusCode::UNAUTHORIZED);
        world.revoke(&account).await;
        assert_eq!(world.idle(&device, USER, Some(&token)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(world.idle(&device, "", None).await.status, StatusCode::OK);
    })
    .await;
}

/// 401 is the end of management where a device does not expect it.
#[tokio::test]
async fn th_12_an_enrollment_that_never_had_a_token_is_not_asked_for_one() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let account = world.account("ada");
        let code = world.invite(&account, Mode::Byod).await;
        let profile = world.profile_without_token(Mode::Byod, &account).await;
        let device = world.device(Mode::Byod, IPHONE, &profile).await;
        assert_eq!(world.authenticate(&device, None).await.status, StatusCode::OK);
        for shown in [None, Some("made-up")] {
            assert_eq!(world.token_update(&device, "", shown).await.status, StatusCode::OK);
            assert_eq!(world.idle(&device, "", shown).await.status, StatusCode::OK);
        }
        // If it comes to have one, it keeps to it.
        let token = world.web_token(Mode::Byod, &code).await;
        assert_eq!(world.idle(&device, "", Some(&token)).await.status, StatusCode::OK);
        assert_eq!(world.idle(&device, "", None).await.status, StatusCode::UNAUTHORIZED);
    })
    .await;
}

#[tokio::test]
async fn th_54_a_code_is_good_once_and_for_whom_it_was_given() {
    story(|world| async move {
        for mode in Mode::ALL {
            world.set(mode, |door| door.account.method = Method::OAuth2).await;
        }
        let (mode, account) = (Mode::Byod, world.account("ada"));
        let invited = world.invite(&account, mode).await;
        let refused = async |answer: account_world::Answer, why: &str| {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(answer.json()["error"], "invalid_grant");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(world.refusals().await[0], why);
        };
        let tokens = async |answer: account_world::Answer| {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(
                (&answer.json()["token_type"], &answer.json()["expires_in"]),
                (&"Bearer".into(), &86_400.into())
            );
            assert_eq!(answer.json()["scope"], "mdm");
            answer.json()["access_token"].as_str().unwrap().to_owned()
        };

        // With PKCE, and what was given is taken back when the code is shown again.
        let pkce = Pkce::new();
        let code = world.code(mode, &invited, Some(&pkce)).await;
        let token = tokens(world.exchange(mode, &code, Some(&pkce)).await).await;
        refused(world.exchange(mode, &code, Some(&pkce)).await, "code_replayed").await;
        let body = world.machine_info(mode, IPHONE, &Tampering::None);
        assert_eq!(world.ask(mode, &body, Some(&token)).await.status, StatusCode::UNAUTHORIZED);

        // A wrong verifier, none, one where none was asked for: and the code is spent.
        let code = world.code(mode, &invited, Some(&pkce)).await;
        refused(world.exchange(mode, &code, Some(&Pkce::new())).await, "code_verifier").await;
        refused(world.exchange(mode, &code, Some(&pkce)).await, "code_replayed").await;
        let code = world.code(mode, &invited, Some(&pkce)).await;
        refused(world.exchange(mode, &code, None).await, "code_verifier").await;
        let code = world.code(mode, &invited, None).await;
        refused(world.exchange(mode, &code, Some(&pkce)).await, "code_verifier").await;

        // Another redirect, another mode, too late, made up.
        let code = world.code(mode, &invited, None).await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", "https://evil.example"),
            ("client_id", "assay"),
        ];
        refused(world.token(mode, &form).await, "code_other_redirect").await;
        let code = world.code(mode, &invited, None).await;
        refused(world.exchange(Mode::Adde, &code, None).await, "code_other_mode").await;
        let code = world.code(mode, &invited, None).await;
        world.later(120);
        refused(world.exchange(mode, &code, None).await, "code_expired").await;
        refused(world.exchange(mode, "made-up", None).await, "code_unknown").await;

        // Who it is not for is told so, and the code is still good.
        let code = world.code(mode, &invited, None).await;
        let form = [("grant_type", "authorization_code"), ("code", code.as_str()), ("client_id", "other")];
        assert_eq!(world.token(mode, &form).await.json()["error"], "invalid_client");
        tokens(world.exchange(mode, &code, None).await).await;
    })
    .await;
}

#[tokio::test]
async fn th_54_a_refresh_token_is_good_once() {
    story(|world| async move {
        let (mode, account) = (Mode::Byod, world.account("ada"));
        world.set(mode, |door| door.account.method = Method::OAuth2).await;
        let invited = world.invite(&account, mode).await;
        let pair = |answer: &account_world::Answer| {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
            (text("access_token"), text("refresh_token"))
        };
        let code = world.code(mode, &invited, None).await;
        let (access, refresh) = pair(&world.exchange(mode, &code, None).await);
        let device = world.enroll(mode, IPHONE, &access).await;

        // The access token ends; the device refreshes, and does not hear the answer to its first try.
        world.later(86_400);
        assert_eq!(world.idle(&device, "", Some(&access)).await.status, StatusCode::UNAUTHORIZED);
        let unheard = pair(&world.refresh(mode, &refresh).await);
        let (second, second_refresh) = pair(&world.refresh(mode, &refresh).await);
        assert_ne!(unheard.0, second);
        assert_eq!(world.idle(&device, "", Some(&second)).await.status, StatusCode::OK);

        // A stolen one is shown later: nothing of the family is good any more.
        let (third, third_refresh) = pair(&world.refresh(mode, &second_refresh).await);
        assert_eq!(world.idle(&device, "", Some(&second)).await.status, StatusCode::OK, "a request was under way");
        assert_eq!(world.idle(&device, "", Some(&third)).await.status, StatusCode::OK);
        let replayed = world.refresh(mode, &second_refresh).await;
        assert_eq!(replayed.json()["error"], "invalid_grant");
        assert_eq!(world.idle(&device, "", Some(&third)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(world.refresh(mode, &third_refresh).await.json()["error"], "invalid_grant");

        // The person signs in again, and the enrollment goes on.
        let code = world.code(mode, &invited, None).await;
        let (again, again_refresh) = pair(&world.exchange(mode, &code, None).await);
        assert_eq!(world.idle(&device, "", Some(&again)).await.status, StatusCode::OK);
        // Not in the other mode, and not as an access token.
        world.set(Mode::Adde, |door| door.account.method = Method::OAuth2).await;
        assert_eq!(world.refresh(Mode::Adde, &again_refresh).await.json()["error"], "invalid_grant");
        assert_eq!(world.idle(&device, "", Some(&again_refresh)).await.status, StatusCode::UNAUTHORIZED);
        pair(&world.refresh(mode, &again_refresh).await);

        // What never became an enrollment's is over after an hour.
        let code = world.code(mode, &invited, None).await;
        let (_, loose) = pair(&world.exchange(mode, &code, None).await);
        world.later(3600);
        assert_eq!(world.refresh(mode, &loose).await.json()["error"], "invalid_grant");
    })
    .await;
}

/// A revocation is not outrun: whichever comes first, nothing of the family is good afterwards.
#[tokio::test]
async fn th_54_a_refresh_at_the_moment_of_a_revocation_gives_nothing_that_lasts() {
    story(|world| async move {
        let mode = Mode::Byod;
        world.set(mode, |door| door.account.method = Method::OAuth2).await;
        for _ in 0..8 {
            let account = world.account("ada");
            let code = world.code(mode, &world.invite(&account, mode).await, None).await;
            let given = world.exchange(mode, &code, None).await.json();
            let refresh = given["refresh_token"].as_str().unwrap();
            tokio::join!(world.refresh(mode, refresh), world.revoke(&account));
            let tokens = world.tokens(&account).await;
            assert!(tokens.iter().all(|token| token.state == "revoked"), "{tokens:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn th_54_a_code_shown_twice_at_once_gives_nothing_that_lasts() {
    story(|world| async move {
        let mode = Mode::Byod;
        world.set(mode, |door| door.account.method = Method::OAuth2).await;
        for _ in 0..8 {
            let account = world.account("ada");
            let code = world.code(mode, &world.invite(&account, mode).await, None).await;
            let (one, two) = tokio::join!(world.exchange(mode, &code, None), world.exchange(mode, &code, None));
            let good = [one.status, two.status].into_iter().filter(|status| *status == StatusCode::OK).count();
            assert_eq!(good, 1);
            assert_eq!(world.tokens(&account).await[0].state, "revoked", "it was taken back");
        }
    })
    .await;
}

/// A device refreshes while its `Authenticate` is under way: what it got belongs to the enrollment too.
#[tokio::test]
async fn a_token_refreshed_during_authenticate_is_the_enrollments() {
    story(|world| async move {
        let mode = Mode::Byod;
        world.set(mode, |door| door.account.method = Method::OAuth2).await;
        for _ in 0..6 {
            let account = world.account("ada");
            let code = world.code(mode, &world.invite(&account, mode).await, None).await;
            let given = world.exchange(mode, &code, None).await.json();
            let text = |name: &str| given[name].as_str().unwrap();
            let body = world.machine_info(mode, IPHONE, &Tampering::None);
            let profile = world.ask(mode, &body, Some(text("access_token"))).await.profile();
            let device = world.device(mode, IPHONE, &profile).await;
            let (admitted, refreshed) = tokio::join!(
                world.authenticate(&device, Some(text("access_token"))),
                world.refresh(mode, text("refresh_token"))
            );
            assert_eq!((admitted.status, refreshed.status), (StatusCode::OK, StatusCode::OK));
            let enrollment = Some(world.enrollment(&device).await.id.0);
            let tokens = world.tokens(&account).await;
            assert_eq!(tokens.len(), 2);
            assert!(tokens.iter().all(|token| token.enrollment_id == enrollment), "{tokens:?}");
            let newest = refreshed.json()["access_token"].as_str().unwrap().to_owned();
            assert_eq!(world.token_update(&device, "", Some(&newest)).await.status, StatusCode::OK);
        }
    })
    .await;
}

/// Nobody begins to sign in at a closed door, but whoever came in before may sign in again.
#[tokio::test]
async fn a_closed_door_lets_those_who_are_in_sign_in_again() {
    story(|world| async move {
        let close = async || world.set(Mode::Adde, |door| door.enabled = false).await;
        world.end_all().await;
        let account = world.account("ada");
        let code = world.invite(&account, Mode::Adde).await;
        assert_eq!(world.browse("/account/adde/sign-in", &code).await.status, StatusCode::FORBIDDEN);
        assert!(world.tokens(&account).await.is_empty());

        world.set(Mode::Adde, |_| {}).await;
        let token = world.web_token(Mode::Adde, &code).await;
        let device = world.enroll(Mode::Adde, IPHONE, &token).await;
        close().await;
        world.later(1);
        world.revoke(&account).await;
        assert_eq!(world.idle(&device, "", Some(&token)).await.status, StatusCode::UNAUTHORIZED);
        let again = world.web_token(Mode::Adde, &code).await;
        assert_eq!(world.idle(&device, "", Some(&again)).await.status, StatusCode::OK);
        // It is nothing for a new device.
        let body = world.machine_info(Mode::Adde, IPHONE, &Tampering::None);
        let unused = world.web_token(Mode::Adde, &code).await;
        assert_eq!(world.ask(Mode::Adde, &body, Some(&unused)).await.status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test]
async fn th_55_the_token_endpoint_has_a_limit_of_its_own() {
    story(|world| async move {
        world.set(Mode::Byod, |door| door.account.method = Method::OAuth2).await;
        for _ in 0..200 {
            assert_eq!(world.refresh(Mode::Byod, "made-up").await.status, StatusCode::BAD_REQUEST);
        }
        assert_eq!(world.refresh(Mode::Byod, "made-up").await.status, StatusCode::TOO_MANY_REQUESTS);
        // Strangers do not fill the database.
        assert!(world.refusals().await.len() <= 100);
        let body = world.machine_info(Mode::Byod, IPHONE, &Tampering::None);
        assert_eq!(world.ask(Mode::Byod, &body, None).await.status, StatusCode::UNAUTHORIZED);
    })
    .await;
}

#[tokio::test]
async fn th_56_nobody_is_sent_where_a_request_says() {
    story(|world| async move {
        let mode = Mode::Byod;
        world.set(mode, |door| door.account.method = Method::OAuth2).await;
        let evil = "https://evil.example/";
        for change in [("redirect_uri", Some(evil)), ("redirect_uri", None), ("client_id", Some("other"))] {
            let answer = world.get(&World::authorize_url(mode, &[change])).await;
            assert_eq!((answer.status, answer.header("location")), (StatusCode::BAD_REQUEST, ""), "{change:?}");
        }
        let answer = world.get(&World::authorize_url(mode, &[("response_type", Some("token"))])).await;
        assert_eq!(answer.given(REDIRECTION, "error").as_deref(), Some("unsupported_response_type"));
        assert_eq!(answer.given(REDIRECTION, "state").as_deref(), Some("st ate"));

        // Nobody signed in in this browser: there is nothing to give, though somebody else just did.
        let account = world.account("ada");
        world.code(mode, &world.invite(&account, mode).await, None).await;
        let answer = world.get("/account/byod/signed-in").await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::BAD_REQUEST, ""));
        let foreign = Request::get("/account/byod/signed-in")
            .header("Cookie", "__Host-assay-sign-in=00000000000000000000000000000000.x")
            .body(axum::body::Body::empty())
            .unwrap();
        assert_eq!(world.send(foreign, None).await.header("location"), "");
        // The page of the other method is not there.
        assert_eq!(world.get("/account/byod/sign-in").await.status, StatusCode::NOT_FOUND);
        assert_eq!(world.get("/account/other/sign-in").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn what_a_browser_gets_is_kept_nowhere() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let code = world.invite(&world.account("ada"), Mode::Byod).await;
        let answer = world.browse("/account/byod/sign-in", &code).await;
        let token = answer.given(RESULTS, "access-token").unwrap();
        assert_eq!(token.len(), 43, "256 bits");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("set-cookie").contains("Max-Age=0"), "the sign-in is over");
    })
    .await;
}

#[tokio::test]
async fn the_door_decides_whom_it_is_for() {
    story(|world| async move {
        let url: url::Url = "https://example.org/sso.json".parse().unwrap();
        world
            .set(Mode::Byod, |door| {
                door.account.domains = vec!["example.com".into()];
                door.account.enrollment_sso_url = Some(url.clone());
            })
            .await;
        let body = world.machine_info(Mode::Byod, IPHONE, &Tampering::None);
        assert_eq!(world.ask(Mode::Byod, &body, None).await.header("x-apple-mdm-esso"), url.as_str());
        // Whatever was typed on the device: who signs in is of another domain.
        let account = world.account("ada");
        let answer = world.browse("/account/byod/sign-in", &world.invite(&account, Mode::Byod).await).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::FORBIDDEN, ""));
        assert!(world.tokens(&account).await.is_empty());
        assert_eq!(world.refusals().await[0], "account_domain");
    })
    .await;
}

#[tokio::test]
async fn th_55_one_account_gets_so_many_profiles_only() {
    story(|world| async move {
        world.set(Mode::Byod, |_| {}).await;
        let body = world.machine_info(Mode::Byod, IPHONE, &Tampering::None);
        let token = world.web_token(Mode::Byod, &world.invite(&world.account("ada"), Mode::Byod).await).await;
        for _ in 0..20 {
            world.ask(Mode::Byod, &body, Some(&token)).await.profile();
        }
        let answer = world.ask(Mode::Byod, &body, Some(&token)).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(!answer.header("retry-after").is_empty());
        // Nobody else is kept out by it.
        let other = world.web_token(Mode::Byod, &world.invite(&world.account("bob"), Mode::Byod).await).await;
        world.ask(Mode::Byod, &body, Some(&other)).await.profile();
        world.later(60);
        world.ask(Mode::Byod, &body, Some(&token)).await.profile();
    })
    .await;
}

#[test]
fn each_mode_has_a_door_of_its_own() {
    assert_eq!(Mode::of(Door::Byod), Some(Mode::Byod));
    assert_eq!(Mode::of(Door::Adde), Some(Mode::Adde));
    assert_eq!(Mode::of(Door::Link), None);
    assert_eq!(Mode::of(Door::Ade), None);
    assert_eq!(Mode::of(Door::Import), None);
}
