//! The settings of a door: whether it is open, what a device must show there, and which identity it is given.
//!
//! A door that nobody has set has [`Settings::of`]: enrollment links work at once, all other doors are closed.

pub mod account;

use std::collections::BTreeMap;

use mdm_core::enrollment::Door;
use mdm_core::hardware::{OsVersion, Platform};
use mdm_core::ids::Label;
use mdm_core::profile::acme::{HARDWARE_BOUND_RULE, KeyKind, check_directory_url};
use mdm_core::time::Timestamp;
use policy::gate::{Ask, Wish};
use serde::{Deserialize, Serialize};
use store::Tx;

pub use self::account::Account;
use crate::Error;

/// How one door is set, as the API carries it. What is left out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether anybody is let in. Devices that came in by it stay enrolled, and are renewed, when it is closed.
    pub enabled: bool,
    /// Which identity certificate a device is given.
    pub identity: Identity,
    /// Links and ADE: a person signs in on a web page before the profile is given out. Always so with an account.
    pub sign_in: bool,
    /// ADE: what a device must show besides a serial number of Apple's list, which is no secret (TH-50).
    pub require: Require,
    /// ADE: the oldest system that is let in, by platform.
    pub minimum_os: BTreeMap<Platform, MinimumOs>,
    /// ADE: profiles that one serial number is given in an hour (TH-52).
    pub attempts_per_hour: u32,
    /// ADE: after how many minutes a device in Setup Assistant goes on although its set-up commands are not done.
    pub set_up_minutes: u32,
    /// Account-driven enrollment.
    pub account: Account,
    /// Put on each enrollment that comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: false,
            identity: Identity::default(),
            sign_in: false,
            require: Require::Approval,
            minimum_os: BTreeMap::new(),
            attempts_per_hour: 10,
            set_up_minutes: 30,
            account: Account::default(),
            label: None,
        }
    }
}

/// What a device of Automated Device Enrollment must show besides its serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Require {
    /// An operator has approved the serial number.
    Approval,
    /// A person signs in.
    SignIn,
    /// Its identity is attested: only a hardware-bound ACME certificate with `Attest` is given.
    Attestation,
}

/// The oldest system that a platform may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumOs {
    /// `OSVersion` that the device is told to update to, and the oldest that is let in.
    pub os_version: String,
    /// `BuildVersion` that it is told to update to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_version: Option<String>,
    /// What becomes of an older device that can't be told so (`MDM_CAN_REQUEST_SOFTWARE_UPDATE` is not true).
    #[serde(default)]
    pub cannot_update: CannotUpdate,
}

/// What becomes of a device that is too old and can't be told to update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CannotUpdate {
    /// It is refused.
    #[default]
    Refuse,
    /// It is let in; the event log says so.
    LetIn,
}

/// Which identity certificate a device is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Which one where the device can have both.
    pub prefer: Prefer,
    /// What becomes of a device that can't have the preferred one.
    pub otherwise: Otherwise,
    /// The ACME server; needed to prefer ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
}

/// Which identity is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// A certificate of the built-in CA over SCEP; every device can have it.
    #[default]
    Scep,
    /// A certificate of an ACME server.
    Acme,
}

/// What becomes of a device that can't have an ACME identity. Never silent: the record, the log and an event say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// It is refused: no profile.
    #[default]
    Refuse,
    /// It gets SCEP.
    FallBack,
    /// It gets SCEP, and the record says that it would have been refused.
    ReportOnly,
}

/// The ACME server, and what is asked of a device's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// `DirectoryURL`.
    pub directory_url: String,
    /// What `ClientIdentifier` is.
    #[serde(default)]
    pub client_identifier: ClientIdentifier,
    /// `KeyType`: `RSA` or `ECSECPrimeRandom`.
    #[serde(default = "default_key_type")]
    pub key_type: String,
    /// `KeySize`.
    #[serde(default = "default_key_size")]
    pub key_size: u32,
    /// `HardwareBound`.
    #[serde(default = "when_supported")]
    pub hardware_bound: Wish,
    /// `Attest`.
    #[serde(default = "when_supported")]
    pub attest: Wish,
    /// The ACME server issues to devices that give no attestation.
    #[serde(default)]
    pub ca_accepts_unattested: bool,
    /// SHA-256 of the CA certificates (of `identity.external_ca_file`) that issue for it, 64 hexadecimal digits in lower
    /// case; empty: each of them.
    #[serde(default)]
    pub issuers: Vec<String>,
}

fn default_key_type() -> String {
    "ECSECPrimeRandom".to_owned()
}

fn default_key_size() -> u32 {
    256
}

fn when_supported() -> Wish {
    Wish::WhenSupported
}

/// What `ClientIdentifier` is: by it the ACME server knows whom it serves, and we know the certificate again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIdentifier {
    /// A one-time random text.
    #[default]
    Random,
    /// The serial number: what a server compares with the attestation (step-ca does). Not in User Enrollment.
    Serial,
    /// The UDID. Not in User Enrollment; a Mac attests another one than it is managed by.
    Udid,
}

impl Acme {
    /// The question for the gate; `None` where the key is not a possible one.
    pub fn ask(&self) -> Option<Ask> {
        Some(Ask {
            hardware_bound: self.hardware_bound,
            attest: self.attest,
            key: KeyKind::new(&self.key_type, self.key_size).ok()?,
            ca_accepts_unattested: self.ca_accepts_unattested,
            user_channel_hardware_bound: false,
            key_is_extractable: false,
            allow_all_apps_access: false,
        })
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The field, as the API spells it.
    pub field: String,
    /// What would be right.
    pub why: String,
}

#[derive(Default)]
struct Errors(Vec<Wrong>);

impl Errors {
    fn check(&mut self, field: &str, good: bool, expected: &str) {
        if !good {
            self.0.push(Wrong { field: field.to_owned(), why: format!("must be {expected}") });
        }
    }
}

impl Settings {
    /// What a door is that nobody has set.
    pub fn of(door: Door) -> Self {
        Self { enabled: matches!(door, Door::Link | Door::Import), ..Self::default() }
    }

    /// Whether a person must sign in before a profile is given out.
    pub fn asks_for_sign_in(&self, door: Door) -> bool {
        match door {
            Door::Link | Door::Import => self.sign_in,
            Door::Ade => self.sign_in || self.require == Require::SignIn,
            Door::Byod | Door::Adde => true,
        }
    }

    /// Every field that is wrong for this door.
    ///
    /// # Errors
    /// They, by name; never an empty list.
    pub fn check(&self, door: Door) -> Result<(), Vec<Wrong>> {
        let mut errors = Errors::default();
        let default = Self::default();
        let ade = door == Door::Ade;
        let with_account = matches!(door, Door::Byod | Door::Adde);
        errors.check("sign_in", !(with_account && self.sign_in), "left out: a person always signs in at this door");
        errors.check("require", ade || self.require == default.require, "left out: it belongs to the door ade");
        errors.check("minimum_os", ade || self.minimum_os.is_empty(), "left out: it belongs to the door ade");
        for minimum in self.minimum_os.values() {
            errors.check(
                "minimum_os",
                minimum.os_version.parse::<OsVersion>().is_ok(),
                "made of versions such as 17.5.1",
            );
            let build = |b: &String| !b.is_empty() && b.len() <= 16 && b.bytes().all(|c| c.is_ascii_alphanumeric());
            errors.check("minimum_os", minimum.build_version.as_ref().is_none_or(build), "given builds such as 21F90");
        }
        errors.check("attempts_per_hour", (1..=1000).contains(&self.attempts_per_hour), "from 1 to 1000");
        errors.check("set_up_minutes", self.set_up_minutes <= 24 * 60, "from 0 to 1440");
        if with_account {
            if let Err((field, why)) = self.account.check() {
                errors.0.push(Wrong { field: field.to_owned(), why: why.to_owned() });
            }
        } else {
            errors.check("account", self.account == Account::default(), "left out: it belongs to byod and adde");
        }
        self.identity.check(door, self.require, &mut errors);
        if errors.0.is_empty() { Ok(()) } else { Err(errors.0) }
    }
}

impl Identity {
    fn check(&self, door: Door, require: Require, errors: &mut Errors) {
        if let Some(acme) = &self.acme {
            acme.check(door, errors);
        }
        let acme = self.prefer == Prefer::Acme;
        errors.check("identity.acme", !acme || self.acme.is_some(), "given where identity.prefer is acme");
        let refuses = acme && self.otherwise == Otherwise::Refuse;
        errors.check(
            "identity.otherwise",
            !(door == Door::Link && refuses),
            "fall_back or report_only: a browser does not say what the device is, so every link would be refused",
        );
        errors.check(
            "identity.prefer",
            !(door == Door::Ade && require == Require::Attestation) || acme,
            "acme where require is attestation",
        );
    }
}

impl Acme {
    fn check(&self, door: Door, errors: &mut Errors) {
        let url = check_directory_url(&self.directory_url);
        errors.check("identity.acme.directory_url", url.is_ok(), "an absolute URL with the https scheme and a host");
        match KeyKind::new(&self.key_type, self.key_size) {
            Ok(key) => {
                let bound = self.hardware_bound != Wish::Never;
                errors.check("identity.acme.hardware_bound", !bound || key.fits_secure_enclave(), HARDWARE_BOUND_RULE);
            }
            Err(error) => {
                let field = if error.key == "KeyType" { "identity.acme.key_type" } else { "identity.acme.key_size" };
                errors.check(field, false, &error.expected);
            }
        }
        let attest = self.attest != Wish::Never;
        let bound = self.hardware_bound != Wish::Never;
        errors.check("identity.acme.attest", !attest || bound, "never unless hardware_bound is asked for");
        let required = self.attest == Wish::Required;
        errors.check(
            "identity.acme.attest",
            !required || self.hardware_bound == Wish::Required || !bound,
            "required only where hardware_bound is required too",
        );
        errors.check(
            "identity.acme.ca_accepts_unattested",
            attest || self.ca_accepts_unattested,
            "true where attest is never: else no device could have the identity",
        );
        errors.check(
            "identity.acme.client_identifier",
            door != Door::Byod || self.client_identifier == ClientIdentifier::Random,
            "random: in User Enrollment a device shows neither serial number nor UDID",
        );
        errors.check(
            "identity.acme.client_identifier",
            self.client_identifier == ClientIdentifier::Random || (attest && !self.ca_accepts_unattested),
            "random unless attest is asked for and ca_accepts_unattested is false: a serial number is no secret",
        );
        let sha256 = |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let good = self.issuers.len() <= 32 && self.issuers.iter().all(sha256);
        errors.check("identity.acme.issuers", good, "at most 32 SHA-256 values of 64 hexadecimal digits in lower case");
    }
}

/// The door whose settings hold for enrollments that came in by `door`: imported ones are like those of links.
fn set_by(door: Door) -> Door {
    if door == Door::Import { Door::Link } else { door }
}

/// The settings of a door.
pub async fn load(tx: &mut Tx, door: Door) -> Result<Settings, Error> {
    match store::doors::get(tx, set_by(door)).await? {
        None => Ok(Settings::of(door)),
        Some(row) => serde_json::from_str(&row.body).map_err(|_| store::Error::Corrupt("door.body").into()),
    }
}

/// Sets a door; the caller has checked the settings by [`Settings::check`].
///
/// # Panics
/// Never: settings can always be written as JSON.
pub async fn store(tx: &mut Tx, door: Door, settings: &Settings, by: &str, now: Timestamp) -> Result<(), Error> {
    let body = serde_json::to_string(settings).expect("settings are JSON");
    Ok(store::doors::put(tx, set_by(door), &body, by, now).await?)
}

#[cfg(test)]
mod tests;
