//! Sign-in against a real OpenID Connect server, oidc-provider; `tests/interop/oidc/run` starts this where node is there.

#[path = "../../tests/signin_world/mod.rs"]
mod signin_world;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use mdm_core::time::Clock;
use serde_json::{Value, json};
use signin::ProviderSettings;
use signin_world::{CLIENT, PURPOSES, SECRET, Site};

/// The server as a process; it ends with the test. The other end of its output is held until then, and shown where the test failed.
struct Real(Child, BufReader<ChildStdout>);

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let mut said = String::new();
        if std::thread::panicking() && self.1.read_to_string(&mut said).is_ok() {
            println!("{said}");
        }
    }
}

/// Starts it for this site; gives its issuer.
fn start(site: &Site, folder: &Path, secret: &str, algorithm: &str) -> (Real, String) {
    let pair = site.authority.server().unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, &pair.certificate).unwrap();
    std::fs::write(&key, &pair.key).unwrap();
    let installed = PathBuf::from(std::env::var("ASSAY_INTEROP_OIDC").expect("tests/interop/oidc/run sets it"));
    let mut child = Command::new("node")
        .arg("provider.mjs")
        .args([&certificate, &key])
        .args([&site.url("/sign-in/callback"), CLIENT, secret, algorithm])
        .current_dir(installed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut issuer = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut issuer).unwrap();
    (Real(child, said), issuer.trim().to_owned())
}

/// Goes from the door through the server's login and consent back to the door.
async fn sign_in(site: &Site, purpose: &str, login: &str) -> signin_world::Answer {
    let mut browser = site.browser();
    let mut page = browser.open(&site.url(&format!("/door/{purpose}?hint={login}"))).await.is(200);
    for prompt in ["login", "consent"] {
        assert_eq!(page.between("name=\"prompt\" value=\"", "\""), prompt);
        let action = page.url.join(&page.between("action=\"", "\"")).unwrap();
        let fields = [("prompt", prompt), ("login", login), ("password", "any")];
        let answer = browser.post(action.as_str(), &fields).await;
        page = browser.follow(answer, None).await;
    }
    page
}

/// Everything once with this setting.
async fn story(secret: &str, algorithm: &str, change: impl FnOnce(&mut ProviderSettings)) {
    let folder = tempfile::tempdir().unwrap();
    let database = store::Settings::new(format!("sqlite:{}", folder.path().join("interop.db").display()));
    let site = Site::listen(store::Store::open(&database).await.unwrap(), Clock::System).await;
    let (_real, issuer) = start(&site, folder.path(), secret, algorithm);
    let provider = site.provider(&issuer, change);
    site.open(Some(provider), |settings| settings.per_ip.burst = 1000);
    for purpose in PURPOSES {
        let person = sign_in(&site, purpose.as_str(), "ada@example.org").await.person();
        assert_eq!(person["account"], "ada@example.org");
        assert_eq!(person["for"], purpose.as_str());
        println!("{algorithm}, {}: {person}", if secret.is_empty() { "public client" } else { "client secret" });
    }
    assert_eq!(sign_in(&site, "byod", "eve@example.com").await.is(403).url.path(), "/sign-in/callback");
    assert_eq!(sign_in(&site, "byod", "unverified@example.org").await.is(403).url.path(), "/sign-in/callback");
    assert_eq!(site.refusals().await, ["domain", "not_verified"]);
}

#[tokio::test]
async fn a_confidential_client_with_labels() {
    story(SECRET, "RS256", |settings| {
        settings.rules.label_claim = Some("groups".to_owned());
        settings.rules.labels = vec![("staff".to_owned(), "staff".parse().unwrap())];
    })
    .await;
}

#[tokio::test]
async fn a_public_client_and_elliptic_curves() {
    story("", "ES256", |settings| settings.client_secret = None).await;
}

#[tokio::test]
async fn a_wrong_secret_signs_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let database = store::Settings::new(format!("sqlite:{}", folder.path().join("interop.db").display()));
    let site = Site::listen(store::Store::open(&database).await.unwrap(), Clock::System).await;
    let (_real, issuer) = start(&site, folder.path(), "another secret", "RS256");
    site.open(Some(site.provider(&issuer, |_| ())), |_| ());
    sign_in(&site, "byod", "ada@example.org").await.is(403);
    assert_eq!(site.refusals().await, ["code"]);
    assert_eq!(json!(site.events("sign_in.done").await), Value::Array(Vec::new()));
}
