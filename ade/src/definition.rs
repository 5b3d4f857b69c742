//! A profile definition: what a device in Setup Assistant is told. Apple's page: Device Assignment, `Profile`.
//!
//! An operator writes [`Definition`]. What speaks of this server – `url`, `configuration_web_url`, `anchor_certs` – is filled in
//! from the settings ([`encode`]), so that no operator can send devices elsewhere or forget an anchor.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::certificate::Certificate;
use mdm_core::ids::Fingerprint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{Error, Settings};

/// Most certificates in `supervising_host_certs`.
const MOST_HOSTS: usize = 20;
/// Most panes in `skip_setup_items`.
const MOST_PANES: usize = 100;
/// Most letters of a text.
const LONGEST: usize = 125;

/// Apple's keys, as far as they are the operator's. A key that is left out is not sent, so that Apple's default holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdeDefinition)]
pub struct Definition {
    /// What people see in Setup Assistant and in the portal.
    pub profile_name: String,
    /// Whether a person must sign in on a web page before the device gets its enrollment profile: `configuration_web_url` is
    /// sent, with this server's page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub web_sign_in: bool,
    /// A text that names the organization's MDM service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_magic: Option<String>,
    /// The department, shown in "About Configuration".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department: Option<String>,
    /// Whom to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support_phone_number: Option<String>,
    /// Whom to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support_email_address: Option<String>,
    /// Certificates (base64 of DER) of Macs that may pair with the device although `allow_pairing` is false.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supervising_host_certs: Vec<String>,
    /// Whether the device pairs with any computer; Apple's default is true. Deprecated since iOS 13.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_pairing: Option<bool>,
    /// Supervision; since iOS 13 every device is supervised, whatever is said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_supervised: Option<bool>,
    /// Whether the person may not skip enrollment; since iOS 13 nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_mandatory: Option<bool>,
    /// Whether the person may remove the enrollment; false needs `is_supervised`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_mdm_removable: Option<bool>,
    /// Shared iPad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_multi_user: Option<bool>,
    /// Whether the device waits in Setup Assistant until its set-up commands are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub await_device_configured: Option<bool>,
    /// Whether Setup Assistant goes on by itself (tvOS, macOS 11 and later, by Ethernet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_advance_setup: Option<bool>,
    /// ISO 639-1 code of the language, such as `en` (tvOS, macOS 11 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// ISO 3166-1 code of the region, such as `US` (tvOS, macOS 11 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The panes that Setup Assistant leaves out, by Apple's names, such as `AppleID` or `Siri`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_setup_items: Vec<String>,
    /// Whether a restored backup's enrollment profile is left alone (iOS 26, visionOS 26).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_not_use_profile_from_backup: Option<bool>,
    /// Whether the device is in Return to Service (iOS 26, visionOS 26).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_return_to_service: Option<bool>,
}

/// A key of a definition that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The key.
    pub field: String,
    /// What would be right: "must be …".
    pub expected: &'static str,
}

/// All keys of a definition that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the profile definition is wrong: {}", .0.iter().map(|e| format!("{} {}", e.field, e.expected)).collect::<Vec<_>>().join("; "))]
pub struct InvalidDefinition(pub Vec<FieldError>);

impl Definition {
    /// Checks everything that Apple's page demands and that can be known here; names every key that is wrong.
    pub fn check(&self) -> Result<(), InvalidDefinition> {
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, field: &str, expected: &'static str| {
            if !holds {
                wrong.push(FieldError { field: field.to_owned(), expected });
            }
        };
        let fits = |text: &str| {
            !text.trim().is_empty() && text.chars().count() <= LONGEST && !text.chars().any(char::is_control)
        };
        let text = "must have 1 to 125 letters and no control characters";
        demand(fits(&self.profile_name), "profile_name", text);
        let texts = [
            ("org_magic", &self.org_magic),
            ("department", &self.department),
            ("support_phone_number", &self.support_phone_number),
        ];
        for (field, value) in texts {
            demand(value.as_deref().is_none_or(fits), field, text);
        }
        let address =
            |text: &str| fits(text) && text.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.'));
        demand(
            self.support_email_address.as_deref().is_none_or(address),
            "support_email_address",
            "must be an e-mail address",
        );

        demand(
            self.supervising_host_certs.len() <= MOST_HOSTS,
            "supervising_host_certs",
            "must hold at most 20 certificates",
        );
        for (n, text) in self.supervising_host_certs.iter().enumerate() {
            let good = STANDARD.decode(text).is_ok_and(|der| Certificate::from_der(&der).is_ok());
            demand(good, &format!("supervising_host_certs[{n}]"), "must be base64 of a certificate in DER");
        }
        let supervised = self.is_supervised == Some(true);
        demand(
            self.is_mdm_removable != Some(false) || supervised,
            "is_mdm_removable",
            "can be false only with is_supervised true",
        );
        demand(self.is_multi_user != Some(true) || supervised, "is_multi_user", "needs is_supervised true");
        demand(
            self.supervising_host_certs.is_empty() || supervised,
            "supervising_host_certs",
            "needs is_supervised true: Apple ignores it otherwise",
        );
        demand(
            self.auto_advance_setup != Some(true) || !self.web_sign_in,
            "auto_advance_setup",
            "and web_sign_in exclude each other: nobody is there to sign in",
        );
        let letters = |text: &str, lengths: &[usize]| {
            lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase())
        };
        let language = |text: &str| match text.split_once('-') {
            None => letters(text, &[2, 3]),
            Some((first, rest)) => {
                letters(first, &[2, 3])
                    && !rest.is_empty()
                    && rest.len() <= 8
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric())
            }
        };
        demand(
            self.language.as_deref().is_none_or(language),
            "language",
            "must be an ISO 639 code such as en or zh-Hant",
        );
        let region = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
        demand(self.region.as_deref().is_none_or(region), "region", "must be an ISO 3166-1 code such as US");

        demand(self.skip_setup_items.len() <= MOST_PANES, "skip_setup_items", "must hold at most 100 names");
        for (n, pane) in self.skip_setup_items.iter().enumerate() {
            let good = (1..=64).contains(&pane.len()) && pane.bytes().all(|b| b.is_ascii_alphanumeric());
            demand(good, &format!("skip_setup_items[{n}]"), "must be one of Apple's names, such as AppleID");
            let repeated = self.skip_setup_items.iter().take(n).any(|earlier| earlier == pane);
            demand(!repeated, &format!("skip_setup_items[{n}]"), "must be named once");
        }
        if wrong.is_empty() { Ok(()) } else { Err(InvalidDefinition(wrong)) }
    }

    /// As it is stored.
    pub(crate) fn to_stored(&self) -> String {
        serde_json::to_string(self).expect("a struct of texts and truth values is JSON")
    }

    /// As it was stored.
    pub fn from_stored(body: &str) -> Result<Self, Error> {
        serde_json::from_str(body).map_err(|_| Error::Stored("ade_profile.body"))
    }
}

/// The profile as Apple's service takes it, in the order of Apple's page.
#[derive(Serialize)]
struct Sent<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_web_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anchor_certs: Vec<String>,
    #[serde(flatten)]
    definition: &'a Definition,
}

/// A definition as it is sent to Apple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// The JSON.
    pub(crate) body: serde_json::Value,
    /// SHA-256 of the JSON's text: another text is another profile.
    pub(crate) sha256: Vec<u8>,
    /// The fingerprints of `anchor_certs`, as they are stored.
    pub(crate) anchors: String,
}

/// Writes a definition for Apple's service.
pub(crate) fn encode(definition: &Definition, settings: &Settings) -> Encoded {
    let sent = Sent {
        url: settings.url.as_str(),
        configuration_web_url: definition.web_sign_in.then_some(settings.web_url.as_str()),
        anchor_certs: settings.anchors.iter().map(|anchor| STANDARD.encode(anchor.der())).collect(),
        definition: &Definition { web_sign_in: false, ..definition.clone() },
    };
    let body = serde_json::to_value(&sent).expect("a struct of texts and truth values is JSON");
    // Of the struct, whose keys have an order of their own, whatever order a JSON value keeps.
    let text = serde_json::to_vec(&sent).expect("a struct of texts and truth values is JSON");
    let sha256 = Sha256::digest(text).to_vec();
    let anchors: Vec<Fingerprint> = settings.anchors.iter().map(Certificate::fingerprint).collect();
    Encoded { body, sha256, anchors: anchor_list(&anchors) }
}

/// Fingerprints as they are stored and compared: sorted, hexadecimal, JSON.
pub(crate) fn anchor_list(anchors: &[Fingerprint]) -> String {
    let mut list: Vec<String> = anchors.iter().map(|anchor| hex::encode(anchor.0)).collect();
    list.sort();
    list.dedup();
    serde_json::to_string(&list).expect("a list of texts is JSON")
}

#[cfg(test)]
mod tests;
