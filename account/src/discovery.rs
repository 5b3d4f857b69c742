//! Service discovery: which mode an account is offered on a kind of device.
//!
//! Source: Apple, "Discover authentication servers" (`/.well-known/com.apple.remotemanagement`), `well-known.failed`.

use enroll::door::Settings;
use serde::Serialize;
use url::form_urlencoded;

use crate::Mode;

/// What a device says when it asks. A redirect on the way may have lost it: Apple's devices do not add it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `user-identifier` from its last `@` on, in lower case.
    pub(crate) domain: Option<String>,
    /// `model-family`.
    pub(crate) family: Option<String>,
}

impl Asked {
    /// Reads the query; what is too long to be an account or a kind of device is not looked at.
    pub(crate) fn from_query(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "user-identifier" => asked.domain = domain(&value),
                "model-family" if value.len() <= 32 => asked.family = Some(value.into_owned()),
                _ => {}
            }
        }
        asked
    }
}

/// The domain of an account: what stands after the last `@`, in lower case.
pub(crate) fn domain(account: &str) -> Option<String> {
    let (name, domain) = account.rsplit_once('@')?;
    (account.len() <= 320 && !name.is_empty() && !domain.is_empty()).then(|| domain.to_ascii_lowercase())
}

/// Which mode is offered: of the doors that are open and fit, the one that names the account's domain, else the one that names the
/// kind of device, else User Enrollment, which asks the least of a person.
pub(crate) fn choose(doors: &[(Mode, Settings)], asked: &Asked) -> Option<Mode> {
    let mut best: Option<(u8, Mode)> = None;
    for (mode, settings) in doors.iter().filter(|(_, settings)| settings.enabled) {
        let fits = settings.account.fits(asked.domain.as_deref(), asked.family.as_deref());
        match (fits, best) {
            (Some(rank), Some((other, _))) if rank <= other => {}
            (Some(rank), _) => best = Some((rank, *mode)),
            (None, _) => {}
        }
    }
    best.map(|(_, mode)| mode)
}

#[derive(Serialize)]
struct Answer {
    #[serde(rename = "Servers")]
    servers: [Server; 1],
}

#[derive(Serialize)]
struct Server {
    #[serde(rename = "Version")]
    version: &'static str,
    #[serde(rename = "BaseURL")]
    base_url: String,
}

/// The answer: exactly one server.
pub(crate) fn answer(mode: Mode, public_url: &url::Url) -> serde_json::Value {
    let server = Server { version: mode.version(), base_url: mode.base_url(public_url) };
    serde_json::to_value(Answer { servers: [server] }).expect("an answer of strings is JSON")
}

/// The body of 403 that ends service discovery (iOS 17.5, macOS 14.5, visionOS 1.2). The reason is in the log, not here.
pub(crate) fn refusal() -> serde_json::Value {
    serde_json::json!({
        "code": "com.apple.well-known.failed",
        "description": "This server offers no enrollment for this account and device",
        "message": "Your organization does not offer enrollment for this account on this device.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Asked {
        Asked::from_query(query)
    }

    fn door(enabled: bool, domains: &[&str], families: &[&str]) -> Settings {
        let mut settings = Settings { enabled, ..Settings::default() };
        settings.account.domains = domains.iter().map(|d| (*d).to_owned()).collect();
        settings.account.model_families = families.iter().map(|f| (*f).to_owned()).collect();
        settings
    }

    #[test]
    fn the_query_is_split_at_the_last_at_sign() {
        let mac = asked("user-identifier=a%40b%40Example.ORG&model-family=Mac");
        assert_eq!(mac, Asked { domain: Some("example.org".into()), family: Some("Mac".into()) });
        assert_eq!(asked(""), Asked::default());
        assert_eq!(asked("user-identifier=nobody&model-family=Mac").domain, None);
        assert_eq!(asked(&format!("user-identifier={}%40b", "a".repeat(400))).domain, None);
    }

    #[test]
    fn the_door_that_names_the_account_closest_is_offered() {
        let iphone = asked("user-identifier=ada%40example.org&model-family=iPhone");
        let mac = asked("user-identifier=ada%40example.org&model-family=Mac");
        let both = |byod, adde| [(Mode::Byod, byod), (Mode::Adde, adde)];

        assert_eq!(choose(&both(door(false, &[], &[]), door(false, &[], &[])), &mac), None);
        assert_eq!(choose(&both(door(true, &[], &[]), door(true, &[], &[])), &mac), Some(Mode::Byod));
        assert_eq!(choose(&both(door(false, &[], &[]), door(true, &[], &[])), &mac), Some(Mode::Adde));

        let macs = both(door(true, &[], &[]), door(true, &[], &["Mac"]));
        assert_eq!((choose(&macs, &mac), choose(&macs, &iphone)), (Some(Mode::Adde), Some(Mode::Byod)));

        let staff = both(door(true, &[], &["Mac"]), door(true, &["example.org"], &[]));
        assert_eq!(choose(&staff, &mac), Some(Mode::Adde), "the domain counts more than the kind of device");
        assert_eq!(choose(&staff, &asked("user-identifier=a%40b&model-family=Mac")), Some(Mode::Byod));
        assert_eq!(choose(&staff, &asked("user-identifier=a%40b&model-family=iPad")), None);
        assert_eq!(choose(&staff, &asked("user-identifier=ada%40example.org&model-family=Watch")), None);
    }

    #[test]
    fn the_answer_has_exactly_one_server() {
        let public_url = "https://mdm.example.org".parse().unwrap();
        assert_eq!(
            answer(Mode::Adde, &public_url).to_string(),
            r#"{"Servers":[{"BaseURL":"https://mdm.example.org/account/adde","Version":"mdm-adde"}]}"#
        );
    }
}
