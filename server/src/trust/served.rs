//! The certificate that the device listener begins with.

use std::sync::Arc;

use anyhow::{Context, Result};
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use super::facts::Lost;
use super::kept::{self, Pair};
use super::watch::Setup;
use crate::config::Config;
use crate::listen::ServerCertificate;
use crate::tls;

/// The device listener's certificate – configured, or made by the server itself – and how many devices the files' chain would
/// lose, where it is held back for that. The CA of a certificate of the server's own making becomes an anchor.
pub(crate) async fn served(
    config: &Config,
    setup: &mut Setup,
    tx: &mut Tx,
    sealer: &Sealer,
    random: &Random,
    now: Timestamp,
) -> Result<(Option<Arc<ServerCertificate>>, Option<Lost>)> {
    if config.tls.off {
        return Ok((None, None));
    }
    if let Some(files) = tls::Files::of(config) {
        let read = files.read().map(|(chain, key)| Pair { chain, key });
        let (pair, held_back) = Box::pin(kept::at_start(tx, sealer, setup, read, now)).await?;
        kept::keep(tx, sealer, random, &pair, &setup.given(), now).await?;
        if held_back.is_some() {
            // Who enrolls or renews now must accept what is served, too.
            let given = setup.given();
            let mut former = kept::anchors(tx).await?;
            former.retain(|f| given.iter().all(|anchor| anchor.der() != f.der()));
            setup.anchors.extend(former);
        }
        return Ok((Some(Arc::new(ServerCertificate::from_pem(&pair.chain, &pair.key)?)), held_back));
    }
    let host = config.public_url.host_str().context("public_url has no host")?.trim_matches(['[', ']']);
    let made = issuer::server::load_or_create(tx, sealer, random, now, host).await?;
    tracing::warn!(
        "no TLS certificate is configured: the server uses one of its own CA, which devices do not trust by themselves"
    );
    let chain = format!("{}{}", made.certificate.to_pem(), made.ca.to_pem());
    let key = made.key.to_pkcs8_pem()?;
    setup.anchors.push(made.ca);
    let pair = Pair { chain: chain.into_bytes(), key: key.expose().as_bytes().to_vec() };
    // Where files come into use later, devices that hold this CA are not lost at once.
    if !Box::pin(kept::is_better(tx, sealer, setup, pair.certificates()?, now)).await? {
        kept::keep(tx, sealer, random, &pair, &setup.given(), now).await?;
    }
    Ok((Some(Arc::new(ServerCertificate::from_pem(&pair.chain, &pair.key)?)), None))
}
