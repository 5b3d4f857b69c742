//! The configuration: one TOML file. Every key is optional with a working default, except `public_url`; unknown keys
//! are refused; secrets are read from files.

pub mod acme_policies;
pub mod ade;
pub mod attestation;
pub mod machine_info;
pub mod renewal;
pub mod sections;
pub mod sign_in;
pub mod trust;
pub mod users;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use url::Url;

pub use self::acme_policies::AcmePolicies;
pub use self::ade::Ade;
pub use self::attestation::Attestation;
pub use self::machine_info::MachineInfo;
pub use self::renewal::Renewal;
pub use self::sections::{
    Enroll, ExternalMatch, Identity, Limits, Listen, Log, LogFormat, MdmSignature, ProfileSigning, Proxy, Push,
    PushClient, Scep, Seal, Sha1, SigningIdentity, Store, Tls,
};
pub use self::sign_in::SignIn;
pub use self::trust::{Pin, ServerKind, Trust, Verification};
pub use self::users::Users;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How devices reach the server, such as `https://mdm.example.com`. Becomes part of every enrollment profile and can
    /// never change for an enrolled device.
    pub public_url: Url,
    /// Where the server keeps what it makes itself: the SQLite file and the sealing key.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The organization's name, shown on enrollment pages and in profiles.
    #[serde(default = "default_organization")]
    pub organization: String,
    /// Where the server listens.
    #[serde(default)]
    pub listen: Listen,
    /// The device listener's certificate.
    #[serde(default)]
    pub tls: Tls,
    /// How devices come to trust that certificate.
    #[serde(default)]
    pub trust: Trust,
    /// The database.
    #[serde(default)]
    pub store: Store,
    /// The key that seals secrets at rest.
    #[serde(default)]
    pub seal: Seal,
    /// The identity certificates of devices.
    #[serde(default)]
    pub identity: Identity,
    /// The `Mdm-Signature` header.
    #[serde(default)]
    pub mdm_signature: MdmSignature,
    /// A proxy that ends TLS in front of the server.
    #[serde(default)]
    pub proxy: Proxy,
    /// The built-in SCEP server.
    #[serde(default)]
    pub scep: Scep,
    /// Enrollment profiles and links.
    #[serde(default)]
    pub enroll: Enroll,
    /// Whose signature under what devices say of themselves is believed.
    #[serde(default)]
    pub machine_info: MachineInfo,
    /// How people show who they are.
    #[serde(default)]
    pub sign_in: SignIn,
    /// How Apple's device service is reached.
    #[serde(default)]
    pub ade: Ade,
    /// The renewal of device identities.
    #[serde(default)]
    pub renewal: Renewal,
    /// What ACME policies leave behind.
    #[serde(default)]
    pub acme_policies: AcmePolicies,
    /// What Apple signs of devices.
    #[serde(default)]
    pub attestation: Attestation,
    /// The identity that signs configuration profiles.
    #[serde(default)]
    pub profile_signing: ProfileSigning,
    /// APNs.
    #[serde(default)]
    pub push: Push,
    /// How often one address may ask.
    #[serde(default)]
    pub limits: Limits,
    /// Users of a Mac who are not its own.
    #[serde(default)]
    pub users: Users,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("assay-data")
}

fn default_organization() -> String {
    "Assay".to_owned()
}

impl Config {
    /// Reads and checks a file. Relative paths in it are taken from the file's folder.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config = Self::parse(&text).with_context(|| format!("{} is not right", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.anchor_paths(base);
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.checked()
    }

    fn checked(self) -> Result<Self> {
        if self.public_url.scheme() != "https" {
            bail!("public_url must begin with https:// (Apple devices accept nothing else)");
        }
        if self.public_url.host_str().is_none() || self.public_url.path() != "/" || self.public_url.query().is_some() {
            bail!("public_url must be scheme, host and perhaps a port, such as https://mdm.example.com");
        }
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            bail!("tls.certificate_file and tls.key_file belong together: give both or none");
        }
        if self.tls.off && self.tls.certificate_file.is_some() {
            bail!("tls.off = true and tls.certificate_file exclude each other");
        }
        if self.tls.anchors_file.is_some() {
            bail!(
                "tls.anchors_file is now trust.anchors, a list of files, together with trust.server_certificate = \"private-ca\""
            );
        }
        self.trust.check(&self.tls)?;
        self.sign_in.check()?;
        self.ade.check()?;
        self.renewal.check()?;
        self.acme_policies.check()?;
        self.machine_info.check()?;
        self.attestation.check(&self.listen, &self.proxy)?;
        if self.store.url.is_some() && self.store.url_file.is_some() {
            bail!("store.url and store.url_file exclude each other");
        }
        if self.profile_signing.certificate_file.is_some() != self.profile_signing.key_file.is_some() {
            bail!("profile_signing.certificate_file and profile_signing.key_file belong together: give both or none");
        }
        for name in self.profile_signing.identities.keys() {
            if name.parse::<mdm_core::ids::PolicyName>().is_err() {
                bail!("profile_signing.identities.{name}: a name is 1 to 64 letters, digits, '.', '_' or '-'");
            }
        }
        if !(1..=365).contains(&self.identity.lifetime_days) {
            bail!("identity.lifetime_days must be 1 to 365");
        }
        if !(1..=60).contains(&self.scep.challenge_minutes) {
            bail!("scep.challenge_minutes must be 1 to 60");
        }
        if self.proxy.certificate_header.is_some() && self.proxy.trusted_peers.is_empty() {
            bail!("proxy.certificate_header needs proxy.trusted_peers: a header from anybody proves nothing");
        }
        let push = &self.push;
        if push.client == PushClient::A2 && (push.url.is_some() || push.ca_file.is_some() || push.proxy.is_some()) {
            bail!("push.url, push.ca_file and push.proxy need push.client = \"direct\"");
        }
        if push.proxy_login_file.is_some() && push.proxy.is_none() {
            bail!("push.proxy_login_file needs push.proxy");
        }
        let limits = self.limits;
        if [limits.enroll_per_ip_per_minute, limits.scep_per_ip_per_minute, limits.scep_per_minute].contains(&0) {
            bail!("the keys of [limits] must be at least 1");
        }
        if self.push.per_second == 0 {
            bail!("push.per_second must be at least 1");
        }
        Ok(self)
    }

    fn anchor_paths(&mut self, base: &Path) {
        let files = [
            &mut self.tls.certificate_file,
            &mut self.tls.key_file,
            &mut self.store.url_file,
            &mut self.seal.key_file,
            &mut self.identity.external_ca_file,
            &mut self.profile_signing.certificate_file,
            &mut self.profile_signing.key_file,
            &mut self.push.ca_file,
            &mut self.ade.ca_file,
            &mut self.push.proxy_login_file,
        ];
        let device_cas = &mut self.machine_info.device_ca_files;
        let signing =
            self.profile_signing.identities.values_mut().flat_map(|i| [&mut i.certificate_file, &mut i.key_file]);
        let lists = self.trust.anchors.iter_mut().chain(&mut self.trust.next_anchors).chain(device_cas).chain(signing);
        for path in files.into_iter().chain(self.sign_in.files()).flatten().chain([&mut self.data_dir]).chain(lists) {
            if path.is_relative() {
                *path = base.join(&path);
            }
        }
    }

    /// The database's URL.
    pub fn store_url(&self) -> Result<String> {
        match (&self.store.url, &self.store.url_file) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(file)) => Ok(std::fs::read_to_string(file)
                .with_context(|| format!("cannot read store.url_file {}", file.display()))?
                .trim()
                .to_owned()),
            (None, None) => Ok(format!("sqlite:{}", self.data_dir.join("assay.db").display())),
        }
    }

    /// `PayloadIdentifier` of the enrollment profile, such as `com.example.mdm.enrollment`.
    pub fn profile_identifier(&self) -> String {
        let backwards = |host: &str| host.split('.').rev().collect::<Vec<_>>().join(".");
        let host = self.public_url.host_str().map(backwards).unwrap_or_default();
        self.enroll.profile_identifier.clone().unwrap_or_else(|| format!("{host}.enrollment"))
    }

    /// The realm that network users' passwords are for: the host of `public_url`.
    pub fn realm(&self) -> String {
        self.public_url.host_str().unwrap_or_default().to_owned()
    }

    /// The file of the sealing key.
    pub fn seal_key_file(&self) -> PathBuf {
        self.seal.key_file.clone().unwrap_or_else(|| self.data_dir.join("seal.key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_url_is_needed() {
        let config = Config::parse("public_url = 'https://mdm.example.com'").unwrap();
        assert_eq!(config.store_url().unwrap(), "sqlite:assay-data/assay.db");
        assert!(config.enroll.sign_profile);
    }

    #[test]
    fn unknown_keys_and_half_settings_are_refused_by_name() {
        for (text, word) in [
            ("public_url = 'https://a.b'\nlisten.devise = '1'", "devise"),
            ("public_url = 'http://a.b'", "https"),
            ("public_url = 'https://a.b/path'", "public_url"),
            ("public_url = 'https://a.b'\ntls.key_file = 'x'", "tls.certificate_file"),
            ("public_url = 'https://a.b'\nproxy.certificate_header = 'Client-Cert'", "trusted_peers"),
            ("public_url = 'https://a.b'\npush.url = 'https://x'", "direct"),
            ("public_url = 'https://a.b'\npush.proxy = 'http://x'", "direct"),
            ("public_url = 'https://a.b'\npush.proxy_login_file = 'x'", "push.proxy"),
            ("public_url = 'https://a.b'\nidentity.lifetime_days = 400", "lifetime_days"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn debug_does_not_print_the_database_password() {
        let config = Config::parse("public_url = 'https://a.b'\nstore.url = 'postgres://u:hunter2@h/d'").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn signing_identities_have_names_and_files() {
        let text = "public_url = 'https://a.b'\n[profile_signing.identities.corporate]\ncertificate_file = 'c.pem'\nkey_file = 'k.pem'";
        let mut config = Config::parse(text).unwrap();
        config.anchor_paths(Path::new("/etc/assay"));
        let files = &config.profile_signing.identities["corporate"];
        assert_eq!(
            (&files.certificate_file, &files.key_file),
            (&"/etc/assay/c.pem".into(), &"/etc/assay/k.pem".into())
        );
        assert!(Config::parse(&text.replace("key_file = 'k.pem'", "")).is_err());
        let odd = format!("{:#}", Config::parse(&text.replace("corporate", "'../x'")).unwrap_err());
        assert!(odd.contains("profile_signing.identities"), "{odd}");
    }

    #[test]
    fn relative_paths_are_taken_from_the_file() {
        let mut config =
            Config::parse("public_url = 'https://a.b'\ntls.certificate_file = 'c.pem'\ntls.key_file = '/k.pem'")
                .unwrap();
        config.anchor_paths(Path::new("/etc/assay"));
        assert_eq!(config.tls.certificate_file, Some(PathBuf::from("/etc/assay/c.pem")));
        assert_eq!(config.tls.key_file, Some(PathBuf::from("/k.pem")));
    }
}
