//! What a device leaves with a server, and who logs in on it.

use super::*;

/// A server of Macs and Shared iPads: keeps one bootstrap token, knows one network user, holds a login back.
fn keep(request: &Request, kept: &Mutex<Option<Vec<u8>>>) -> Response {
    let body = plist::parse(request.body()).unwrap();
    let done = response(200, "application/xml", Vec::new());
    let answer = |keys: Writer| response(200, "application/xml", keys.document());
    match (body.text("MessageType"), body.text("UserShortName")) {
        (Some("SetBootstrapToken"), _) => {
            *kept.lock().unwrap() = body.get("BootstrapToken").and_then(Value::as_data).map(<[u8]>::to_vec);
            done
        }
        (Some("GetBootstrapToken"), _) => match &*kept.lock().unwrap() {
            Some(token) => answer(Writer::new().data("BootstrapToken", token)),
            None => answer(Writer::new()),
        },
        (Some("UserAuthenticate"), Some("stranger")) => response(410, "text/plain", Vec::new()),
        (Some("UserAuthenticate"), _) => match body.text("DigestResponse") {
            None => answer(Writer::new().string("DigestChallenge", "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"")),
            Some(response) if response.contains("username=\"ada\"") && response.contains("nc=00000001") => {
                answer(Writer::new().string("AuthToken", "t"))
            }
            Some(_) => answer(Writer::new().string("AuthToken", "")),
        },
        (Some("TokenUpdate"), Some("ada")) => {
            assert_eq!(body.text("AuthToken"), Some("t"));
            done
        }
        (Some("TokenUpdate"), Some("pupil@school.example")) => {
            assert_eq!(body.get("AwaitingConfiguration").and_then(Value::as_boolean), Some(true));
            done
        }
        (Some("TokenUpdate"), None) => {
            assert!(body.get("UnlockToken").is_none(), "neither Macs nor Shared iPads have one");
            done
        }
        (None, Some(_)) if body.text("Status") == Some("Idle") => {
            let command = Writer::new().string("RequestType", "UserConfigured");
            answer(Writer::new().string("CommandUUID", "u").dict("Command", &command))
        }
        _ => done,
    }
}

#[tokio::test]
async fn tokens_network_users_and_shared_ipads() {
    use crate::network_user::Login;
    let world = World::new().await;
    let authority = Authority::new("Keeper").unwrap();
    let kept: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let server = Server::start(&authority, move |request| {
        let kept = Arc::clone(&kept);
        async move { keep(&request, &kept) }
    })
    .await
    .unwrap();
    let anchors = openssl::x509::X509::from_pem(authority.pem().unwrap().as_bytes()).unwrap().to_der().unwrap();
    let capabilities = "<array><string>com.apple.mdm.bootstraptoken</string>\
                        <string>com.apple.mdm.per-user-connections</string></array>";
    let more = Writer::new().raw("ServerCapabilities", capabilities);
    let profile = world.profile_with(&server.url("/mdm"), None, &more, Some(&anchors));
    let device = |product: &str, os: &str| {
        let record = Record::new(crate::hardware::find(product).unwrap(), os, "24G84", product).unwrap();
        let device = Device::new(record, world.trust.clone(), Behaviour::default()).unwrap();
        device.attested_by(world.attesting.clone())
    };

    let mut mac = device("Mac16,10", "15.6");
    mac.obtain_identity(&profile).await.unwrap();
    mac.token_update(ChannelId::DEVICE).await.unwrap();
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), None);
    mac.set_bootstrap_token(Some(b"bootstrap")).await.unwrap();
    assert_eq!(mac.get_bootstrap_token().await.unwrap().as_deref(), Some(&b"bootstrap"[..]));
    mac.set_bootstrap_token(None).await.unwrap();
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), None);
    let user = |name: &str| User::of_mac(name, name, name).unwrap();
    assert_eq!(mac.log_in_network_user(user("stranger"), "x").await.unwrap(), Login::NotManaged);
    assert_eq!(mac.log_in_network_user(user("eve"), "x").await.unwrap(), Login::WrongPassword);
    assert_eq!(mac.log_in_network_user(user("ada"), "x").await.unwrap(), Login::Managed(ChannelId(1)));

    let mut pad = device("iPad13,18", "18.1");
    pad.multi_user = true;
    pad.users_wait = true;
    pad.obtain_identity(&profile).await.unwrap();
    pad.token_update(ChannelId::DEVICE).await.unwrap();
    let pupil = pad.open_user_channel(User::of_shared_ipad("pupil@school.example")).await.unwrap();
    assert!(pad.user_awaits_configuration(pupil));
    pad.session(pupil).await.unwrap();
    assert!(!pad.user_awaits_configuration(pupil));
}
