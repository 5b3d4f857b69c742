//! The push loop: takes due wishes, sends them, writes what became of them.
//!
//! A wish is taken under a lease with a number; only the holder of the number can settle it (RG-23), and a wish that is
//! never settled – a crash, a lost database – is taken again when the lease is over. So a push can be sent twice,
//! which devices do not mind, but none is lost (RG-16).

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use serde_json::json;
use store::events::NewEvent;
use store::push::{Lease, Leased, Settled};
use store::{Store, Tx, Wake};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::pace::Pace;
use crate::plan::{self, Next, Plan};
use crate::schedule::Draw;
use crate::topics::Topics;
use crate::{Client, Error, Outcome};

/// How long a wish is held: longer than a push can take ([`crate::TIME_OUT`]) and be written.
const LEASE: Duration = Duration::from_mins(1);
/// How many outcomes are written in one transaction.
const BATCH: usize = 250;
/// How often the loop looks while there is work, and while there is none and nobody wakes it.
const BUSY: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);
/// How often the figures for operators are renewed.
const REPORT: Duration = Duration::from_secs(10);
/// How long pushes in flight may finish when the server stops.
const STOPPING: Duration = Duration::from_secs(5);
/// From how long before its end a push certificate is warned of, then cried out for, and how often.
const WARN_BEFORE: Duration = Duration::from_hours(30 * 24);
const ALARM_BEFORE: Duration = Duration::from_hours(7 * 24);
const WARN_EVERY: Duration = Duration::from_hours(24);

/// How the loop runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How pushes reach APNs.
    pub client: Client,
    /// The pace (RG-20): pushes a second at most.
    pub per_second: u32,
    /// Pushes in flight at most.
    pub in_flight: usize,
}

impl Settings {
    /// Settings with the defaults: 200 pushes a second, 500 in flight.
    pub fn new(client: Client) -> Self {
        Self { client, per_second: 200, in_flight: 500 }
    }
}

/// What one [`Pusher::round`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Wishes taken.
    pub taken: usize,
    /// Pushes sent, whatever became of them.
    pub sent: usize,
    /// Pushes that APNs accepted.
    pub accepted: usize,
}

/// Sends what is due.
pub struct Pusher {
    store: Store,
    sealer: Sealer,
    clock: Clock,
    random: Random,
    in_flight: usize,
    pace: Pace,
    topics: Topics,
    warned_at: Timestamp,
}

/// A push that was sent.
struct Sent {
    row: Leased,
    lease: Uuid,
    topic: String,
    token: Vec<u8>,
    /// Which certificate it was sent with.
    uploaded_at: i64,
    at: Timestamp,
    outcome: Outcome,
    /// The topic was stopped by it, or goes on.
    turned: bool,
}

impl Pusher {
    /// A loop over the wishes in `store`, whose push keys `sealer` opens.
    pub fn new(store: Store, sealer: Sealer, clock: Clock, random: Random, settings: Settings) -> Self {
        Self {
            store,
            sealer,
            clock,
            random,
            in_flight: settings.in_flight.max(1),
            pace: Pace::new(settings.per_second, std::time::Instant::now()),
            topics: Topics::new(settings.client),
            warned_at: Timestamp(0),
        }
    }

    /// Runs until `stop` resolves; pushes in flight then have a few seconds to finish.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let store = self.store.clone();
        let mut flights = JoinSet::new();
        let mut done: Vec<Sent> = Vec::new();
        let mut next = Instant::now();
        let mut next_report = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(sent) = flights.join_next(), if !flights.is_empty() => {
                    done.extend(sent.ok());
                    if done.len() < BATCH && !flights.is_empty() && Instant::now() < next {
                        continue;
                    }
                }
                () = store.woken(Wake::Push) => {}
                () = tokio::time::sleep_until(next) => {}
            }
            self.settle(std::mem::take(&mut done)).await;
            let busy = self.fill(&mut flights).await;
            next = Instant::now() + if busy || !flights.is_empty() { BUSY } else { IDLE };
            if next_report <= Instant::now() {
                next_report = Instant::now() + REPORT;
                if let Err(error) = self.report().await {
                    tracing::warn!(%error, "the push backlog cannot be read");
                }
            }
        }
        let finished = tokio::time::timeout(STOPPING, async {
            while let Some(sent) = flights.join_next().await {
                done.extend(sent.ok());
            }
        });
        if finished.await.is_err() {
            tracing::info!("pushes in flight are given up; they are sent again after the restart");
        }
        self.settle(done).await;
    }

    /// Takes as many wishes as may fly. True if there may be more.
    async fn fill(&mut self, flights: &mut JoinSet<Sent>) -> bool {
        let free = self.in_flight.saturating_sub(flights.len());
        let allowed = self.pace.take(free, std::time::Instant::now());
        if allowed == 0 {
            return true;
        }
        let taken = self.take(allowed, flights).await.unwrap_or_else(|error| {
            tracing::error!(%error, "due pushes cannot be taken");
            0
        });
        self.pace.give_back(allowed.saturating_sub(taken));
        taken == allowed
    }

    /// One round: takes up to as many wishes as may be in flight, whatever the pace, sends them, waits for every answer and writes it.
    pub async fn round(&mut self) -> Result<Round, Error> {
        let mut flights = JoinSet::new();
        let taken = self.take(self.in_flight, &mut flights).await?;
        let mut done = Vec::new();
        while let Some(sent) = flights.join_next().await {
            done.extend(sent.ok());
        }
        let accepted = done.iter().filter(|s| matches!(s.outcome, Outcome::Accepted { .. })).count();
        let sent = done.len();
        self.settle(done).await;
        Ok(Round { taken, sent, accepted })
    }

    /// Takes due wishes and starts sending those that can be sent; the others are put off at once.
    async fn take(&mut self, limit: usize, flights: &mut JoinSet<Sent>) -> Result<usize, Error> {
        let now = self.clock.now();
        if !store::push::any_due(&mut self.store.read().await?, now).await? {
            return Ok(0);
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let lease = Lease { id: self.random.uuid_v4(), now, until: now.plus(LEASE), limit };
        let (rows, certs) = store::retry(|| self.leased(lease)).await?;
        self.topics.refresh(certs, &self.sealer);
        let taken = rows.len();
        let mut put_off: Vec<(Leased, Option<(Next, &str)>)> = Vec::new();
        for row in rows {
            match plan::plan(&row, now, self.draw(), |topic| self.topics.road(topic, now)) {
                Plan::Send(target) => {
                    let Some((apns, uploaded_at)) = self.topics.client(&target.topic) else { continue };
                    flights.spawn(async move {
                        let outcome = apns.send(&target).await;
                        let (topic, token) = (target.topic, target.token);
                        Sent { row, lease: lease.id, topic, token, uploaded_at, at: now, outcome, turned: false }
                    });
                }
                Plan::Wait(until, why) => put_off.push((row.clone(), Some((Next::at(&row, until), why)))),
                Plan::Park => put_off.push((row, Some((Next::parked(), "parked")))),
                Plan::Drop => put_off.push((row, None)),
            }
        }
        if !put_off.is_empty() {
            put_off.sort_by_key(|(row, _)| row.enrollment_id);
            store::retry(|| self.put_off(lease.id, &put_off)).await?;
        }
        Ok(taken)
    }

    async fn leased(&self, lease: Lease) -> Result<(Vec<Leased>, Vec<store::push::Cert>), Error> {
        let mut tx = self.store.begin().await?;
        let rows = store::push::lease(&mut tx, lease).await?;
        let certs = store::push::certs(&mut tx).await?;
        tx.commit().await?;
        Ok((rows, certs))
    }

    async fn put_off(&self, lease: Uuid, rows: &[(Leased, Option<(Next, &str)>)]) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        for (row, next) in rows {
            match next {
                Some((next, why)) => {
                    store::push::settle(&mut tx, &settled(row, lease, *next, None, why)).await?;
                }
                None => store::push::discard(&mut tx, EnrollmentId(row.enrollment_id), lease).await?,
            }
        }
        Ok(tx.commit().await?)
    }

    /// Writes outcomes, together if it can be; otherwise one by one, so that one bad row stops no other (RG-19).
    async fn settle(&mut self, mut done: Vec<Sent>) {
        let now = self.clock.now();
        for sent in &mut done {
            self.heed(sent, now);
        }
        // In the order in which whoever queues commands locks rows, and a dead token, which is noted in another table,
        // by itself: so that nobody waits for anybody in a circle.
        done.sort_by_key(|sent| sent.row.enrollment_id);
        let (alone, together): (Vec<_>, Vec<_>) = done
            .into_iter()
            .partition(|sent| matches!(sent.outcome, Outcome::Unregistered { .. } | Outcome::BadToken { .. }));
        for batch in together.chunks(BATCH).chain(alone.chunks(1)) {
            if store::retry(|| self.write(batch, now)).await.is_ok() {
                continue;
            }
            for sent in batch {
                if let Err(error) = store::retry(|| self.write(std::slice::from_ref(sent), now)).await {
                    tracing::error!(enrollment.id = %sent.row.enrollment_id, %error,
                        "the outcome of a push cannot be written; it is sent again");
                }
            }
        }
    }

    /// Counts and logs an outcome, and takes what it says of its topic.
    fn heed(&mut self, sent: &mut Sent, now: Timestamp) {
        metrics::counter!("push_sent_total", "outcome" => sent.outcome.as_str()).increment(1);
        let (enrollment, topic) = (sent.row.enrollment_id, sent.topic.as_str());
        match &sent.outcome {
            Outcome::Accepted { .. } => {
                sent.turned = self.topics.resume(topic, sent.uploaded_at, sent.at);
                tracing::debug!(enrollment.id = %enrollment, push.topic = topic, "pushed");
            }
            Outcome::Rejected { reason } => {
                sent.turned = self.topics.stop(topic, sent.uploaded_at, now);
                if sent.turned {
                    tracing::error!(push.topic = topic, reason, "APNs refuses the push certificate: the topic rests");
                }
            }
            Outcome::Retry { reason, after } => {
                if let Some(pause) = after {
                    self.topics.rest(topic, now, *pause);
                }
                tracing::info!(enrollment.id = %enrollment, push.topic = topic, reason, "a push failed and is sent again");
            }
            Outcome::Unregistered { .. } | Outcome::BadToken { .. } | Outcome::Throttled { .. } => {
                tracing::info!(enrollment.id = %enrollment, push.topic = topic, outcome = sent.outcome.as_str(), "a push was refused");
            }
        }
    }

    async fn write(&self, batch: &[Sent], now: Timestamp) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        for sent in batch {
            self.write_one(&mut tx, sent, now).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn write_one(&self, tx: &mut Tx, sent: &Sent, now: Timestamp) -> Result<(), Error> {
        let enrollment = EnrollmentId(sent.row.enrollment_id);
        let as_of = match &sent.outcome {
            Outcome::Unregistered { since } => Some(since.unwrap_or(sent.at)),
            Outcome::BadToken { .. } => Some(sent.at),
            _ => None,
        };
        let dead = match as_of {
            Some(as_of) => store::push::dead(tx, enrollment, &sent.token, as_of, now).await?,
            None => false,
        };
        let next = plan::after(&sent.row, &sent.outcome, dead, now, self.draw());
        let word = sent.outcome.as_str();
        store::push::settle(tx, &settled(&sent.row, sent.lease, next, Some(sent.at), word)).await?;
        if dead {
            let summary = "APNs no longer knows the device's push token; commands wait for its next TokenUpdate";
            event(tx, now, "push.token_dead", Some(enrollment), summary, json!({ "outcome": word })).await?;
        }
        if sent.turned {
            self.write_turn(tx, sent, now).await?;
        }
        Ok(())
    }

    async fn write_turn(&self, tx: &mut Tx, sent: &Sent, now: Timestamp) -> Result<(), Error> {
        let topic = sent.topic.as_str();
        if let Outcome::Rejected { reason } = &sent.outcome {
            if store::push::stop_topic(tx, topic, sent.uploaded_at, reason, now).await? {
                let summary = format!(
                    "APNs refuses the push certificate of {topic}: {reason}. No device hears of commands until it is replaced"
                );
                event(tx, now, "push.topic_stopped", None, &summary, json!({ "topic": topic, "reason": reason }))
                    .await?;
            }
        } else {
            store::push::resume_topic(tx, topic, sent.uploaded_at).await?;
            let summary = format!("APNs takes pushes of {topic} again");
            event(tx, now, "push.topic_resumed", None, &summary, json!({ "topic": topic })).await?;
        }
        Ok(())
    }

    /// Renews the figures for operators (RG-31) and warns of certificates that end.
    async fn report(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.store.read().await?;
        let backlog = store::push::backlog(&mut tx, now).await?;
        let certs = store::push::certs(&mut tx).await?;
        drop(tx);
        metrics::gauge!("push_backlog").set(count(backlog.due));
        metrics::gauge!("push_waiting_for_token").set(count(backlog.parked));
        let oldest = backlog.oldest_due_at.map_or(Duration::ZERO, |at| now.since(Timestamp(at)));
        metrics::gauge!("push_oldest_due_seconds").set(oldest.as_secs_f64());
        let warn = now.since(self.warned_at) >= WARN_EVERY;
        for cert in certs {
            let not_after = Timestamp(cert.not_after);
            let labels = [("topic", cert.topic.clone())];
            metrics::gauge!("push_certificate_not_after_seconds", &labels).set(count(not_after.unix_seconds()));
            metrics::gauge!("push_topic_stopped", &labels).set(f64::from(u8::from(cert.stopped_at.is_some())));
            if warn && not_after <= now.plus(ALARM_BEFORE) {
                tracing::error!(push.topic = %cert.topic, %not_after, "the push certificate ends: renew the same one at Apple now");
            } else if warn && not_after <= now.plus(WARN_BEFORE) {
                tracing::warn!(push.topic = %cert.topic, %not_after, "the push certificate ends soon: renew the same one at Apple");
            }
        }
        if warn {
            self.warned_at = now;
        }
        Ok(())
    }

    fn draw(&self) -> Draw {
        Draw::new(self.random.below(u64::from(Draw::FULL) + 1))
    }
}

fn settled<'a>(row: &Leased, lease: Uuid, next: Next, sent_at: Option<Timestamp>, outcome: &'a str) -> Settled<'a> {
    Settled {
        enrollment: EnrollmentId(row.enrollment_id),
        lease,
        version: row.version,
        due_at: next.due_at,
        not_before: next.not_before,
        attempt: next.attempt,
        failures: next.failures,
        sent_at,
        outcome,
    }
}

async fn event(
    tx: &mut Tx,
    at: Timestamp,
    kind: &str,
    enrollment: Option<EnrollmentId>,
    summary: &str,
    data: serde_json::Value,
) -> Result<(), Error> {
    let event = NewEvent { at, kind, enrollment, command: None, actor: "server", summary, data: &data };
    Ok(store::events::record(tx, &event).await?)
}

#[expect(clippy::cast_precision_loss, reason = "figures for graphs; seconds and counts stay far below 2^52")]
fn count(n: i64) -> f64 {
    n as f64
}
