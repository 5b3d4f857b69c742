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
use super::path;
use super::watch::Setup;

/// In the row's chain: after this line come the anchors that devices know the chain by. PEM readers pass over it.
const ANCHORS: &str = "# anchors\n";

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

/// The chain of a row, and the anchors behind it.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let mark = ANCHORS.as_bytes();
    let at = text.windows(mark.len()).position(|window| window == mark);
    at.and_then(|at| Some((text.get(..at)?, text.get(at + mark.len()..)?))).unwrap_or((text, &[]))
}

/// The anchors that were given while the kept chain was served, and those of before that it leads to.
pub(super) async fn anchors(tx: &mut Tx) -> Result<Vec<Certificate>, store::Error> {
    let Some(row) = store::keys::get(tx, NAME).await? else { return Ok(Vec::new()) };
    let (_, anchors) = split(&row.chain);
    Ok(pem_chain(&String::from_utf8_lossy(anchors)).unwrap_or_else(|e| {
        tracing::error!(error = %e, "the anchors of the TLS certificate that was served last cannot be read");
        Vec::new()
    }))
}

/// Keeps this pair as the one that is served, with these anchors, and those kept before that still have to do with it: they may
/// leave the settings while devices hold them.
pub(super) async fn keep(
    tx: &mut Tx,
    sealer: &Sealer,
    random: &Random,
    pair: &Pair,
    given: &[Certificate],
    now: Timestamp,
) -> Result<()> {
    let certificates = pair.certificates()?;
    let leaf = certificates.first().context("the chain is empty")?;
    let before = store::keys::get(tx, NAME).await?;
    let same = before.as_ref().is_some_and(|row| split(&row.chain).0.trim_ascii_end() == pair.chain.trim_ascii_end());
    let mut held = given.to_vec();
    for anchor in anchors(tx).await? {
        let fresh = held.iter().all(|other| other.der() != anchor.der());
        if fresh && (same || path::leads_to(&certificates, std::slice::from_ref(&anchor), now)) {
            held.push(anchor);
        }
    }
    // Always in one order: the same is not written again.
    held.sort_by_key(Certificate::fingerprint);
    let mut text = pair.chain.clone();
    if !held.is_empty() {
        text.extend_from_slice(b"\n");
        text.extend_from_slice(ANCHORS.as_bytes());
        for anchor in &held {
            text.extend_from_slice(anchor.to_pem().as_bytes());
        }
    }
    if before.as_ref().is_some_and(|row| row.chain == text) {
        return Ok(());
    }
    let key = PrivateKey::from_pem(&pair.key)?.to_pkcs8_der()?;
    let row = store::keys::Row {
        name: NAME.to_owned(),
        certificate: leaf.der().to_vec(),
        chain: text,
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
    let (chain, _) = split(&row.chain);
    Ok(Some(Pair { chain: chain.trim_ascii_end().to_vec(), key: pem.expose().as_bytes().to_vec() }))
}

/// Whether what is kept can go on being served and loses fewer devices than this chain: then it stays kept.
pub(super) async fn is_better(
    tx: &mut Tx,
    sealer: &Sealer,
    setup: &Setup,
    chain: Vec<Certificate>,
    now: Timestamp,
) -> Result<bool> {
    let Some(former) = kept(tx, sealer).await? else { return Ok(false) };
    let former = former.certificates()?;
    let facts = setup.facts(tx, chain, Seen::NotLooked).await?;
    Ok(lasts(&former, now) && lost(&facts, &former, now).enrollments < lost(&facts, &facts.chain, now).enrollments)
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
    fn the_anchors_behind_a_chain_are_told_apart_from_it() {
        assert_eq!(split(b"chain\n# anchors\nroots"), (&b"chain\n"[..], &b"roots"[..]));
        assert_eq!(split(b"chain"), (&b"chain"[..], &b""[..]));
    }

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
