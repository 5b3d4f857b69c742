//! A renewed TLS certificate is taken without a restart, unless enrolled devices would not accept it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Clock;
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

/// What became of a look at the files.
enum Look {
    Same,
    Taken,
    HeldBack,
}

impl Switch {
    /// Looks at the files and takes what is in them.
    async fn look(&self) -> Result<Look> {
        let (chain, key) = self.files.read()?;
        let pair = Pair { chain, key };
        let new = pair.certificates()?;
        if new == self.certificate.chain() {
            return Ok(Look::Same);
        }
        let former = self.certificate.chain();
        if !self.watch.setup().force_switch && kept::lasts(&former, self.clock.now()) {
            let lost = self.watch.lost(&new).await?;
            if lost.enrollments > 0 && lost.enrollments > self.watch.lost(&former).await?.enrollments {
                self.watch.held_back(Some(lost));
                return Ok(Look::HeldBack);
            }
        }
        self.certificate.replace(&pair.chain, &pair.key)?;
        let mut tx = self.store.begin().await?;
        kept::keep(&mut tx, &self.sealer, &self.random, &pair, self.clock.now()).await?;
        tx.commit().await?;
        Ok(Look::Taken)
    }
}

/// Looks at the files again and again. What cannot be used, or would lose devices, leaves the former certificate in use.
pub(crate) async fn reload(switch: Switch, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tick = interval(RELOAD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was said last, so that it is said once.
    let mut said = String::new();
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        let file = switch.files.certificate.display();
        let now = match switch.look().await {
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
