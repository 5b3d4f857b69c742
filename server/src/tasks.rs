//! The loops beside the listeners. Each looks at the database again and again, so that a crash or a lost wake costs
//! seconds, not work; each ends when the server stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use issuer::scep::CurrentAuthority;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Clock;
use store::Wake;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::{App, authority_settings};
use crate::config::Config;
use crate::listen::ServerCertificate;
use crate::tls::Files;

/// How often gathered last-seen times and token uses are written.
const FLUSH: Duration = Duration::from_secs(5);
/// How often commands whose time is over are ended.
const EXPIRE: Duration = Duration::from_secs(30);
/// How many commands are ended in one transaction.
const EXPIRE_BATCH: i64 = 1_000;
/// How often the reconcile loop looks without being woken.
const RECONCILE: Duration = Duration::from_secs(30);
/// How many assignments the reconcile loop takes at a time.
const RECONCILE_BATCH: i64 = 200;
/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(10);

/// How often the server's own keys are looked at.
const RENEW_KEYS: Duration = Duration::from_secs(86_400);
/// From how long before its end the CA of device identities is an alarm.
const CA_ENDS_SOON: Duration = Duration::from_secs(365 * 86_400);

/// Resolves when the server is to stop.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender being gone is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Starts the loops.
pub(crate) fn spawn(
    work: &mut JoinSet<()>,
    app: &App,
    seen: &checkin::LastSeen,
    guard: &Arc<api::Guard>,
    pusher: push::run::Pusher,
    stopping: &watch::Receiver<bool>,
) {
    let stop = || stopped(stopping.clone());
    let push_stop = stop();
    work.spawn(async move { pusher.run(push_stop).await });
    work.spawn(reconcile(app.store.clone(), Arc::clone(&app.policy), app.clock.clone(), stop()));
    work.spawn(expire(app.store.clone(), app.clock.clone(), stop()));
    work.spawn(renew_keys(KeyRenewal::of(app), stop()));
    work.spawn(flush(app.store.clone(), seen.clone(), Arc::clone(guard), stop()));
}

/// Decides and acts for the assignments that are due.
async fn reconcile(store: store::Store, policy: Arc<policy::Context>, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let more = match policy::reconcile::run_once(&store, &policy, clock.now(), RECONCILE_BATCH).await {
            Ok(taken) => taken > 0,
            Err(e) => {
                tracing::error!(error = %e, "the reconcile loop failed; it goes on");
                false
            }
        };
        let pause = if more { Duration::ZERO } else { RECONCILE };
        tokio::select! {
            () = &mut stop => return,
            () = store.woken(Wake::Reconcile) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What renewing the server's own keys needs.
struct KeyRenewal {
    config: Config,
    store: store::Store,
    clock: Clock,
    random: Random,
    sealer: Sealer,
    authority: CurrentAuthority,
}

impl KeyRenewal {
    fn of(app: &App) -> Self {
        Self {
            config: app.config.clone(),
            store: app.store.clone(),
            clock: app.clock.clone(),
            random: app.random.clone(),
            sealer: app.sealer.clone(),
            authority: app.authority.clone(),
        }
    }

    async fn once(&self) -> anyhow::Result<()> {
        let settings = authority_settings(&self.config)?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let fresh = issuer::Authority::load_or_create(&mut tx, &self.sealer, &self.random, now, &settings).await?;
        tx.commit().await?;
        let left = fresh.certificate().not_after().since(now);
        if left < CA_ENDS_SOON {
            tracing::error!(
                days = left.as_secs() / 86_400,
                "the CA of device identities ends soon: every device must be enrolled anew under another one before that"
            );
        }
        self.authority.replace(fresh);
        Ok(())
    }
}

/// Renews the SCEP registration authority's key long before its end.
async fn renew_keys(renewal: KeyRenewal, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(RENEW_KEYS) => {}
        }
        if let Err(e) = renewal.once().await {
            tracing::error!(
                error = format!("{e:#}"),
                "the server's own keys could not be renewed; tried again tomorrow"
            );
        }
    }
}

/// Ends commands whose time is over.
async fn expire(store: store::Store, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(EXPIRE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        let once = || async {
            let mut tx = store.begin().await?;
            let ended = commands::expire(&mut tx, clock.now(), EXPIRE_BATCH).await?;
            tx.commit().await?;
            Ok::<_, commands::Error>(ended)
        };
        match store::retry(once).await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "commands expired"),
            Err(e) => tracing::error!(error = %e, "expired commands could not be ended; tried again later"),
        }
    }
}

/// Writes what is gathered in memory: when enrollments were last heard of, when tokens were last used.
async fn flush(store: store::Store, seen: checkin::LastSeen, guard: Arc<api::Guard>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(FLUSH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ending = tokio::select! {
            () = &mut stop => true,
            _ = tick.tick() => false,
        };
        if let Err(e) = seen.flush(&store).await {
            tracing::warn!(error = %e, "last-seen times could not be written; they are written later");
        }
        if let Err(e) = guard.flush(&store).await {
            tracing::warn!(error = %e, "uses of API tokens could not be written; they are written later");
        }
        if ending {
            return;
        }
    }
}

/// Takes a renewed certificate without a restart. Files that do not fit together leave the old one in use.
pub(crate) async fn reload_certificate(
    certificate: Arc<ServerCertificate>,
    files: Files,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    let mut tick = interval(RELOAD);
    let mut last = files.read().ok();
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        match files.read() {
            Ok(now) if last.as_ref() == Some(&now) => {}
            Ok((chain, key)) => {
                match certificate.replace(&chain, &key) {
                    Ok(()) => tracing::info!(file = %files.certificate.display(), "took the renewed TLS certificate"),
                    Err(e) => tracing::error!(error = %e, "the new TLS certificate cannot be used; the old one stays"),
                }
                last = Some((chain, key));
            }
            Err(e) => {
                tracing::error!(error = format!("{e:#}"), "the TLS certificate's files do not fit; the old one stays");
            }
        }
    }
}
