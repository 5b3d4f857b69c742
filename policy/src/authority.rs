//! The certificate authority of a policy, and what it would refuse.

use ca::Authority;
use mdm_core::hardware::Platform;
use mdm_core::profile::acme::AcmePayload;
use store::Tx;

use crate::acme::AcmePolicy;
use crate::decision::Target;
use crate::error::Result;
use crate::reason::ReasonCode;

/// The authority that a policy names, or the bare one behind its `directory_url`.
pub async fn of(_tx: &mut Tx, policy: &AcmePolicy) -> Result<Authority> {
    let document = policy.document();
    let url = document.directory_url.as_deref().unwrap_or_default();
    Ok(Authority::bare(url, document.ca_accepts_unattested, Vec::new()))
}

/// Why the authority would refuse this payload.
pub(crate) fn refuses(
    _authority: &Authority,
    _payload: &AcmePayload,
    _target: &Target<'_>,
    _platform: Option<Platform>,
) -> Option<ReasonCode> {
    None
}
