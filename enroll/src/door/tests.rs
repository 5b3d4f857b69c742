use super::*;

fn acme() -> Acme {
    serde_json::from_str(r#"{"directory_url":"https://ca.example.org/acme/directory"}"#).unwrap()
}

fn with(acme: Acme) -> Settings {
    let identity = Identity { prefer: Prefer::Acme, otherwise: Otherwise::Refuse, acme: Some(acme) };
    Settings { enabled: true, identity, ..Settings::default() }
}

fn fields(door: Door, settings: &Settings) -> Vec<String> {
    settings.check(door).err().into_iter().flatten().map(|wrong| wrong.field).collect()
}

#[test]
fn only_links_are_open_before_anybody_set_a_door() {
    for (door, open) in [(Door::Link, true), (Door::Ade, false), (Door::Byod, false), (Door::Adde, false)] {
        let settings = Settings::of(door);
        assert_eq!(settings.enabled, open, "{door}");
        assert_eq!(settings.check(door), Ok(()), "{door}");
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    }
}

#[test]
fn what_a_door_can_not_be_is_named_by_its_field() {
    assert_eq!(fields(Door::Ade, &with(acme())), [""; 0]);
    assert_eq!(fields(Door::Link, &with(acme())), ["identity.otherwise"]);
    let none = Settings { identity: Identity { prefer: Prefer::Acme, ..Identity::default() }, ..Settings::default() };
    assert_eq!(fields(Door::Ade, &none), ["identity.acme"]);
    let wrong = |acme: Acme| fields(Door::Ade, &with(acme));
    assert_eq!(wrong(Acme { directory_url: "http://a.b".into(), ..acme() }), ["identity.acme.directory_url"]);
    assert_eq!(wrong(Acme { key_type: "DSA".into(), ..acme() }), ["identity.acme.key_type"]);
    assert_eq!(wrong(Acme { key_size: 521, ..acme() }), ["identity.acme.hardware_bound"]);
    assert_eq!(wrong(Acme { key_size: 512, ..acme() }), ["identity.acme.key_size"]);
    assert_eq!(wrong(Acme { hardware_bound: Wish::Never, ..acme() }), ["identity.acme.attest"]);
    assert_eq!(wrong(Acme { attest: Wish::Never, ..acme() }), ["identity.acme.ca_accepts_unattested"]);
    assert_eq!(wrong(Acme { issuers: vec!["x".into()], ..acme() }), ["identity.acme.issuers"]);
    let by_serial = Acme { client_identifier: ClientIdentifier::Serial, ..acme() };
    assert_eq!(wrong(by_serial.clone()), [""; 0]);
    assert_eq!(fields(Door::Byod, &with(by_serial)), ["identity.acme.client_identifier"]);

    let scep = Settings { require: Require::Attestation, ..Settings::default() };
    assert_eq!(fields(Door::Ade, &scep), ["identity.prefer"]);
    assert_eq!(fields(Door::Link, &scep), ["require", "identity.prefer"][..1]);
    let old = MinimumOs { os_version: "x".into(), build_version: None, cannot_update: CannotUpdate::Refuse };
    let minimum = Settings { minimum_os: BTreeMap::from([(Platform::Ios, old)]), ..Settings::default() };
    assert_eq!(fields(Door::Ade, &minimum), ["minimum_os"]);
    assert_eq!(fields(Door::Ade, &Settings { attempts_per_hour: 0, ..Settings::default() }), ["attempts_per_hour"]);
    assert_eq!(fields(Door::Byod, &Settings { sign_in: true, ..Settings::default() }), ["sign_in"]);
}

#[test]
fn a_misspelt_setting_is_not_taken_for_its_default() {
    for text in [r#"{"enable":true}"#, r#"{"identity":{"prefers":"acme"}}"#, r#"{"minimum_os":{"iphone":{}}}"#] {
        assert!(serde_json::from_str::<Settings>(text).is_err(), "{text}");
    }
    let text = r#"{"minimum_os":{"iOS":{"os_version":"17.5"}},"require":"sign_in"}"#;
    let read: Settings = serde_json::from_str(text).unwrap();
    assert!(read.asks_for_sign_in(Door::Ade));
}
