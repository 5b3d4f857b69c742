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
use crate::trust::ends::{self, End};
use crate::trust::{self, Watch};

/// How often gathered last-seen times and token uses are written.
const FLUSH: Duration = Duration::from_secs(5);
/// How often commands whose time is over are ended.
const EXPIRE: Duration = Duration::from_secs(30);
/// How many commands are ended in one transaction.
const EXPIRE_BATCH: i64 = 1_000;
/// How often devices in Setup Assistant are looked at.
const SET_UP: Duration = Duration::from_secs(5);
/// How many of them at a time.
const SET_UP_BATCH: i64 = 200;
/// How often the reconcile loop looks without being woken.
const RECONCILE: Duration = Duration::from_secs(30);
/// How many assignments the reconcile loop takes at a time.
const RECONCILE_BATCH: i64 = 500;
/// How often the trust in this server is judged.
const TRUST: Duration = Duration::from_secs(3600);

/// How often sign-ins that ended are deleted.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// How often the renewal loop looks without being woken.
const RENEW: Duration = Duration::from_secs(60);
/// How many renewals it takes at a time.
const RENEW_BATCH: i64 = 100;
/// How often is looked whether a rollout is due.
const ROLLOUTS: Duration = Duration::from_secs(2);
/// How often certificates of policies that end are looked for.
const ALARM: Duration = Duration::from_secs(60);
/// How many of them are told of in one transaction.
const ALARM_BATCH: i64 = 200;
/// How often what policies leave behind is cleared.
const CLEAR_HISTORY: Duration = Duration::from_secs(6 * 3600);
/// How often is looked whether a visit to Apple's device service is due.
const VISIT_APPLE: Duration = Duration::from_secs(3);
/// How often is looked whether attestation data has been kept for long enough.
const FORGET: Duration = Duration::from_secs(600);
/// How many rows of each kind are forgotten in one transaction.
const FORGET_BATCH: i64 = 500;
/// How often the server's own keys are looked at.
const RENEW_KEYS: Duration = Duration::from_secs(86_400);
/// From how long before its end the CA of device identities is an alarm.
const CA_ENDS_SOON: Duration = Duration::from_secs(365 * 86_400);

/// Resolves when the server is to stop.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender being gone is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// What the loops that reach out work with.
pub(crate) struct Workers {
    /// Sends pushes.
    pub(crate) pusher: push::run::Pusher,
    /// Renews device identities.
    pub(crate) renewal: renewal::Context,
    /// Speaks with Apple's device service.
    pub(crate) automated: ade::Context,
}

/// Starts the loops.
pub(crate) fn spawn(
    work: &mut JoinSet<()>,
    app: &App,
    seen: &checkin::LastSeen,
    guard: &Arc<api::Guard>,
    workers: Workers,
    stopping: &watch::Receiver<bool>,
) {
    let Workers { pusher, renewal, automated } = workers;
    let stop = || stopped(stopping.clone());
    let push_stop = stop();
    work.spawn(async move { pusher.run(push_stop).await });
    work.spawn(reconcile(app.store.clone(), Arc::clone(&app.policy), app.clock.clone(), stop()));
    work.spawn(renew(app.store.clone(), renewal, app.clock.clone(), stop()));
    work.spawn(rollouts(app.store.clone(), app.random.clone(), app.clock.clone(), stop()));
    work.spawn(watch_certificates(app.store.clone(), app.clock.clone(), stop()));
    work.spawn(clear_history(app.store.clone(), app.config.acme_policies.history(), app.clock.clone(), stop()));
    work.spawn(visit_apple(automated, stop()));
    work.spawn(set_up(app.store.clone(), app.commands.clone(), app.clock.clone(), stop()));
    work.spawn(expire(app.store.clone(), app.clock.clone(), stop()));
    work.spawn(renew_keys(KeyRenewal::of(app), stop()));
    work.spawn(forget_attestations(app.store.clone(), Arc::clone(&app.policy), app.clock.clone(), stop()));
    work.spawn(clean_up_sign_ins(app.store.clone(), app.clock.clone(), stop()));
    work.spawn(flush(app.store.clone(), seen.clone(), Arc::clone(guard), stop()));
    work.spawn(judge_trust(app.store.clone(), app.watch.clone(), app.clock.clone(), stop()));
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

/// Forgets the data of attestations that has been kept for long enough (TH-49).
async fn forget_attestations(
    store: store::Store,
    policy: Arc<policy::Context>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) {
    let once = async || {
        let mut tx = store.begin().await?;
        let forgotten = attestation::forget(&mut tx, &policy.attestation, FORGET_BATCH, clock.now()).await?;
        tx.commit().await?;
        Ok::<_, attestation::Error>(forgotten)
    };
    tokio::pin!(stop);
    loop {
        let more = match once().await {
            Ok(forgotten) => forgotten > 0,
            Err(e) => {
                tracing::error!(error = %e, "old attestations could not be forgotten; it is tried again");
                false
            }
        };
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(if more { Duration::from_secs(1) } else { FORGET }) => {}
        }
    }
}

/// Renews the identities of devices, and keeps the figures of it.
async fn renew(store: store::Store, renewal: renewal::Context, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let more = match renewal::run_once(&store, &renewal, clock.now(), RENEW_BATCH).await {
            Ok(taken) => i64::try_from(taken).is_ok_and(|taken| taken >= RENEW_BATCH),
            Err(e) => {
                tracing::error!(error = %e, "the renewal loop failed; it goes on");
                false
            }
        };
        if let Err(e) = renewal::report(&store, clock.now()).await {
            tracing::warn!(error = %e, "the figures of renewals could not be read");
        }
        let pause = if more { Duration::ZERO } else { RENEW };
        tokio::select! {
            () = &mut stop => return,
            () = store.woken(Wake::Renewal) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Moves rollouts on, and keeps the figures of them.
async fn rollouts(store: store::Store, random: Random, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(ROLLOUTS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        if let Err(e) = rollout::run_once(&store, &random, clock.now()).await {
            tracing::error!(error = %e, "the loop of rollouts failed; it goes on");
        }
        if let Err(e) = rollout::figures(&store).await {
            tracing::warn!(error = %e, "the figures of rollouts could not be read");
        }
    }
}

/// Says which certificates of policies end and were not renewed, and keeps the figures of them.
async fn watch_certificates(store: store::Store, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let more = match policy::alarm::sound(&store, clock.now(), ALARM_BATCH).await {
            Ok(said) => i64::try_from(said).is_ok_and(|said| said >= ALARM_BATCH),
            Err(e) => {
                tracing::error!(error = %e, "certificates that end could not be looked for; tried again");
                false
            }
        };
        if let Err(e) = policy::alarm::report(&store, clock.now()).await {
            tracing::warn!(error = %e, "the figures of certificates could not be read");
        }
        let pause = if more { Duration::ZERO } else { ALARM };
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Deletes what policies left behind long ago.
async fn clear_history(store: store::Store, history: Duration, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(CLEAR_HISTORY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        match policy::retention::prune(&store, history, clock.now()).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "the past of ACME policies was cleared"),
            Err(e) => tracing::warn!(error = %e, "the past of ACME policies could not be cleared; tried again later"),
        }
    }
}

/// Visits the servers of Apple's portal whose visit is due.
async fn visit_apple(automated: ade::Context, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        if let Err(e) = ade::run_once(&automated, automated.clock.now()).await {
            tracing::error!(error = %e, "the loop that visits Apple's device service failed; it goes on");
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(VISIT_APPLE) => {}
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
    signers: policy::Signers,
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
            signers: app.policy.signers.clone(),
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
        self.signers.replace(fresh.profile_signer().clone());
        self.authority.replace(fresh);
        for (name, not_after) in self.signers.ends() {
            if ends::of(not_after, now, ends::NOTICE) != End::Far {
                tracing::warn!(identity = name, %not_after, "a certificate that signs profiles ends: put a new one in its place");
            }
        }
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

/// Lets devices in Setup Assistant go on whose set-up is done, or whose time for it is over.
async fn set_up(store: store::Store, queue: commands::Context, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(SET_UP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        if let Err(e) = checkin::set_up::run_once(&store, &queue, clock.now(), SET_UP_BATCH).await {
            tracing::error!(error = %e, "devices in Setup Assistant could not be looked at; tried again");
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

/// Deletes sign-ins that ended a day ago, and before them the tokens that nobody came in by.
async fn clean_up_sign_ins(store: store::Store, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(CLEAN_UP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        if let Err(e) = account::clean_up(&store, clock.now()).await {
            tracing::warn!(error = %e, "tokens of no enrollment could not be deleted; tried again later");
        }
        if let Err(e) = signin::clean_up(&store, clock.now()).await {
            tracing::warn!(error = %e, "ended sign-ins could not be deleted; tried again later");
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

/// Judges the trust in this server: at the start, every hour, and says so in the log once a day, what is urgent every hour.
/// Where a next anchor is staged, devices that lack it get a new profile.
async fn judge_trust(store: store::Store, watch: Watch, clock: Clock, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(TRUST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hours: u32 = 0;
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        let daily = hours.is_multiple_of(24);
        hours = hours.wrapping_add(1);
        if daily {
            // It ends within seconds; and the server that it looks at is this one.
            watch.look().await;
        }
        match watch.examine().await {
            Ok(mut findings) => {
                findings.retain(|finding| daily || finding.urgent);
                trust::log(&findings);
            }
            Err(e) => {
                tracing::error!(error = %e, "the trust in this server could not be judged; tried again in an hour");
            }
        }
        match trust::renew_profiles(&store, watch.setup(), clock.now()).await {
            Ok(0) => {}
            Ok(asked) => tracing::info!(asked, "devices that lack the next anchor get a new enrollment profile"),
            Err(e) => {
                tracing::error!(error = %e, "new profiles with the next anchor could not be asked for; tried again in an hour");
            }
        }
    }
}
