//! The loop: servers whose visit is due are leased and visited side by side, so that a slow or broken one stops no other.

use std::time::Duration;

use http::Method;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::ade::Server;
use store::ade::servers::Settled;
use store::events::NewEvent;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::service::{Fault, Service};
use crate::{Context, Error, Health, assign, servers, sync};

/// How long nobody else visits a server that is being visited; each write extends it.
const LEASE: Duration = Duration::from_secs(600);
/// How many servers are visited at a time.
const AT_ONCE: i64 = 8;
/// The first pause after a visit that failed; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How often is looked whether a person has done what only a person can do.
const PERSON_PAUSE: Duration = Duration::from_secs(1800);

/// Visits the servers whose visit is due at `now`; gives how many those were. A server's fault is its own: it is written
/// to its row, and the others go on.
pub async fn run_once(context: &Context, now: Timestamp) -> Result<usize, Error> {
    if !store::ade::servers::any_due(&mut context.store.read().await?, now).await? {
        return Ok(0);
    }
    let (lease, until) = (context.random.uuid_v4(), now.plus(LEASE));
    let take = || async {
        let mut tx = context.store.begin().await?;
        let taken = store::ade::servers::lease(&mut tx, lease, now, until, AT_ONCE).await?;
        tx.commit().await?;
        Ok::<_, store::Error>(taken)
    };
    let mut visits = JoinSet::new();
    for server in store::retry(take).await? {
        let visit = Visit { context: context.clone(), server, lease, until };
        visits.spawn(visit.run());
    }
    let taken = visits.len();
    while let Some(done) = visits.join_next().await {
        if let Err(e) = done {
            tracing::error!(error = %e, "a visit to Apple's device service broke off; it is made again when its lease ends");
        }
    }
    Ok(taken)
}

/// A visit to one server.
pub(crate) struct Visit {
    pub(crate) context: Context,
    pub(crate) server: Server,
    lease: Uuid,
    until: Timestamp,
}

impl Visit {
    /// A transaction in which the server is still held; whoever lost it writes nothing (RG-23).
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let mut tx = self.context.store.begin().await?;
        let until = self.context.clock.now().plus(LEASE);
        if !store::ade::servers::hold(&mut tx, self.server.id, self.lease, until).await? {
            return Err(Error::LeaseLost);
        }
        Ok(tx)
    }

    async fn run(self) {
        let done = self.work().await;
        if let Err(e) = self.settle(done).await {
            tracing::error!(ade.server = %self.server.name, error = %e, "what became of a visit could not be written");
        }
    }

    async fn work(&self) -> Result<(), Error> {
        let token = servers::token(&self.context, &self.server)?;
        let mut service = Service::new(&self.context, &token);
        if self.server.account.is_none() {
            let account: serde_json::Value = service.call(Method::GET, "/account", None).await?;
            let mut tx = self.begin().await?;
            store::ade::servers::put_account(&mut tx, self.server.id, &account.to_string()).await?;
            tx.commit().await?;
        }
        // A refusal of the list alone does not keep devices from their profiles.
        let listed = match sync::read(self, &mut service).await {
            Err(Error::Apple(fault)) if fault.is_about_the_request() => Err(Error::Apple(fault)),
            Err(e) => return Err(e),
            Ok(()) => Ok(()),
        };
        assign::give(self, &mut service).await?;
        listed
    }

    async fn settle(&self, done: Result<(), Error>) -> Result<(), Error> {
        let now = self.context.clock.now();
        let failures = self.server.failures.saturating_add(1);
        let (health, text, failures, pause) = match &done {
            Ok(()) => (Health::Ok.as_str(), None, 0, self.context.settings.every),
            Err(Error::Apple(fault)) => {
                let health = Health::from(fault);
                (health.as_str(), Some(fault.to_string()), failures, pause(health, fault, failures))
            }
            Err(Error::LeaseLost) => {
                tracing::info!(ade.server = %self.server.name, "another process took this visit over");
                return Ok(());
            }
            Err(e) => {
                tracing::error!(ade.server = %self.server.name, error = %e, "a visit to Apple's device service failed");
                (self.server.health.as_str(), self.server.health_text.clone(), failures, doubled(failures))
            }
        };
        let write = || async {
            let mut tx = self.context.store.begin().await?;
            let mut due_at = now.plus(self.spread(pause));
            if done.is_ok()
                && let Some(next) = store::ade::devices::next_due(&mut tx, self.server.id).await?
            {
                due_at = due_at.min(Timestamp(next.max(now.0)));
            }
            let settled =
                Settled { health, health_text: text.as_deref(), failures, taken_until: self.until, due_at, now };
            let written = store::ade::servers::settle(&mut tx, self.server.id, self.lease, &settled).await?;
            if written && health != self.server.health {
                self.tell(&mut tx, health, text.as_deref(), now).await?;
            }
            tx.commit().await?;
            Ok::<_, store::Error>(written)
        };
        if store::retry(write).await? && health != self.server.health {
            self.log(health, text.as_deref());
        }
        Ok(())
    }

    /// Up to a tenth more, so that several servers do not come at once.
    pub(crate) fn spread(&self, pause: Duration) -> Duration {
        let tenth = u64::try_from(pause.as_millis() / 10).unwrap_or(0);
        pause + Duration::from_millis(self.context.random.below(tenth))
    }

    async fn tell(&self, tx: &mut Tx, health: &str, text: Option<&str>, now: Timestamp) -> Result<(), store::Error> {
        let name = &self.server.name;
        let summary = text
            .map_or_else(|| format!("ADE server {name} is well again"), |text| format!("ADE server {name}: {text}"));
        let event = NewEvent {
            at: now,
            kind: "ade.health",
            enrollment: None,
            command: None,
            actor: "server",
            summary: &summary,
            data: &json!({ "ade_server": self.server.id, "health": health, "before": self.server.health }),
        };
        store::events::record(tx, &event).await
    }

    fn log(&self, health: &str, text: Option<&str>) {
        let name = &self.server.name;
        let people = [Health::TermsNotSigned, Health::TokenExpired, Health::TokenRefused].map(Health::as_str);
        if people.contains(&health) {
            tracing::error!(ade.server = %name, health, error = text, "no device can be assigned before a person acts");
        } else if health == Health::Ok.as_str() {
            tracing::info!(ade.server = %name, health, "Apple's device service answers again");
        } else {
            tracing::warn!(ade.server = %name, health, error = text, "Apple's device service does not do what it is asked");
        }
    }
}

/// How long to leave a server alone that is not well.
fn pause(health: Health, fault: &Fault, failures: i64) -> Duration {
    let asked = match fault {
        Fault::Throttled { retry_after } | Fault::Unreachable { retry_after, .. } => *retry_after,
        _ => None,
    };
    if health.needs_a_person() { PERSON_PAUSE } else { asked.unwrap_or(Duration::ZERO).max(doubled(failures)) }
}

/// One minute, then two, four … at most an hour.
fn doubled(failures: i64) -> Duration {
    let times = u32::try_from(failures.saturating_sub(1).clamp(0, 10)).unwrap_or(0);
    (FIRST_PAUSE * 2_u32.pow(times)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let minutes: Vec<u64> = (0..9).map(|failures| doubled(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
