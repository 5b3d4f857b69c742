//! Who a person is: sign-in at an OpenID Connect provider and by invitation code, on both databases, each story twice.

#[cfg(test)]
mod signin_world;

use std::future::Future;
use std::time::Duration;

use mdm_core::random::Random;
use mdm_core::rate::Rate;
use mdm_core::time::{Clock, Timestamp};
use serde_json::{Value, json};
use signin::invitation::{self, Mode, NewInvitation};
use signin::{AccountClaim, ProviderSettings, Settings};
use signin_world::{Answer, Browser, CLIENT, PURPOSES, SECRET, Site};
use simulator::oidc::{Account, Algorithm, Fault, Provider};
use store::Store;

/// When the stories begin.
const START: Timestamp = Timestamp(1_795_320_000_000);

/// Tells the story on both databases, twice in a row on each.
async fn stories<F: Future<Output = ()>>(story: impl Fn(Store) -> F) {
    mdm_tests::on_both(|store| {
        let (first, second) = (story(store.clone()), story(store));
        async {
            first.await;
            second.await;
        }
    })
    .await;
}

/// A site with a provider where Ada, Bob and Eve can log in.
struct World {
    site: Site,
    provider: Provider,
}

impl std::ops::Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

fn people() -> Vec<Account> {
    vec![
        Account::new("ada@example.org", "lovelace").with("groups", json!(["staff", "crew"])),
        Account::new("bob@example.org", "builder").with("upn", json!("bob.b@EXAMPLE.org")),
        Account::new("eve@evil.example.com", "evil"),
        Account::new("guest@example.org", "guest").with("email_verified", json!(false)),
    ]
}

impl World {
    async fn new(store: Store) -> Self {
        Self::with(store, Algorithm::Rs256, |_| (), |_| ()).await
    }

    async fn with(
        store: Store,
        algorithm: Algorithm,
        change: impl FnOnce(&mut ProviderSettings),
        settings: impl FnOnce(&mut Settings),
    ) -> Self {
        let site = Site::listen(store, Clock::fixed(START)).await;
        let provider = simulator::oidc::Settings {
            client_id: CLIENT.to_owned(),
            client_secret: Some(SECRET.to_owned()),
            redirect_uri: site.url("/sign-in/callback"),
            people: people(),
            algorithm,
            claims_in_id_token: true,
            now: Some(START.unix_seconds()),
        };
        let provider = Provider::start(&site.authority, provider).await.unwrap();
        site.open(Some(site.provider(&provider.issuer(), change)), settings);
        Self { site, provider }
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.provider.set_time(self.clock.now().unix_seconds());
    }

    /// Goes to the door and to the provider's login form.
    async fn to_form(&self, browser: &mut Browser, purpose: &str) -> Answer {
        let form = browser.open(&self.url(&format!("/door/{purpose}"))).await;
        assert!(form.text().contains("Log in"), "{}", form.text());
        form
    }

    /// Logs in, and stops before the browser comes back; gives the URL that it would come back to.
    async fn log_in(&self, browser: &mut Browser, purpose: &str, login: &str, password: &str) -> String {
        let form = self.to_form(browser, purpose).await;
        let number = form.between("name=\"request\" value=\"", "\"");
        let fields = [("request", number.as_str()), ("login", login), ("password", password)];
        let answer = browser.post(&format!("{}/login", self.provider.issuer()), &fields).await;
        let back: String = answer.location().into();
        assert!(back.starts_with(&self.url("/sign-in/callback?")), "{back}");
        back
    }

    async fn ada(&self, browser: &mut Browser, purpose: &str) -> String {
        self.log_in(browser, purpose, "ada@example.org", "lovelace").await
    }

    /// Signs Ada in to the end and says whom the door got.
    async fn person(&self, purpose: &str, login: &str, password: &str) -> Value {
        let mut browser = self.browser();
        let back = self.log_in(&mut browser, purpose, login, password).await;
        browser.open(&back).await.person()
    }
}

#[tokio::test]
async fn a_person_signs_in_at_the_provider_for_each_purpose_and_is_taken_once() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        stories(|store| async move {
            let world = World::with(store, algorithm, |_| (), |_| ()).await;
            let before = world.events("sign_in.done").await.len();
            for purpose in PURPOSES {
                let mut browser = world.browser();
                let back = world.ada(&mut browser, purpose.as_str()).await;
                let arrived = browser.get(&back).await;
                assert_eq!(arrived.status, 303);
                assert_eq!(arrived.headers["location"], purpose.return_path());
                let end = browser.open(&back.replace(&back, &world.url(purpose.return_path()))).await;
                assert_eq!(
                    end.person(),
                    json!({ "account": "ada@example.org", "label": null, "for": purpose.as_str() })
                );
                let again = browser.get(&world.url(purpose.return_path())).await;
                assert_eq!((again.status, again.text().as_str()), (403, "nobody"));
            }
            let done = world.events("sign_in.done").await;
            assert_eq!(done.len() - before, PURPOSES.len());
            assert_eq!(world.provider.discovered(), 1, "what the provider says of itself is kept");
        })
        .await;
    }
}

#[tokio::test]
async fn th_54_who_signed_in_for_one_door_is_nobody_at_another() {
    stories(|store| async move {
        let world = World::new(store).await;
        let mut browser = world.browser();
        let back = world.ada(&mut browser, "byod").await;
        browser.get(&back).await.is(303);
        for other in ["/account/adde/signed-in", "/ade/signed-in", "/enroll/signed-in"] {
            browser.get(&world.url(other)).await.is(403);
        }
        assert_eq!(browser.get(&world.url("/account/byod/signed-in")).await.person()["account"], "ada@example.org");
    })
    .await;
}

#[tokio::test]
async fn th_56_a_state_belongs_to_the_browser_that_it_was_made_for() {
    stories(|store| async move {
        let world = World::new(store).await;
        let before = world.refusals().await.len();
        // Eve logs in and makes Ada's browser come back with Eve's state and code, or the other way round.
        let (mut ada, mut eve) = (world.browser(), world.browser());
        let back = world.ada(&mut ada, "byod").await;
        world.to_form(&mut eve, "byod").await;
        let answer = eve.get(&back).await.is(403);
        assert!(answer.text().contains("You are not signed in"));
        eve.get(&world.url("/account/byod/signed-in")).await.is(403);
        // A browser without any sign-in, and one that makes up a cookie.
        world.browser().get(&back).await.is(403);
        assert_eq!(world.refusals().await.split_off(before), ["other_browser"], "nothing is written for strangers");
        // None of them could use the state up.
        assert_eq!(ada.open(&back).await.person()["account"], "ada@example.org");
    })
    .await;
}

#[tokio::test]
async fn th_56_a_callback_works_once_and_only_with_a_state_that_was_given_out() {
    stories(|store| async move {
        let world = World::new(store).await;
        let before = world.refusals().await.len();
        let mut browser = world.browser();
        let back = world.ada(&mut browser, "ade").await;
        let code = back.split("code=").nth(1).unwrap();
        for wrong in ["", "?code=x", "?state=x&code=x", "?state=&code=x", "?state=a&state=b", "?error=access_denied"] {
            browser.get(&world.url(&format!("/sign-in/callback{wrong}"))).await.is(403);
        }
        browser.get(&world.url(&format!("/sign-in/callback?state=made-up&code={code}"))).await.is(403);
        browser.get(&back).await.is(303);
        browser.get(&back).await.is(403);
        assert_eq!(browser.get(&world.url("/ade/signed-in")).await.person()["account"], "ada@example.org");
        let refusals = world.refusals().await.split_off(before);
        let unknown = |n: usize| refusals[n] == "unknown_state";
        assert_eq!(refusals.len(), 8);
        assert!(unknown(2) && unknown(6) && unknown(7), "{refusals:?}");
        assert!([0, 1, 4, 5].iter().all(|n| refusals[*n] == "malformed"), "{refusals:?}");
    })
    .await;
}

#[tokio::test]
async fn th_56_a_second_visit_to_the_provider_voids_the_state_of_the_first() {
    stories(|store| async move {
        let world = World::new(store).await;
        let mut browser = world.browser();
        let start = browser.get(&world.url("/door/link")).await.location();
        let first = browser.get(start.as_str()).await.location();
        let second = browser.get(start.as_str()).await.location();
        let part = |url: &url::Url, name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        for name in ["state", "nonce", "code_challenge"] {
            assert_ne!(part(&first, name), part(&second, name), "{name}");
        }
        assert_eq!(part(&first, "code_challenge_method"), "S256");
        assert_eq!(part(&first, "redirect_uri"), world.url("/sign-in/callback"));
        let old = format!("/sign-in/callback?code=x&state={}", part(&first, "state"));
        browser.get(&world.url(&old)).await.is(403);
        // Ten tries, then it must be begun anew.
        for _ in 2..10 {
            browser.get(start.as_str()).await.is(303);
        }
        browser.get(start.as_str()).await.is(429);
        browser.get(&world.url("/door/link")).await.is(302);
    })
    .await;
}

#[tokio::test]
async fn th_56_an_authorization_code_of_another_sign_in_is_not_taken() {
    stories(|store| async move {
        let world = World::new(store).await;
        let before = world.refusals().await.len();
        // Eve's code, put into Ada's callback: the PKCE verifier of Ada's sign-in does not fit it.
        let (mut ada, mut eve) = (world.browser(), world.browser());
        let hers = world.ada(&mut ada, "byod").await;
        let eves = world.log_in(&mut eve, "byod", "bob@example.org", "builder").await;
        let code = |url: &str| url.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        ada.get(&hers.replace(&code(&hers), &code(&eves))).await.is(403);
        assert_eq!(world.refusals().await.split_off(before), ["code"]);
        ada.get(&world.url("/account/byod/signed-in")).await.is(403);
    })
    .await;
}

/// What a provider may do wrong, and what is said of it; the first of them depend on how it signs.
const FAULTS: [(Fault, &str); 14] = [
    (Fault::Signature, "signature"),
    (Fault::Unsigned, "signature"),
    (Fault::Hmac, "signature"),
    (Fault::Nonce, "nonce"),
    (Fault::NoNonce, "nonce"),
    (Fault::Audience, "audience"),
    (Fault::TwoAudiences, "audience"),
    (Fault::Issuer, "issuer"),
    (Fault::Expired, "time"),
    (Fault::NotYet, "time"),
    (Fault::AccessToken, "id_token"),
    (Fault::State, "unknown_state"),
    (Fault::Iss, "other_issuer"),
    (Fault::Denied, "provider_said_no"),
];

#[tokio::test]
async fn th_56_an_id_token_that_is_not_right_signs_nobody_in() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        stories(|store| async move {
            let world = World::with(store, algorithm, |_| (), |settings| settings.per_ip.burst = 1000).await;
            let faults = if algorithm == Algorithm::Rs256 { FAULTS.as_slice() } else { &FAULTS[..3] };
            for &(fault, reason) in faults {
                world.provider.set_fault(fault);
                let mut browser = world.browser();
                let back = world.ada(&mut browser, "adde").await;
                browser.get(&back).await.is(403);
                assert_eq!(world.refusals().await.last().unwrap(), reason, "{fault:?}");
                browser.get(&world.url("/account/adde/signed-in")).await.is(403);
                // The browser cannot try the same answer again.
                world.provider.set_fault(Fault::None);
                browser.get(&back).await.is(403);
            }
            assert_eq!(world.person("adde", "ada@example.org", "lovelace").await["account"], "ada@example.org");
        })
        .await;
    }
}

#[tokio::test]
async fn th_56_nothing_in_a_request_says_where_the_browser_goes() {
    stories(|store| async move {
        let world = World::new(store).await;
        let mut browser = world.browser();
        let evil = "https%3A%2F%2Fevil.example";
        let start = browser.get(&world.url(&format!("/door/byod?hint={evil}&next={evil}&redirect_uri={evil}"))).await;
        assert!(start.location().as_str().starts_with(&world.url("/sign-in/provider/")));
        let form = browser.follow(start, None).await;
        assert!(form.url.as_str().starts_with(&world.provider.issuer()));
        let number = form.between("name=\"request\" value=\"", "\"");
        let fields = [("request", number.as_str()), ("login", "ada@example.org"), ("password", "lovelace")];
        let back = browser.post(&format!("{}/login", world.provider.issuer()), &fields).await.location();
        let more = format!("{back}&redirect_uri={evil}&next={evil}&return_to={evil}&purpose=link");
        let arrived = browser.get(&more).await.is(303);
        assert_eq!(arrived.headers["location"], "/account/byod/signed-in");
    })
    .await;
}

#[tokio::test]
async fn the_cookie_and_the_pages_are_closed_to_others() {
    stories(|store| async move {
        let world = World::with(store, Algorithm::Rs256, |_| (), |settings| settings.invitations = true).await;
        let mut browser = world.browser();
        let begun = browser.get(&world.url("/door/byod")).await;
        let cookie = begun.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.starts_with("__Host-assay-sign-in="), "{cookie}");
        for part in ["Path=/", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=1200"] {
            assert!(cookie.split("; ").any(|p| p == part), "{part}: {cookie}");
        }
        assert!(signin::forget().contains("Max-Age=0"));
        let page = browser.follow(begun, None).await.is(200);
        assert!(page.headers["content-security-policy"].to_str().unwrap().contains("script-src 'none'"));
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        assert_eq!(page.headers["cache-control"], "no-store");
        assert!(!page.text().contains("<script") && page.text().contains("/enroll/style.css"));
        // With a provider there as well, the page leads to both.
        assert!(page.text().contains("/sign-in/provider/"));
        // Somebody else's sign-in shows nothing.
        world.browser().get(page.url.as_str()).await.is(403);
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_ends_after_its_time_and_is_forgotten_a_day_later() {
    stories(|store| async move {
        let world = World::new(store).await;
        let mut browser = world.browser();
        let back = world.ada(&mut browser, "byod").await;
        world.advance(Duration::from_mins(20));
        browser.get(&back).await.is(403);
        // Signed in, but never taken.
        let back = world.ada(&mut browser, "byod").await;
        browser.get(&back).await.is(303);
        world.advance(Duration::from_mins(20));
        browser.get(&world.url("/account/byod/signed-in")).await.is(403);
        world.advance(Duration::from_hours(25));
        assert!(signin::clean_up(&world.store, world.clock.now()).await.unwrap() >= 2);
        assert_eq!(signin::clean_up(&world.store, world.clock.now()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn only_verified_accounts_of_allowed_domains_get_in() {
    stories(|store| async move {
        let world = World::new(store).await;
        for (login, password, reason) in
            [("eve@evil.example.com", "evil", "domain"), ("guest@example.org", "guest", "not_verified")]
        {
            let mut browser = world.browser();
            let back = world.log_in(&mut browser, "byod", login, password).await;
            let answer = browser.get(&back).await.is(403);
            assert!(!answer.text().contains(login));
            assert_eq!(world.refusals().await.last().unwrap(), reason);
        }
    })
    .await;
}

#[tokio::test]
async fn another_claim_and_a_label_by_group_also_by_user_info() {
    let change = |settings: &mut ProviderSettings| {
        settings.rules.account = AccountClaim::named("upn");
    };
    stories(|store| async move {
        let world = World::with(store, Algorithm::Rs256, change, |_| ()).await;
        assert_eq!(world.person("byod", "bob@example.org", "builder").await["account"], "bob.b@example.org");
    })
    .await;
    let change = |settings: &mut ProviderSettings| {
        settings.rules.label_claim = Some("groups".to_owned());
        settings.rules.labels = vec![("crew".to_owned(), "pilot".parse().unwrap())];
    };
    stories(|store| async move {
        let world = World::with(store, Algorithm::Es256, change, |_| ()).await;
        for in_id_token in [true, false] {
            world.provider.set_claims_in_id_token(in_id_token);
            let person = world.person("ade", "ada@example.org", "lovelace").await;
            assert_eq!(person, json!({ "account": "ada@example.org", "label": "pilot", "for": "ade" }));
        }
        assert_eq!(world.person("ade", "bob@example.org", "builder").await["label"], Value::Null);
        // UserInfo must be about the person of the ID token (OpenID Connect Core 1.0, 5.3.2).
        world.provider.set_fault(Fault::OtherSubject);
        let mut browser = world.browser();
        let back = world.ada(&mut browser, "ade").await;
        browser.get(&back).await.is(503);
        browser.get(&world.url("/ade/signed-in")).await.is(403);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_changes_its_keys_or_is_away_for_a_while_is_no_reason_to_stop() {
    stories(|store| async move {
        let world = World::new(store).await;
        world.person("link", "ada@example.org", "lovelace").await;
        world.provider.change_key().unwrap();
        world.advance(Duration::from_mins(2));
        world.person("link", "ada@example.org", "lovelace").await;
        assert_eq!(world.provider.discovered(), 2);
        world.advance(Duration::from_hours(1));
        world.person("link", "ada@example.org", "lovelace").await;
        assert_eq!(world.provider.discovered(), 3);
        // It is gone; what was known of it leads to it for a day, then the page says that it does not work.
        let World { site, provider } = world;
        drop(provider);
        let mut browser = site.browser();
        let start = browser.get(&site.url("/door/link")).await.location();
        site.clock.advance(Duration::from_hours(2));
        let mut browser = site.browser();
        browser.get(start.as_str()).await.is(403);
        let start = browser.get(&site.url("/door/link")).await.location();
        browser.get(start.as_str()).await.is(303);
        site.clock.advance(Duration::from_hours(30));
        let start = browser.get(&site.url("/door/link")).await.location();
        browser.get(start.as_str()).await.is(503);
    })
    .await;
}

#[tokio::test]
async fn without_a_provider_and_without_codes_nobody_signs_in() {
    stories(|store| async move {
        let site = Site::listen(store, Clock::fixed(START)).await;
        site.open(None, |_| ());
        for purpose in PURPOSES {
            site.browser().get(&site.url(&format!("/door/{}", purpose.as_str()))).await.is(404);
        }
        site.browser().get(&site.url("/sign-in/callback?state=x&code=x")).await.is(404);
    })
    .await;
}

/// A site without a provider that takes codes.
async fn codes(store: Store, change: impl FnOnce(&mut Settings)) -> Site {
    let site = Site::listen(store, Clock::fixed(START)).await;
    site.open(None, |settings| {
        settings.invitations = true;
        change(settings);
    });
    site
}

fn new(account: &str) -> NewInvitation {
    NewInvitation {
        managed_apple_account: account.to_owned(),
        mode: Mode::Byod,
        note: String::new(),
        label: Some("pilot".parse().unwrap()),
        max_uses: 1,
        ttl: invitation::DEFAULT_LIFE,
        created_by: "test".to_owned(),
    }
}

async fn invite(site: &Site, new: &NewInvitation) -> (uuid::Uuid, String) {
    let mut tx = site.store.begin().await.unwrap();
    let (id, code) = invitation::create(&mut tx, new, &Random::System, site.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    (id, code.expose().clone())
}

/// Begins at the door and types this code.
async fn type_code(site: &Site, browser: &mut Browser, door: &str, code: &str) -> Answer {
    let form = browser.open(&site.url(&format!("/door/{door}"))).await.is(200);
    browser.post(form.url.as_str(), &[("code", code)]).await
}

#[tokio::test]
async fn a_code_signs_its_account_in_as_often_as_it_says() {
    stories(|store| async move {
        let site = codes(store, |_| ()).await;
        let (_, code) = invite(&site, &NewInvitation { max_uses: 2, ..new("ada@example.org") }).await;
        for typed in [code.clone(), code.to_lowercase().replace('-', " ")] {
            let mut browser = site.browser();
            let answer = type_code(&site, &mut browser, "byod", &typed).await.is(303);
            assert_eq!(answer.headers["location"], "/account/byod/signed-in");
            let person = browser.follow(answer, None).await.person();
            assert_eq!(person, json!({ "account": "ada@example.org", "label": "pilot", "for": "byod" }));
        }
        let answer = type_code(&site, &mut site.browser(), "byod", &code).await.is(200);
        assert!(answer.text().contains("does not work here"));
        // Links and Automated Device Enrollment take no codes.
        for door in ["link", "ade"] {
            site.browser().get(&site.url(&format!("/door/{door}"))).await.is(404);
        }
    })
    .await;
}

#[tokio::test]
async fn th_54_a_code_is_for_one_account_and_one_mode() {
    stories(|store| async move {
        let site = codes(store, |_| ()).await;
        let (_, code) = invite(&site, &new("ada@example.org")).await;
        type_code(&site, &mut site.browser(), "adde", &code).await.is(200);
        type_code(&site, &mut site.browser(), "byod?hint=bob@example.org", &code).await.is(200);
        let refusals = site.refusals().await;
        assert!(refusals.ends_with(&["other_mode".to_owned(), "other_account".to_owned()]), "{refusals:?}");
        type_code(&site, &mut site.browser(), "byod?hint=Ada@Example.org", &code).await.is(303);
    })
    .await;
}

#[tokio::test]
async fn th_55_whatever_is_wrong_with_a_code_the_answer_is_the_same() {
    stories(|store| async move {
        let site = codes(store, |settings| settings.codes_per_ip.burst = 100).await;
        let short = NewInvitation { ttl: Duration::from_secs(60), ..new("ada@example.org") };
        let (_, expired) = invite(&site, &short).await;
        site.clock.advance(Duration::from_secs(60));
        let (id, revoked) = invite(&site, &new("ada@example.org")).await;
        let mut tx = site.store.begin().await.unwrap();
        assert!(invitation::revoke(&mut tx, id, site.clock.now()).await.unwrap());
        assert!(!invitation::revoke(&mut tx, id, site.clock.now()).await.unwrap());
        tx.commit().await.unwrap();
        let (_, used) = invite(&site, &new("ada@example.org")).await;
        type_code(&site, &mut site.browser(), "byod", &used).await.is(303);
        let (_, other_mode) = invite(&site, &NewInvitation { mode: Mode::Adde, ..new("ada@example.org") }).await;
        let (_, other_account) = invite(&site, &new("bob@example.org")).await;
        let mut answers = Vec::new();
        let unknown = "0000-0000-0000-0000".to_owned();
        let long = "A".repeat(2000);
        for code in [unknown, String::new(), long, expired, revoked, used, other_mode, other_account] {
            let mut browser = site.browser();
            let form = browser.open(&site.url("/door/byod?hint=ada@example.org")).await;
            let id = form.url.path_segments().unwrap().next_back().unwrap().to_owned();
            let answer = browser.post(form.url.as_str(), &[("code", &code)]).await.is(200);
            answers.push((answer.text().replace(&id, "ID"), answer.headers["content-security-policy"].clone()));
            browser.get(&site.url("/account/byod/signed-in")).await.is(403);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    })
    .await;
}

#[tokio::test]
async fn th_55_guessing_is_slowed_down_but_nobody_is_locked_out() {
    stories(|store| async move {
        let site = codes(store, |settings| {
            settings.per_ip = Rate { burst: 10_000, per_second: 100.0 };
        })
        .await;
        let (_, code) = invite(&site, &new("ada@example.org")).await;
        // Eve guesses in Ada's name, in one sign-in after another, until her address has no tries left.
        let mut allowed = 0;
        for _ in 0..3 {
            let mut eve = Browser { from: "198.51.100.7", ..site.browser() };
            let form = eve.open(&site.url("/door/byod?hint=ada@example.org")).await;
            for guess in 0..12 {
                let answer = eve.post(form.url.as_str(), &[("code", &format!("GUESS-{guess}"))]).await;
                assert!(matches!(answer.status, 200 | 429), "{}", answer.status);
                allowed += usize::from(answer.status == 200);
            }
        }
        assert_eq!(allowed, 10);
        // Ada comes from elsewhere, and Eve's noise is not in her way.
        type_code(&site, &mut site.browser(), "byod?hint=ada@example.org", &code).await.is(303);
        // Neither is Eve locked out for ever.
        site.clock.advance(Duration::from_mins(1));
        let mut eve = Browser { from: "198.51.100.7", ..site.browser() };
        type_code(&site, &mut eve, "byod", "ANOTHER").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn strangers_cannot_fill_the_event_log_with_refusals() {
    stories(|store| async move {
        let site = codes(store, |settings| {
            let freely = Rate { burst: 10_000, per_second: 100.0 };
            (settings.per_ip, settings.codes_per_ip, settings.codes_together) = (freely, freely, freely);
        })
        .await;
        let before = site.refusals().await.len();
        for _ in 0..4 {
            let mut browser = site.browser();
            let form = browser.open(&site.url("/door/byod")).await;
            for _ in 0..9 {
                browser.post(form.url.as_str(), &[("code", "WRONG")]).await.is(200);
            }
        }
        assert_eq!(site.refusals().await.len() - before, 20);
        // After a minute it is heard again.
        site.clock.advance(Duration::from_mins(1));
        type_code(&site, &mut site.browser(), "byod", "WRONG").await.is(200);
        assert_eq!(site.refusals().await.len() - before, 21);
    })
    .await;
}

#[tokio::test]
async fn a_trial_says_so_on_the_pages_of_the_sign_in_too() {
    stories(|store| async move {
        let site = codes(store, |settings| settings.pilot = true).await;
        let page = site.browser().open(&site.url("/door/byod")).await.is(200);
        assert!(page.text().contains("class=\"banner\""), "{}", page.text());
    })
    .await;
}

#[tokio::test]
async fn th_55_many_addresses_together_are_slowed_down_too() {
    stories(|store| async move {
        let site = codes(store, |settings| {
            settings.codes_per_account = Rate { burst: 3, per_second: 0.5 };
            settings.codes_together = Rate { burst: 5, per_second: 4.0 };
        })
        .await;
        let addresses = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7"];
        let mut answers = Vec::new();
        for from in &addresses[..4] {
            let mut browser = Browser { from, ..site.browser() };
            answers.push(type_code(&site, &mut browser, "byod?hint=ada@example.org", "X").await.status);
        }
        assert_eq!(answers, [200, 200, 200, 429], "one account");
        answers.clear();
        for from in &addresses[3..] {
            let mut browser = Browser { from, ..site.browser() };
            answers.push(type_code(&site, &mut browser, "byod", "X").await.status);
        }
        assert_eq!(answers, [200, 200, 429], "all together");
        // Soon there is room again.
        site.clock.advance(Duration::from_secs(2));
        type_code(&site, &mut site.browser(), "byod?hint=ada@example.org", "X").await.is(200);
    })
    .await;
}

#[tokio::test]
async fn one_use_is_taken_once_however_many_try_at_once_and_a_revoked_code_ends_what_it_began() {
    stories(|store| async move {
        let site = codes(store, |_| ()).await;
        let (_, code) = invite(&site, &new("ada@example.org")).await;
        let tries = futures_util::future::join_all((0..6).map(|_| async {
            let mut browser = site.browser();
            type_code(&site, &mut browser, "byod", &code).await.status
        }));
        assert_eq!(tries.await.into_iter().filter(|status| *status == 303).count(), 1);
        let (id, code) = invite(&site, &new("ada@example.org")).await;
        let mut browser = Browser { from: "192.0.2.9", ..site.browser() };
        type_code(&site, &mut browser, "byod", &code).await.is(303);
        let mut tx = site.store.begin().await.unwrap();
        invitation::revoke(&mut tx, id, site.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        browser.get(&site.url("/account/byod/signed-in")).await.is(403);
    })
    .await;
}

#[tokio::test]
async fn nothing_that_is_secret_is_stored_in_clear() {
    stories(|store| async move {
        let world = World::new(store).await;
        let mut browser = world.browser();
        let begun = browser.get(&world.url("/door/byod?hint=ada@example.org")).await;
        let cookie = begun.headers["set-cookie"].to_str().unwrap().split(['=', ';', '.']).nth(2).unwrap().to_owned();
        let id = begun.location().path_segments().unwrap().next_back().unwrap().parse().unwrap();
        let at_provider = browser.get(begun.location().as_str()).await.location();
        let mut tx = world.store.read().await.unwrap();
        let row = store::sign_ins::get(&mut tx, id).await.unwrap().unwrap();
        let shown = format!("{row:?}");
        let stored = [row.state_sha256, row.browser_sha256, row.secrets_sealed].concat();
        for (name, value) in at_provider.query_pairs().filter(|(name, _)| matches!(&**name, "state" | "nonce")) {
            assert!(!shown.contains(&*value) && !stored.windows(value.len()).any(|w| w == value.as_bytes()), "{name}");
        }
        assert!(cookie.len() == 43 && !shown.contains(&cookie) && !stored.windows(43).any(|w| w == cookie.as_bytes()));
    })
    .await;
}
