//! The TLS certificate that was served last, kept sealed in the database: where new files hold a chain that enrolled devices
//! would not accept, the former one goes on being served, over a restart too.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mdm_core::certificate::{Certificate, pem_chain};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use super::examine::lost;
use super::facts::{Lost, Seen};
use super::watch::Setup;

/// The row of `sealed_key`.
const NAME: &str = "server-tls-last";

fn context() -> String {
    format!("sealed_key.key_sealed:{NAME}")
}

/// A chain and its key, PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Pair {
    /// The chain, parsed.
    pub(super) fn certificates(&self) -> Result<Vec<Certificate>> {
        pem_chain(&String::from_utf8_lossy(&self.chain)).map_err(|e| anyhow!("the TLS certificate: {e}"))
    }
}

/// Keeps this pair as the one that is served.
pub(super) async fn keep(tx: &mut Tx, sealer: &Sealer, random: &Random, pair: &Pair, now: Timestamp) -> Result<()> {
    let leaf = pair.certificates()?.into_iter().next().context("the chain is empty")?;
    let before = store::keys::get(tx, NAME).await?;
    if before.as_ref().is_some_and(|row| row.chain == pair.chain) {
        return Ok(());
    }
    let key = PrivateKey::from_pem(&pair.key)?.to_pkcs8_der()?;
    let row = store::keys::Row {
        name: NAME.to_owned(),
        certificate: leaf.der().to_vec(),
        chain: pair.chain.clone(),
        key_sealed: sealer.seal(&context(), key.expose(), random),
        not_after: leaf.not_after().0,
        // Two pairs within one millisecond must differ in it.
        created_at: before.as_ref().map_or(now.0, |row| now.0.max(row.created_at + 1)),
    };
    match before {
        None => store::keys::insert(tx, &row).await?,
        Some(before) => store::keys::replace(tx, &row, Timestamp(before.created_at)).await?,
    };
    Ok(())
}

async fn kept(tx: &mut Tx, sealer: &Sealer) -> Result<Option<Pair>> {
    let Some(row) = store::keys::get(tx, NAME).await? else { return Ok(None) };
    let key = sealer.open(&context(), &row.key_sealed).context("the TLS key that was kept cannot be opened")?;
    let pem = PrivateKey::from_pkcs8_der(key.expose())?.to_pkcs8_pem()?;
    Ok(Some(Pair { chain: row.chain, key: pem.expose().as_bytes().to_vec() }))
}

/// Whether a chain can go on being served: once it ends it is of no use to any device, and the new one is taken, whomever it loses.
pub(super) fn lasts(chain: &[Certificate], now: Timestamp) -> bool {
    const MARGIN: Duration = Duration::from_secs(3600);
    chain.iter().all(|certificate| certificate.is_valid_at(now) && certificate.is_valid_at(now.plus(MARGIN)))
}

/// Which pair to serve at the start: the one of the files, unless they cannot be used, or enrolled devices would not accept
/// it and the kept one is better for them. Then also how many would be lost.
pub(super) async fn at_start(
    tx: &mut Tx,
    sealer: &Sealer,
    setup: &Setup,
    files: Result<Pair>,
    now: Timestamp,
) -> Result<(Pair, Option<Lost>)> {
    let former = kept(tx, sealer).await?;
    let files = match (files, former.clone()) {
        (Ok(files), _) => files,
        (Err(error), Some(former)) if lasts(&former.certificates()?, now) => {
            let error = format!("{error:#}");
            tracing::error!(
                error,
                "the TLS certificate's files cannot be used; what was served last is served on (E2)"
            );
            return Ok((former, None));
        }
        (Err(error), _) => return Err(error),
    };
    let facts = setup.facts(tx, files.certificates()?, Seen::NotLooked).await?;
    let new = lost(&facts, &facts.chain, now);
    if new.enrollments == 0 || setup.force_switch {
        return Ok((files, None));
    }
    let Some(former) = former else { return Ok((files, None)) };
    let chain = former.certificates()?;
    if lasts(&chain, now) && lost(&facts, &chain, now).enrollments < new.enrollments {
        return Ok((former, Some(new)));
    }
    Ok((files, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_chain_is_served_until_shortly_before_its_end() {
        let made = rcgen::generate_simple_self_signed(vec!["mdm.example.com".to_owned()]).unwrap();
        let chain = [Certificate::from_pem(&made.cert.pem()).unwrap()];
        let end = chain[0].not_after();
        assert!(lasts(&chain, end.minus(Duration::from_secs(7200))));
        assert!(!lasts(&chain, end.minus(Duration::from_secs(1800))));
        assert!(!lasts(&chain, end.plus(Duration::from_secs(1))));
    }
}
