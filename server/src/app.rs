//! The wiring: everything is built here, top to bottom, and handed down. No globals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use checkin::Sha1 as Sha1Rule;
use issuer::scep::CurrentAuthority;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::machine_info::DeviceAuthorities;
use mdm_core::crypto::seal::Sealer;
use mdm_core::crypto::trust::Trust;
use mdm_core::ids::Fingerprint;
use mdm_core::random::Random;
use mdm_core::rate::{Buckets, Rate};
use mdm_core::secret::Secret;
use mdm_core::time::Clock;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, ExternalMatch, PushClient, ServerKind, Sha1};
use crate::listen::{self, Limits, Listener, ServerCertificate, TrustedProxies};
use crate::tasks::Workers;
use crate::trust::{self, Setup, Switch, Watch};
use crate::{health, seal, tasks, telemetry, tls};

/// The opened server: database, keys and contexts, not listening yet.
#[derive(Debug)]
pub struct App {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) sealer: Sealer,
    pub(crate) authority: CurrentAuthority,
    pub(crate) trust: Arc<Trust>,
    /// The external CAs whose certificates devices may show.
    external_issuers: Vec<Fingerprint>,
    /// Who certifies devices in the factory.
    device_authorities: Arc<DeviceAuthorities>,
    pub(crate) commands: commands::Context,
    pub(crate) policy: Arc<policy::Context>,
    /// How people sign in; every door shares it.
    pub(crate) sign_in: signin::Context,
    certificate: Option<Arc<ServerCertificate>>,
    /// CA certificates that devices are given for the server's own certificate, the next ones included.
    pub(crate) anchors: Vec<Certificate>,
    /// Whether and why devices trust the server's own certificate.
    pub(crate) watch: Watch,
}

/// The running server.
#[derive(Debug)]
pub struct Running {
    /// Where devices connect.
    pub device: SocketAddr,
    /// Where operators connect.
    pub operator: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
    /// CA certificates that a client must trust for the server's own certificate; none with a public one.
    pub anchors: Vec<Certificate>,
    stop: watch::Sender<bool>,
    work: JoinSet<()>,
}

impl Running {
    /// Takes no more connections, lets open requests end, flushes what is gathered, and returns.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.work.join_next().await.is_some() {}
    }
}

impl App {
    /// Opens the database and the keys, making what a first start makes.
    pub async fn open(config: &Config) -> Result<Self> {
        let (clock, random) = (Clock::System, Random::System);
        let now = clock.now();
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))?;
        let mut settings = store::Settings::new(config.store_url()?);
        if let Some(max) = config.store.max_connections {
            settings.max_connections = max;
        }
        let store = Store::open(&settings).await?;
        let sealer = seal::open(&store, &config.seal_key_file(), &random, now).await?;

        let mut tx = store.begin().await?;
        let authority =
            issuer::Authority::load_or_create(&mut tx, &sealer, &random, now, &authority_settings(config)?).await?;
        let mut setup = Setup::read(config)?;
        let (certificate, held_back) = trust::served(config, &mut setup, &mut tx, &sealer, &random, now).await?;
        tx.commit().await?;
        let anchors = setup.given();
        let watch = Watch::new(setup, store.clone(), clock.clone(), certificate.clone());
        watch.held_back(held_back);

        let mut issuers = vec![authority.certificate().clone()];
        if let Some(file) = &config.identity.external_ca_file {
            issuers.extend(tls::read_anchors(file)?);
        }
        let external_issuers = issuers.iter().skip(1).map(Certificate::fingerprint).collect();
        let commands =
            commands::Context { sealer: sealer.clone(), random: random.clone(), stall: commands::Stall::default() };
        let policy = policy::Context {
            commands: commands.clone(),
            attestation: config.attestation.context(random.clone())?,
            signers: policy::Signers::with_named(authority.profile_signer().clone(), named_signers(config)?),
            identifier: config.profile_identifier(),
            organization: Some(config.organization.clone()),
        };
        let sign_in = signin::Context {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            sealer: sealer.clone(),
            settings: Arc::new(config.sign_in_settings()),
            provider: config.sign_in.provider()?,
            limits: Arc::default(),
        };
        Ok(Self {
            config: config.clone(),
            store,
            clock,
            random,
            sealer,
            authority: CurrentAuthority::new(authority),
            trust: Arc::new(Trust::new(issuers)?),
            external_issuers,
            device_authorities: Arc::new(config.machine_info.authorities()?),
            commands,
            policy: Arc::new(policy),
            sign_in,
            certificate,
            anchors,
            watch,
        })
    }

    /// Makes an API token and gives its text, which is known only now.
    pub async fn make_token(&self, name: &str, scopes: &[api::Scope], days: u32) -> Result<String> {
        let life = Duration::from_secs(u64::from(days) * 86_400);
        let scopes = api::Scopes::new(scopes);
        let mut tx = self.store.begin().await?;
        let minted = api::mint(&mut tx, &self.random, self.clock.now(), name, &scopes, life, "command line").await?;
        tx.commit().await?;
        Ok(minted.text.expose().clone())
    }

    /// Binds the three listeners, starts the loops, and serves until [`Running::stop`].
    pub async fn start(self) -> Result<Running> {
        let (stop, stopping) = watch::channel(false);
        let bind = async |at: SocketAddr| TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"));
        let listen = &self.config.listen;
        let (device, operator, health) =
            (bind(listen.device).await?, bind(listen.operator).await?, bind(listen.health).await?);
        let addresses = (device.local_addr()?, operator.local_addr()?, health.local_addr()?);

        let seen = checkin::LastSeen::default();
        let guard = Arc::new(api::Guard::default());
        let mut work = JoinSet::new();
        let workers = Workers { pusher: self.pusher()?, renewal: self.renewal()?, automated: self.ade()? };
        tasks::spawn(&mut work, &self, &seen, &guard, workers, &stopping);
        if let (Some(certificate), Some(files)) = (&self.certificate, tls::Files::of(&self.config)) {
            let switch = Switch {
                certificate: Arc::clone(certificate),
                files,
                watch: self.watch.clone(),
                store: self.store.clone(),
                sealer: self.sealer.clone(),
                random: self.random.clone(),
                clock: self.clock.clone(),
            };
            work.spawn(trust::reload(switch, tasks::stopped(stopping.clone())));
        }

        let limits = Limits {
            connections: listen.max_connections,
            connections_per_ip: listen.max_connections_per_ip,
            ..Limits::default()
        };
        let proxies = TrustedProxies {
            peers: self.config.proxy.trusted_peers.clone(),
            address_header: self.config.proxy.address_header.as_deref().map(str::parse).transpose()?,
        };
        let with_client_certificates =
            self.certificate.clone().map(listen::client_certificates_optional).transpose()?;
        let plain_tls = self.certificate.clone().map(listen::without_client_certificates).transpose()?;
        let stopped = || tasks::stopped(stopping.clone());
        work.spawn(listen::serve(
            Listener { tcp: device, tls: with_client_certificates, limits, proxies: proxies.clone() },
            self.device_router(seen)?,
            stopped(),
        ));
        work.spawn(listen::serve(
            Listener { tcp: operator, tls: plain_tls, limits, proxies },
            api::router(self.api(guard)?),
            stopped(),
        ));
        let health_shared = health::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: telemetry::metrics()?,
            watch: self.watch.clone(),
            signers: self.policy.signers.clone(),
            test_roots: !self.policy.attestation.test_roots.is_empty(),
        };
        work.spawn(listen::serve(
            Listener { tcp: health, tls: None, limits, proxies: TrustedProxies::default() },
            health::router(health_shared),
            stopped(),
        ));
        tracing::info!(device = %addresses.0, operator = %addresses.1, health = %addresses.2, "assay listens");
        Ok(Running {
            device: addresses.0,
            operator: addresses.1,
            health: addresses.2,
            anchors: self.anchors,
            stop,
            work,
        })
    }

    fn device_router(&self, seen: checkin::LastSeen) -> Result<Router> {
        let limits = self.config.limits;
        let url = |path: &str| self.config.public_url.join(path).map(String::from);
        let external_by_subject = self.config.identity.external_match == ExternalMatch::Subject;
        let checkin = checkin::router(checkin::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            sealer: self.sealer.clone(),
            trust: Arc::clone(&self.trust),
            commands: self.commands.clone(),
            policy: Arc::clone(&self.policy),
            bearer: account::bearer::Settings { public_url: self.config.public_url.clone() },
            renewal: Arc::new(self.renewal()?),
            seen,
            settings: Arc::new(checkin::Settings {
                sha1: match self.config.mdm_signature.sha1 {
                    Sha1::Log => Sha1Rule::Log,
                    Sha1::Accept => Sha1Rule::Accept,
                    Sha1::Refuse => Sha1Rule::Refuse,
                },
                strict_skew: self.config.mdm_signature.strict,
                skew: Duration::from_secs(u64::from(self.config.mdm_signature.skew_hours) * 3600),
                trusted_peers: self.config.proxy.trusted_peers.clone(),
                certificate_header: self.config.proxy.certificate_header.as_deref().map(str::parse).transpose()?,
                external_by_subject,
                external_issuers: self.external_issuers.clone(),
                server_url: Some(url("mdm")?),
                network_users: self.config.users.network.into(),
                realm: self.config.realm(),
            }),
        });
        let enrollment = self.enrollment()?;
        let account = account::router(enrollment.clone());
        let enroll = enroll::router(enrollment);
        let scep = issuer::scep::router(issuer::scep::Shared::new(
            self.store.clone(),
            self.authority.clone(),
            self.clock.clone(),
            self.random.clone(),
            issuer::scep::Settings {
                legacy: self.config.scep.legacy,
                renewal: self.config.scep.renewal,
                per_ip_per_minute: limits.scep_per_ip_per_minute,
                per_minute: limits.scep_per_minute,
            },
        ));
        let webhooks = webhook::router(webhook::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            sealer: self.sealer.clone(),
            attestation: self.policy.attestation.clone(),
            turned_away: Arc::default(),
        });
        let crl = issuer::crl::Shared::new(self.store.clone(), self.authority.clone(), self.clock.clone());
        let edge = checkin.merge(enroll).merge(account).merge(scep).merge(issuer::crl::router(crl)).merge(webhooks);
        Ok(edge.merge(signin::router(self.sign_in.clone())))
    }

    /// What makes enrollment profiles: for the pages, and for renewals.
    pub(crate) fn enrollment(&self) -> Result<enroll::Shared> {
        let per_minute = |n: u32| Rate { burst: n, per_second: f64::from(n) / 60.0 };
        let limits = self.config.limits;
        let url = |path: &str| self.config.public_url.join(path).map(String::from);
        Ok(enroll::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            settings: Arc::new(enroll::Settings {
                public_url: self.config.public_url.clone(),
                server_url: url("mdm")?,
                check_in_url: url("checkin")?,
                scep_url: url("scep")?,
                organization: self.config.organization.clone(),
                profile_identifier: self.config.profile_identifier(),
                anchors: self.anchors.clone(),
                pin_anchors: self.watch.setup().pinned,
                pin_revocation_required: self.config.trust.pin_revocation_required,
                trust: enroll::trust::Terms {
                    public: self.watch.setup().kind == ServerKind::Public,
                    pilot: self.watch.setup().pilot,
                },
                sign_profile: self.config.enroll.sign_profile,
                sign_message: self.config.enroll.sign_message,
                use_development_apns: self.config.enroll.use_development_apns,
                challenge_life: Duration::from_secs(u64::from(self.config.scep.challenge_minutes) * 60),
                machine_info_skew: Duration::from_secs(u64::from(self.config.machine_info.skew_hours) * 3600),
                per_ip: per_minute(limits.enroll_per_ip_per_minute),
            }),
            authority: self.authority.clone(),
            sign_in: self.sign_in.clone(),
            device_authorities: Arc::clone(&self.device_authorities),
            asked: Arc::new(Buckets::default()),
            turned_away: Arc::new(Buckets::default()),
        })
    }

    /// What renews device identities.
    pub(crate) fn renewal(&self) -> Result<renewal::Context> {
        Ok(renewal::Context {
            enroll: self.enrollment()?,
            commands: self.commands.clone(),
            settings: self.config.renewal.settings(),
        })
    }

    /// What speaks with Apple's device service.
    pub(crate) fn ade(&self) -> Result<ade::Context> {
        let enrollment = self.enrollment()?.settings;
        let anchors = if enrollment.gives_anchors() { enrollment.anchors.clone() } else { Vec::new() };
        Ok(ade::Context {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            sealer: self.sealer.clone(),
            client: self.config.ade.client()?,
            settings: Arc::new(self.config.ade.settings(&self.config.public_url, anchors)?),
        })
    }

    fn api(&self, guard: Arc<api::Guard>) -> Result<api::Shared> {
        let authority = self.authority.get();
        let ca = authority.certificate();
        Ok(api::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            guard,
            commands: self.commands.clone(),
            policy: self.policy.as_ref().clone(),
            ade: self.ade()?,
            trust: self.watch.for_api(self.config.trust.verification(&self.config.tls)),
            about: Arc::new(api::About {
                public_url: self.config.public_url.clone(),
                identity_ca: ca.fingerprint(),
                identity_ca_not_after: ca.not_after(),
                invitations: self.config.sign_in.invitations,
            }),
        })
    }

    fn pusher(&self) -> Result<push::run::Pusher> {
        let client = match self.config.push.client {
            PushClient::A2 => push::Client::A2,
            PushClient::Direct => push::Client::Direct(endpoint(&self.config)?),
        };
        let settings =
            push::run::Settings { per_second: self.config.push.per_second, ..push::run::Settings::new(client) };
        Ok(push::run::Pusher::new(
            self.store.clone(),
            self.sealer.clone(),
            self.clock.clone(),
            self.random.clone(),
            settings,
        ))
    }
}

/// How the built-in CA is set up.
pub(crate) fn authority_settings(config: &Config) -> Result<issuer::authority::Settings> {
    Ok(issuer::authority::Settings {
        name: format!("{} Device Identity CA", config.organization).chars().take(48).collect(),
        identity_days: config.identity.lifetime_days,
        profile_signer: profile_signer(config)?,
    })
}

/// The operator's own identity for signing profiles, where one is configured.
fn profile_signer(config: &Config) -> Result<Option<ProfileSigner>> {
    let signing = &config.profile_signing;
    match signing.certificate_file.as_deref().zip(signing.key_file.as_deref()) {
        Some((certificate, key)) => signer(certificate, key).context("profile_signing").map(Some),
        None => Ok(None),
    }
}

/// The identities that policies can name for signing their profiles.
fn named_signers(config: &Config) -> Result<BTreeMap<String, ProfileSigner>> {
    let named = config.profile_signing.identities.iter().map(|(name, files)| {
        let signer = signer(&files.certificate_file, &files.key_file)
            .with_context(|| format!("profile_signing.identities.{name}"))?;
        Ok((name.clone(), signer))
    });
    named.collect()
}

fn signer(certificate: &Path, key: &Path) -> Result<ProfileSigner> {
    let identity = tls::files(certificate, key)?;
    let mut chain = identity.certificates()?.into_iter();
    let leaf = chain.next().context("certificate_file holds no certificate")?;
    Ok(ProfileSigner::new(identity.key, leaf, chain.collect())?)
}

/// Where the `direct` APNs client connects.
fn endpoint(config: &Config) -> Result<push::direct::Endpoint> {
    let mut endpoint = push::direct::Endpoint::default();
    if let Some(url) = &config.push.url {
        if url.scheme() != "https" {
            bail!("push.url must begin with https://");
        }
        url.host_str().context("push.url has no host")?.clone_into(&mut endpoint.host);
        endpoint.port = url.port_or_known_default().unwrap_or(443);
    }
    if let Some(file) = &config.push.ca_file {
        let pem = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        endpoint.ca_pem = Some(pem);
    }
    if let Some(url) = &config.push.proxy {
        let read = |file: &std::path::PathBuf| {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let login = config.push.proxy_login_file.as_ref().map(read).transpose()?.map(Secret::new);
        let login = login.as_ref().map(|login| login.expose().trim());
        endpoint.proxy = Some(push::tunnel::Proxy::new(url, login)?);
    }
    Ok(endpoint)
}
