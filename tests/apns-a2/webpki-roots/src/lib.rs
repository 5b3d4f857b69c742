//! A root store with one root: the CA that a test names before the first client is made.

use std::sync::{LazyLock, OnceLock};

use rustls_pki_types::{CertificateDer, TrustAnchor};

static CA: OnceLock<Vec<u8>> = OnceLock::new();

/// Names the one CA to trust, as DER. Only the first call counts.
pub fn trust(ca_der: &[u8]) {
    CA.get_or_init(|| ca_der.to_vec());
}

/// The roots, under the name that the real crate gives them; empty until [`trust`] was called.
pub static TLS_SERVER_ROOTS: LazyLock<Vec<TrustAnchor<'static>>> = LazyLock::new(|| {
    let certificates = CA.get().map(|der| CertificateDer::from(der.as_slice()));
    let anchors = certificates.iter().filter_map(|c| webpki::anchor_from_trusted_cert(c).ok());
    anchors.map(|anchor| anchor.to_owned()).collect()
});
