//! Gathers the facts: of the configuration, the files, the database and the network.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use mdm_core::certificate::Certificate;
use mdm_core::ids::Fingerprint;
use mdm_core::time::{Clock, Timestamp};
use store::{Store, Tx};
use url::Url;

use super::ends::{NOTICE, URGENT};
use super::facts::{Ending, Facts, Lost, Seen, Stale};
use super::{Finding, examine, kept, probe};
use crate::config::{Config, ServerKind, Verification};
use crate::listen::ServerCertificate;
use crate::tls;

/// From how long before its end the CA of device identities is told of: every device must get a new one before that.
const CA_NOTICE: Duration = Duration::from_secs(365 * 86_400);
/// The same for an external one, which may live shorter: at most the last third of its life.
const EXTERNAL_CA_NOTICE: Duration = Duration::from_secs(90 * 86_400);

/// What the configuration says about trust, with its files read.
#[derive(Debug, Clone)]
pub struct Setup {
    public_url: Url,
    /// Who is said to have signed the certificate.
    pub kind: ServerKind,
    preinstalled: bool,
    /// Whether profiles pin the anchors.
    pub pinned: bool,
    /// `trust.pilot`.
    pub pilot: bool,
    /// `trust.probe`.
    pub probe: bool,
    pub(super) force_switch: bool,
    /// The CA certificates that devices are given now.
    pub anchors: Vec<Certificate>,
    /// Those that will take over.
    pub next_anchors: Vec<Certificate>,
    public_roots: Vec<Certificate>,
    /// The CAs of `identity.external_ca_file`.
    external: Vec<Certificate>,
    /// How often a certificate that is held back is judged again.
    pub(super) judge_again: Duration,
}

impl Setup {
    /// Reads the files of `[trust]`. A self-signed certificate is its own anchor.
    pub fn read(config: &Config) -> Result<Self> {
        let (trust, tls) = (&config.trust, &config.tls);
        let all = |paths: &[std::path::PathBuf]| -> Result<Vec<Certificate>> {
            Ok(paths.iter().map(|path| tls::read_anchors(path)).collect::<Result<Vec<_>>>()?.concat())
        };
        let mut anchors = all(&trust.anchors)?;
        let kind = trust.kind(tls);
        if let (ServerKind::SelfSigned, true, Some(file)) = (kind, anchors.is_empty(), &tls.certificate_file) {
            anchors.extend(tls::read_anchors(file)?.into_iter().take(1));
        }
        Ok(Self {
            public_url: config.public_url.clone(),
            kind,
            preinstalled: trust.preinstalled,
            pinned: trust.pins(tls),
            pilot: trust.pilot,
            probe: trust.probe.0,
            force_switch: trust.force_switch,
            anchors,
            next_anchors: all(&trust.next_anchors)?,
            public_roots: trust.public_roots().to_vec(),
            external: config
                .identity
                .external_ca_file
                .as_deref()
                .map(tls::read_anchors)
                .transpose()?
                .unwrap_or_default(),
            judge_again: trust.judge_again(),
        })
    }

    /// Everything that devices are given: the anchors of now and the next ones.
    pub fn given(&self) -> Vec<Certificate> {
        self.anchors.iter().chain(&self.next_anchors).cloned().collect()
    }

    /// What a device needs for the first contact: nothing where the certificate is of a public CA.
    fn needed(&self) -> Vec<Certificate> {
        if self.kind == ServerKind::Public { Vec::new() } else { self.given() }
    }

    /// The facts as they are with this chain, without what the database knows.
    pub fn facts_at_hand(&self, chain: Vec<Certificate>, seen: Seen) -> Facts {
        Facts {
            public_url: self.public_url.clone(),
            kind: self.kind,
            preinstalled: self.preinstalled,
            pinned: self.pinned,
            pilot: self.pilot,
            chain,
            files_trouble: None,
            held_back: None,
            anchors: self.anchors.clone(),
            next_anchors: self.next_anchors.clone(),
            former_anchors: Vec::new(),
            public_roots: self.public_roots.clone(),
            groups: Vec::new(),
            ends: self.external.iter().map(of_external).collect(),
            stale: Vec::new(),
            seen,
        }
    }

    /// The facts as they are with this chain.
    pub async fn facts(&self, tx: &mut Tx, chain: Vec<Certificate>, seen: Seen) -> Result<Facts, store::Error> {
        let mut facts = self.facts_at_hand(chain, seen);
        facts.groups = store::anchors::groups(tx).await?;
        facts.former_anchors = kept::anchors(tx).await?;
        facts.ends.extend(endings(tx).await?);
        facts.stale = stale(tx, &self.needed()).await?;
        Ok(facts)
    }

    /// What is seen through the public URL, where `trust.probe` allows a look.
    pub async fn look(&self) -> Seen {
        if self.probe { probe::look(&self.public_url).await } else { Seen::NotLooked }
    }

    /// How many live enrollments hold every next anchor.
    pub fn next_holders(&self, groups: &[store::anchors::Group]) -> i64 {
        let next: Vec<Fingerprint> = self.next_anchors.iter().map(Certificate::fingerprint).collect();
        let holds = |group: &&store::anchors::Group| {
            group.anchors.as_ref().is_some_and(|held| next.iter().all(|anchor| held.contains(anchor)))
        };
        groups.iter().filter(holds).map(|group| group.enrollments).sum()
    }
}

/// An external CA of device identities, which ends with every identity below it.
fn of_external(ca: &Certificate) -> Ending {
    let life = ca.not_after().since(ca.not_before());
    Ending {
        about: "external CA",
        name: format!("{} (identity.external_ca_file)", ca.subject()),
        not_after: ca.not_after(),
        notice: EXTERNAL_CA_NOTICE.min(life / 3),
        what_to_do: "at its end no identity below it is accepted: put the next CA beside it in identity.external_ca_file, let the ACME \
                     server issue under it, and renew the devices: docs/identity.md",
    }
}

/// Push certificates, the server's own CAs and the tokens of Automated Device Enrollment.
async fn endings(tx: &mut Tx) -> Result<Vec<Ending>, store::Error> {
    let mut endings = Vec::new();
    for cert in store::push::certs(tx).await? {
        endings.push(Ending {
            about: "push certificate",
            name: cert.topic,
            not_after: Timestamp(cert.not_after),
            notice: NOTICE,
            what_to_do: "renew the same certificate in Apple's push portal: another one has another topic and loses every device",
        });
    }
    for server in store::ade::servers::list(tx).await? {
        if let Some(not_after) = server.token_expires_at {
            endings.push(Ending {
                about: "ADE token",
                name: format!("the token of ADE server {}", server.name),
                not_after: Timestamp(not_after),
                notice: NOTICE,
                what_to_do: "download a new one from Apple's portal and put it: docs/doors/ade.md",
            });
        }
    }
    // The server renews the other keys by itself, weeks before their end.
    let own = [("identity-ca", CA_NOTICE), ("scep-ra", URGENT), ("profile-signer", URGENT), ("server-tls-ca", NOTICE)];
    for (name, notice) in own {
        if let Some(row) = store::keys::get(tx, name).await? {
            endings.push(Ending {
                about: "CA",
                name: name.to_owned(),
                not_after: Timestamp(row.not_after),
                notice,
                what_to_do: "see docs/operations.md, \"Keys\"",
            });
        }
    }
    Ok(endings)
}

/// Profiles at Apple with other anchors than ours.
async fn stale(tx: &mut Tx, given: &[Certificate]) -> Result<Vec<Stale>, store::Error> {
    let given: Vec<Fingerprint> = given.iter().map(Certificate::fingerprint).collect();
    match ade::stale_anchors(tx, &given).await {
        Ok(stale) => Ok(stale.into_iter().map(|s| Stale { server: s.server, profile: s.profile }).collect()),
        Err(ade::Error::Store(e)) => Err(e),
        Err(e) => {
            tracing::error!(error = %e, "the anchors of profiles at Apple could not be compared");
            Ok(Vec::new())
        }
    }
}

/// The trust of a running server.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    store: Store,
    clock: Clock,
    served: Option<Arc<ServerCertificate>>,
    state: RwLock<State>,
}

/// What was learned beside the database.
#[derive(Debug, Clone)]
struct State {
    seen: Seen,
    files_trouble: Option<String>,
    held_back: Option<Lost>,
}

impl Watch {
    /// For a server that serves this certificate (none behind a proxy).
    pub fn new(setup: Setup, store: Store, clock: Clock, served: Option<Arc<ServerCertificate>>) -> Self {
        let state = RwLock::new(State { seen: Seen::NotLooked, files_trouble: None, held_back: None });
        Self(Arc::new(Inner { setup, store, clock, served, state }))
    }

    /// What the configuration says.
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// The facts of this moment. What is seen through the public URL is what [`Self::look`] saw last.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub async fn facts(&self) -> Result<Facts, store::Error> {
        let chain = self.0.served.as_ref().map(|served| served.chain()).unwrap_or_default();
        let State { seen, files_trouble, held_back } =
            self.0.state.read().map(|state| state.clone()).expect("no holder of this lock panics");
        let mut tx = self.0.store.read().await?;
        let facts = self.0.setup.facts(&mut tx, chain, seen).await?;
        Ok(Facts { files_trouble, held_back, ..facts })
    }

    /// What is wrong at this moment, or soon will be.
    pub async fn examine(&self) -> Result<Vec<Finding>, store::Error> {
        Ok(examine::examine(&self.facts().await?, self.0.clock.now()))
    }

    /// What `GET /api/v1/trust` says.
    pub fn for_api(&self, verification: Verification) -> api::AskTrust {
        let watch = self.clone();
        api::AskTrust::new(move || {
            let watch = watch.clone();
            async move { watch.report(verification).await }
        })
    }

    async fn report(&self, verification: Verification) -> Result<api::TrustReport, store::Error> {
        let facts = self.facts().await?;
        let setup = self.setup();
        let short = |certificates: &[Certificate]| certificates.iter().map(api::CertificateOf::from).collect();
        let count = |which: &dyn Fn(&store::anchors::Group) -> bool| -> i64 {
            facts.groups.iter().filter(|group| which(group)).map(|group| group.enrollments).sum()
        };
        let finding = |finding: Finding| api::TrustFinding {
            code: finding.code.as_str(),
            about: finding.about,
            text: finding.text,
            what_to_do: finding.what_to_do,
        };
        Ok(api::TrustReport {
            server_certificate: setup.kind.as_str(),
            verification: verification.as_str(),
            pinned: setup.pinned,
            pilot: setup.pilot,
            chain: short(facts.shown()),
            anchors: short(&facts.anchors),
            next_anchors: short(&facts.next_anchors),
            devices: api::Devices {
                live: count(&|_| true),
                hold_next_anchors: setup.next_holders(&facts.groups),
                unknown: count(&|group| group.anchors.is_none()),
            },
            findings: examine::examine(&facts, self.0.clock.now()).into_iter().map(finding).collect(),
        })
    }

    /// Looks at the server through its public URL.
    pub async fn look(&self) {
        let seen = self.0.setup.look().await;
        if let Seen::Unreachable(why) = &seen {
            tracing::info!(
                why,
                "this server does not reach its own public URL, so nothing is known of what is seen there"
            );
        }
        self.change(|state| state.seen = seen);
    }

    /// Says that the files cannot be used, or that they can again.
    pub(super) fn files(&self, trouble: Option<String>) {
        self.change(|state| state.files_trouble = trouble);
    }

    /// Says that the files' chain is held back, or that it is not any more.
    pub(crate) fn held_back(&self, lost: Option<Lost>) {
        self.change(|state| state.held_back = lost);
    }

    /// How many devices this chain would lose, of how many.
    pub(super) async fn lost(&self, chain: &[Certificate]) -> Result<Lost> {
        let mut tx = self.0.store.read().await.context("the database does not answer")?;
        let facts = self.0.setup.facts(&mut tx, chain.to_vec(), Seen::NotLooked).await?;
        Ok(examine::lost(&facts, chain, self.0.clock.now()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.write().expect("no holder of this lock panics"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Code;
    use crate::trust::ends::DAY;

    #[test]
    fn w4_tells_of_the_end_of_an_external_ca() {
        let made = rcgen::generate_simple_self_signed(vec!["Identities".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identities.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let text = format!(
            "public_url = 'https://mdm.example.com'\nidentity.external_ca_file = {:?}",
            file.display().to_string()
        );
        let setup = Setup::read(&Config::parse(&text).unwrap()).unwrap();
        let facts = setup.facts_at_hand(Vec::new(), Seen::NotLooked);
        let end = setup.external[0].not_after();
        let codes = |now: Timestamp| examine::examine(&facts, now).iter().map(|f| f.code).collect::<Vec<_>>();
        assert_eq!(codes(end.minus(91 * DAY)), []);
        assert_eq!(codes(end.minus(89 * DAY)), [Code::W4]);
        assert_eq!(codes(end.plus(DAY)), [Code::W4]);
    }
}
