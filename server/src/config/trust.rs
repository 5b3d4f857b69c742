//! The `[trust]` section: how a device comes to trust this server's TLS certificate, and how that trust is kept.
//!
//! Source: Apple, "Managing certificates for MDM servers and devices" (the device always verifies the server; no setting
//! of a server can switch that off), `com.apple.mdm.yaml` (the pinning keys).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use mdm_core::certificate::Certificate;
use serde::{Deserialize, Deserializer};

use super::Tls;

/// How a device comes to trust this server's TLS certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Who signed the certificate; checked against the chain that is served. A certificate that the server makes for itself
    /// counts as `private-ca`, whatever is said here.
    pub server_certificate: ServerKind,
    /// When devices verify. Default: `anchored-first-contact` with a private CA that is not on devices beforehand, else
    /// `always`.
    pub verification: Option<Verification>,
    /// The private root is on every device before it enrolls.
    pub preinstalled: bool,
    /// Whether enrolled devices accept only chains under `anchors`.
    pub pin: Pin,
    /// `PinningRevocationCheckRequired`: a pinned chain also needs a positive answer about revocation.
    pub pin_revocation_required: bool,
    /// PEM: the CA certificates that devices are given, for profiles, Automated Device Enrollment, the trust page and pins.
    pub anchors: Vec<PathBuf>,
    /// PEM: CA certificates that will take over: given and pinned beside `anchors`, so that the certificate can be changed
    /// once every device holds them.
    pub next_anchors: Vec<PathBuf>,
    /// Says that this is a trial; needed for a self-signed certificate.
    pub pilot: bool,
    /// Look at this server through `public_url`, and warn where another certificate is seen there. Default: yes.
    pub probe: Probe,
    /// Take a TLS certificate although enrolled devices will not accept it. They are lost until they enroll anew.
    pub force_switch: bool,
    /// Stand-ins for the public CAs, in rehearsals only: no configuration file can set it.
    #[serde(skip)]
    public_roots: Vec<Certificate>,
    /// Shorter in rehearsals only: no configuration file can set it.
    #[serde(skip)]
    judge_again: Option<Duration>,
}

/// How often a TLS certificate that is held back is judged again: every judgement counts all enrollments.
const JUDGE_AGAIN: Duration = Duration::from_secs(60);

/// Who signed the server's TLS certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerKind {
    /// A CA whose root is part of Apple's systems.
    #[default]
    Public,
    /// A CA of the organization's own.
    PrivateCa,
    /// Nobody: the certificate is its own issuer. For a pilot.
    SelfSigned,
}

impl ServerKind {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::PrivateCa => "private-ca",
            Self::SelfSigned => "self-signed",
        }
    }
}

/// When devices verify the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// At every contact, the first included, against what is on the device already.
    Always,
    /// At every contact; for the first one the anchor is delivered beforehand by a trusted way.
    AnchoredFirstContact,
}

impl Verification {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::AnchoredFirstContact => "anchored-first-contact",
        }
    }
}

impl<'de> Deserialize<'de> for Verification {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "always" => Ok(Self::Always),
            "anchored-first-contact" => Ok(Self::AnchoredFirstContact),
            "never" => Err(serde::de::Error::custom(
                "trust.verification = \"never\" does not exist: Apple's MDM client verifies the server at every contact and no \
                 server can switch that off; it would only hide that enrollment fails. With a private CA take \
                 \"anchored-first-contact\", which delivers the CA before the first contact (docs/trust.md)",
            )),
            other => Err(serde::de::Error::custom(format!(
                "trust.verification = \"{other}\": it is \"always\" or \"anchored-first-contact\""
            ))),
        }
    }
}

/// What enrolled devices are pinned to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pin {
    /// The CA where it is not a public one; nothing with a public CA.
    #[default]
    Auto,
    /// The CA certificates of `anchors`.
    Ca,
    /// Nothing.
    Off,
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "auto" => Ok(Self::Auto),
            "ca" => Ok(Self::Ca),
            "off" => Ok(Self::Off),
            "leaf" => Err(serde::de::Error::custom(
                "trust.pin = \"leaf\" is refused: a server certificate lives some months, and a device that is pinned to it is lost \
                 when it is renewed. Pin the CA: \"ca\"",
            )),
            other => {
                Err(serde::de::Error::custom(format!("trust.pin = \"{other}\": it is \"auto\", \"ca\" or \"off\"")))
            }
        }
    }
}

/// Whether the server looks at itself through its public URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Probe(pub bool);

impl Default for Probe {
    fn default() -> Self {
        Self(true)
    }
}

impl Trust {
    /// Who signed the certificate, as the checks take it: one that the server makes itself is of a private CA.
    pub fn kind(&self, tls: &Tls) -> ServerKind {
        if tls.is_made_here() { ServerKind::PrivateCa } else { self.server_certificate }
    }

    /// When devices verify.
    pub fn verification(&self, tls: &Tls) -> Verification {
        match self.kind(tls) {
            ServerKind::Public => Verification::Always,
            _ if self.preinstalled => self.verification.unwrap_or(Verification::Always),
            _ => Verification::AnchoredFirstContact,
        }
    }

    /// Whether profiles pin the anchors.
    pub fn pins(&self, tls: &Tls) -> bool {
        match self.pin {
            Pin::Auto => self.kind(tls) != ServerKind::Public,
            Pin::Ca => true,
            Pin::Off => false,
        }
    }

    /// Lets this root count as one that devices have, for a rehearsal within one process.
    pub fn add_public_root(&mut self, root: Certificate) {
        self.public_roots.push(root);
    }

    /// Judges a certificate that is held back so often, for a rehearsal within one process.
    pub fn set_judge_again(&mut self, every: Duration) {
        self.judge_again = Some(every);
    }

    /// How often a certificate that is held back is judged again.
    pub(crate) fn judge_again(&self) -> Duration {
        self.judge_again.unwrap_or(JUDGE_AGAIN)
    }

    /// Roots that count as public beside the real ones.
    pub(crate) fn public_roots(&self) -> &[Certificate] {
        &self.public_roots
    }

    /// Refuses what does not go together.
    pub(super) fn check(&self, tls: &Tls) -> Result<()> {
        let kind = self.kind(tls);
        let anchored = self.verification == Some(Verification::AnchoredFirstContact);
        if self.server_certificate == ServerKind::SelfSigned {
            if tls.is_made_here() {
                bail!(
                    "trust.server_certificate = \"self-signed\" needs tls.certificate_file and tls.key_file; without them the server \
                     makes a certificate under a CA of its own, which is the better trial"
                );
            }
            if !self.pilot {
                bail!(
                    "trust.server_certificate = \"self-signed\" needs trust.pilot = true: nobody vouches for such a certificate, and \
                     it cannot be changed without losing devices. At most 25 devices can enroll, and none by an account"
                );
            }
        }
        if kind == ServerKind::Public && anchored {
            bail!(
                "trust.verification = \"anchored-first-contact\" is for trust.server_certificate = \"private-ca\": a public CA is on devices already"
            );
        }
        if kind != ServerKind::Public && self.verification == Some(Verification::Always) && !self.preinstalled {
            bail!(
                "trust.verification = \"always\" with a private CA needs trust.preinstalled = true, which says that the CA is on every \
                 device before it enrolls; otherwise take \"anchored-first-contact\""
            );
        }
        if self.preinstalled && kind == ServerKind::Public {
            bail!("trust.preinstalled is for trust.server_certificate = \"private-ca\"");
        }
        if kind == ServerKind::PrivateCa && self.anchors.is_empty() && !tls.is_made_here() {
            bail!("trust.server_certificate = \"private-ca\" needs trust.anchors: the PEM file of the CA's root");
        }
        if kind == ServerKind::Public
            && self.pin != Pin::Ca
            && !(self.anchors.is_empty() && self.next_anchors.is_empty())
        {
            bail!(
                "trust.anchors and trust.next_anchors are for trust.server_certificate = \"private-ca\", or for a public CA that is \
                 pinned by trust.pin = \"ca\""
            );
        }
        if kind == ServerKind::Public && self.pin == Pin::Ca && self.anchors.is_empty() {
            bail!("trust.pin = \"ca\" needs trust.anchors: the PEM file of the public CA's root");
        }
        if self.pin_revocation_required && !self.pins(tls) {
            bail!("trust.pin_revocation_required needs pins: trust.pin = \"ca\"");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const FILES: &str = "tls.certificate_file = 'c'\ntls.key_file = 'k'";

    fn parse(lines: &str) -> Result<Config> {
        Config::parse(&format!("public_url = 'https://mdm.example.com'\n{FILES}\n{lines}"))
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_reason() {
        for (lines, word) in [
            ("trust.verification = 'never'", "no server can switch that off"),
            ("trust.verification = 'sometimes'", "anchored-first-contact"),
            ("trust.pin = 'leaf'", "lost"),
            ("trust.pin = 'ca'", "trust.anchors"),
            ("trust.server_certificate = 'private-ca'", "trust.anchors"),
            ("trust.server_certificate = 'self-signed'", "trust.pilot"),
            ("trust.anchors = ['a']", "private-ca"),
            ("trust.verification = 'anchored-first-contact'", "private-ca"),
            ("trust.preinstalled = true", "private-ca"),
            ("trust.pin_revocation_required = true", "pin"),
            ("tls.anchors_file = 'a'", "trust.anchors"),
            (
                "trust.server_certificate = 'private-ca'\ntrust.anchors = ['a']\ntrust.verification = 'always'",
                "trust.preinstalled",
            ),
            ("trust.server_certificate = 'letsencrypt'", "self-signed"),
        ] {
            let error = format!("{:#}", parse(lines).unwrap_err());
            assert!(error.contains(word), "{lines}: {error}");
        }
        let alone = "public_url = 'https://a.b'\ntrust.server_certificate = 'self-signed'\ntrust.pilot = true";
        assert!(format!("{:#}", Config::parse(alone).unwrap_err()).contains("certificate_file"));
    }

    #[test]
    fn the_defaults_follow_from_the_certificate() {
        let read = |lines: &str| {
            let config = parse(lines).unwrap();
            let (trust, tls) = (&config.trust, &config.tls);
            (trust.kind(tls), trust.verification(tls), trust.pins(tls))
        };
        assert_eq!(read(""), (ServerKind::Public, Verification::Always, false));
        let private = "trust.server_certificate = 'private-ca'\ntrust.anchors = ['a']\n";
        assert_eq!(read(private), (ServerKind::PrivateCa, Verification::AnchoredFirstContact, true));
        let installed = format!("{private}trust.preinstalled = true\ntrust.pin = 'off'");
        assert_eq!(read(&installed), (ServerKind::PrivateCa, Verification::Always, false));
        let own = "trust.server_certificate = 'self-signed'\ntrust.pilot = true";
        assert_eq!(read(own), (ServerKind::SelfSigned, Verification::AnchoredFirstContact, true));
        let made = Config::parse("public_url = 'https://a.b'").unwrap();
        assert_eq!(made.trust.kind(&made.tls), ServerKind::PrivateCa);
        assert!(made.trust.probe.0);
    }
}
