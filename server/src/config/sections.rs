//! The sections that need no more than a few words each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

/// How often one address may ask. Raise them where many devices enroll from behind one address (NAT).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Enrollment pages and profiles per minute from one address.
    pub enroll_per_ip_per_minute: u32,
    /// SCEP requests per minute from one address.
    pub scep_per_ip_per_minute: u32,
    /// SCEP requests per minute from all addresses together.
    pub scep_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { enroll_per_ip_per_minute: 30, scep_per_ip_per_minute: 30, scep_per_minute: 1_200 }
    }
}

/// Where the server listens. Three listeners, so that exposing one cannot expose another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Devices: check-in, polls, SCEP, enrollment pages.
    pub device: SocketAddr,
    /// Operators: the REST API. Served with the same certificate as the device listener.
    pub operator: SocketAddr,
    /// Health and metrics, without TLS; keep it on loopback or an internal network.
    pub health: SocketAddr,
    /// Most connections at a time on the device listener.
    pub max_connections: usize,
    /// Most connections at a time from one address. A proxy listed in `proxy.trusted_peers` is not limited.
    pub max_connections_per_ip: usize,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            device: SocketAddr::from(([0, 0, 0, 0], 8443)),
            operator: SocketAddr::from(([127, 0, 0, 1], 8444)),
            health: SocketAddr::from(([127, 0, 0, 1], 8445)),
            max_connections: 20_000,
            max_connections_per_ip: 512,
        }
    }
}

/// The device listener's certificate. Files are read again when they change; no restart is needed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM: the server's certificate, then its intermediates.
    pub certificate_file: Option<PathBuf>,
    /// PEM: the key of the certificate.
    pub key_file: Option<PathBuf>,
    /// `true`: no TLS here, because a proxy in front ends it. Then identities come by `Mdm-Signature` or the proxy's header.
    pub off: bool,
    /// The former name of `trust.anchors`; refused with a word about that.
    pub(super) anchors_file: Option<PathBuf>,
}

impl Tls {
    /// Whether the server makes its certificate itself, because none is configured.
    pub fn is_made_here(&self) -> bool {
        !self.off && self.certificate_file.is_none()
    }
}

/// The database.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite:/path/assay.db` or `postgres://…`. Default: `assay.db` in `data_dir`.
    pub url: Option<String>,
    /// File that holds the URL, where it has a password.
    pub url_file: Option<PathBuf>,
    /// Most connections.
    pub max_connections: Option<u32>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("url_file", &self.url_file).finish_non_exhaustive()
    }
}

/// The key that seals secrets at rest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    /// File with 32 bytes as 64 hexadecimal digits. Default: `seal.key` in `data_dir`, made at the first start.
    pub key_file: Option<PathBuf>,
}

/// The identity certificates of devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Days that a certificate of the built-in CA is valid; at most 365.
    pub lifetime_days: u32,
    /// PEM: CA certificates of identities that are issued elsewhere.
    pub external_ca_file: Option<PathBuf>,
    /// How an external identity is tied to a device.
    pub external_match: ExternalMatch,
}

impl Default for Identity {
    fn default() -> Self {
        Self { lifetime_days: 365, external_ca_file: None, external_match: ExternalMatch::Record }
    }
}

/// How an external identity is tied to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalMatch {
    /// An issuance record was imported for the certificate.
    Record,
    /// Or the certificate's common name is the device's UDID, serial number or EnrollmentID.
    Subject,
}

/// The `Mdm-Signature` header.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MdmSignature {
    /// What to do with SHA-1 digests: `log` (accept and count), `accept` or `refuse`.
    pub sha1: Sha1,
    /// Refuse a `signingTime` that is further than `skew_hours` away, instead of logging it.
    pub strict: bool,
    /// Hours that a `signingTime` may be away.
    pub skew_hours: u32,
}

impl Default for MdmSignature {
    fn default() -> Self {
        Self { sha1: Sha1::Log, strict: false, skew_hours: 24 }
    }
}

/// What to do with SHA-1 digests in `Mdm-Signature`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sha1 {
    /// Accept, count and log.
    Log,
    /// Accept.
    Accept,
    /// Refuse.
    Refuse,
}

/// A proxy that ends TLS in front of the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Addresses that are believed about the client certificate and the client's address. Default: none.
    pub trusted_peers: Vec<IpAddr>,
    /// Header in which they hand on the client certificate: RFC 9440 (`Client-Cert`) or URL-escaped PEM (nginx).
    pub certificate_header: Option<String>,
    /// Header in which they hand on the client's address, such as `X-Forwarded-For` (its last entry counts).
    pub address_header: Option<String>,
}

/// The built-in SCEP server.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scep {
    /// Answer DES, 3DES and SHA-1 messages in kind. Weak: only for old clients and simulators.
    pub legacy: bool,
    /// Answer a client that renews its certificate by itself (`RenewalReq`).
    pub renewal: bool,
    /// Minutes that a challenge lives; at most 60.
    pub challenge_minutes: u32,
}

impl Default for Scep {
    fn default() -> Self {
        Self { legacy: false, renewal: true, challenge_minutes: 60 }
    }
}

/// Enrollment profiles and links.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enroll {
    /// CMS-sign enrollment profiles.
    pub sign_profile: bool,
    /// `PayloadIdentifier` of the enrollment profile; must not change once devices are enrolled. Default: the host of
    /// `public_url` backwards, and `enrollment`.
    pub profile_identifier: Option<String>,
    /// Let devices put an `Mdm-Signature` on each request (`SignMessage`).
    pub sign_message: bool,
    /// Tell APNs' sandbox from production (`UseDevelopmentAPNS`); keep false with certificates of Apple's push portal.
    pub use_development_apns: bool,
}

impl Default for Enroll {
    fn default() -> Self {
        Self { sign_profile: true, profile_identifier: None, sign_message: true, use_development_apns: false }
    }
}

/// The identity that signs configuration profiles. Default: one that the built-in CA issues.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSigning {
    /// PEM: the signing certificate, then its intermediates.
    pub certificate_file: Option<PathBuf>,
    /// PEM: its key, RSA or ECDSA.
    pub key_file: Option<PathBuf>,
    /// Further identities, by the name under which an ACME policy's `signing_identity` calls them.
    pub identities: BTreeMap<String, SigningIdentity>,
}

/// One further identity that signs configuration profiles.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningIdentity {
    /// PEM: the signing certificate, then its intermediates.
    pub certificate_file: PathBuf,
    /// PEM: its key, RSA or ECDSA.
    pub key_file: PathBuf,
}

/// APNs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// `a2` speaks to Apple's hosts; `direct` can be given another host, port or CA.
    pub client: PushClient,
    /// `direct` only: where APNs is. Default: Apple's production host.
    pub url: Option<Url>,
    /// `direct` only: PEM of the CA that signed the host's certificate, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// `direct` only: an HTTP proxy to go through, such as `http://proxy.example.com:3128`.
    pub proxy: Option<String>,
    /// The proxy's login, `user:password`.
    pub proxy_login_file: Option<PathBuf>,
    /// Most pushes per second.
    pub per_second: u32,
}

impl Default for Push {
    fn default() -> Self {
        Self { client: PushClient::A2, url: None, ca_file: None, proxy: None, proxy_login_file: None, per_second: 200 }
    }
}

/// Which APNs client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushClient {
    /// The a2 crate.
    A2,
    /// Our own HTTP/2 client.
    Direct,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// What is logged, such as `info` or `info,checkin=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
