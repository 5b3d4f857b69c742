//! A renewed TLS certificate is taken without a restart, unless enrolled devices would not accept it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use store::Store;
use tokio::time::{MissedTickBehavior, interval};

use super::kept::{self, Pair};
use super::watch::Watch;
use crate::listen::ServerCertificate;
use crate::tls::Files;

/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// What changing the certificate needs.
pub(crate) struct Switch {
    pub(crate) certificate: Arc<ServerCertificate>,
    pub(crate) files: Files,
    pub(crate) watch: Watch,
    pub(crate) store: Store,
    pub(crate) sealer: Sealer,
    pub(crate) random: Random,
    pub(crate) clock: Clock,
}

/// What is remembered from one look at the files to the next.
#[derive(Default)]
struct Memory {
    /// The chain that was held back last, and when that was judged.
    held: Option<(Vec<Certificate>, Timestamp)>,
    /// What is served, but could not be kept yet.
    unkept: Option<Pair>,
}

impl Memory {
    /// Whether it was judged a short time ago that this chain is held back. A clock that was set back does not count.
    fn is_held(&self, chain: &[Certificate], now: Timestamp, judge_again: Duration) -> bool {
        self.held.as_ref().is_some_and(|(held, at)| held == chain && *at <= now && now.since(*at) < judge_again)
    }

    /// What came of keeping what is served. Where it failed it is tried again at the next look.
    fn tried(&mut self, kept: Result<()>) {
        match kept {
            Ok(()) => self.unkept = None,
            Err(e) => tracing::error!(
                error = format!("{e:#}"),
                "the TLS certificate that is served could not be kept for a restart; tried again"
            ),
        }
    }
}

/// What became of a look at the files.
enum Look {
    Same,
    Taken,
    HeldBack,
}

impl Switch {
    /// Looks at the files and takes what is in them.
    async fn look(&self, memory: &mut Memory) -> Result<Look> {
        self.keep(memory).await;
        let (chain, key) = self.files.read()?;
        let pair = Pair { chain, key };
        let new = pair.certificates()?;
        let former = self.certificate.chain();
        if new == former {
            memory.held = None;
            return Ok(Look::Same);
        }
        let (setup, now) = (self.watch.setup(), self.clock.now());
        if !setup.force_switch && kept::lasts(&former, now) {
            if memory.is_held(&new, now, setup.judge_again) {
                return Ok(Look::HeldBack);
            }
            let lost = self.watch.lost(&new).await?;
            if lost.enrollments > 0 && lost.enrollments > self.watch.lost(&former).await?.enrollments {
                self.watch.held_back(Some(lost));
                memory.held = Some((new, now));
                return Ok(Look::HeldBack);
            }
        }
        self.certificate.replace(&pair.chain, &pair.key)?;
        *memory = Memory { held: None, unkept: Some(pair) };
        self.keep(memory).await;
        Ok(Look::Taken)
    }

    /// Keeps what is served, unless that is done.
    async fn keep(&self, memory: &mut Memory) {
        let Some(pair) = &memory.unkept else { return };
        let done = self.write(pair).await;
        memory.tried(done);
    }

    async fn write(&self, pair: &Pair) -> Result<()> {
        let mut tx = self.store.begin().await?;
        let given = self.watch.setup().given();
        kept::keep(&mut tx, &self.sealer, &self.random, pair, &given, self.clock.now()).await?;
        Ok(tx.commit().await?)
    }
}

/// Looks at the files again and again. What cannot be used, or would lose devices, leaves the former certificate in use.
pub(crate) async fn reload(switch: Switch, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(RELOAD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was said last, so that it is said once.
    let mut said = String::new();
    let mut memory = Memory::default();
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        let file = switch.files.certificate.display();
        let now = match switch.look(&mut memory).await {
            Ok(Look::Same) => {
                switch.watch.held_back(None);
                switch.watch.files(None);
                String::new()
            }
            Ok(Look::Taken) => {
                switch.watch.held_back(None);
                switch.watch.files(None);
                tracing::info!(%file, "took the renewed TLS certificate");
                String::new()
            }
            Ok(Look::HeldBack) => {
                switch.watch.files(None);
                let text = "the new TLS certificate is not taken: enrolled devices would not accept it (E7); the former one stays";
                if said != text {
                    tracing::error!(%file, "{text}");
                }
                text.to_owned()
            }
            Err(e) => {
                let text = format!("{e:#}");
                switch.watch.files(Some(text.clone()));
                if said != text {
                    tracing::error!(error = text, "the TLS certificate's files cannot be used; the former one stays");
                }
                text
            }
        };
        said = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_judged_again_after_a_minute() {
        let [chain, other] = [0, 1].map(|_| {
            let made = rcgen::generate_simple_self_signed(vec!["mdm.example.com".to_owned()]).unwrap();
            vec![Certificate::from_pem(&made.cert.pem()).unwrap()]
        });
        let (then, minute) = (Timestamp(1_800_000_000_000), Duration::from_secs(60));
        let memory = Memory { held: Some((chain.clone(), then)), unkept: None };
        assert!(memory.is_held(&chain, then.plus(Duration::from_secs(59)), minute));
        assert!(!memory.is_held(&chain, then.plus(minute), minute));
        assert!(!memory.is_held(&chain, then.minus(minute), minute), "the clock was set back");
        assert!(!memory.is_held(&other, then, minute), "other files are judged at once");
        assert!(!Memory::default().is_held(&chain, then, minute));
    }

    #[test]
    fn what_could_not_be_kept_is_tried_again() {
        let mut memory = Memory { held: None, unkept: Some(Pair { chain: Vec::new(), key: Vec::new() }) };
        memory.tried(Err(anyhow::anyhow!("no database")));
        assert!(memory.unkept.is_some());
        memory.tried(Ok(()));
        assert!(memory.unkept.is_none());
    }
}
