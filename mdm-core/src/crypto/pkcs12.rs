//! PKCS#12 (RFC 7292): how a push certificate and its key arrive from a Keychain.

use std::sync::OnceLock;

use openssl::pkcs12::Pkcs12;
use openssl::provider::Provider;

use super::key::{KeyError, PrivateKey};
use crate::certificate::Certificate;

/// Why a PKCS#12 file gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Error {
    /// Not PKCS#12.
    #[error("this is not a PKCS#12 file")]
    Malformed,
    /// The password is wrong, or the file is encrypted in a way that this build of OpenSSL cannot read.
    #[error(
        "the PKCS#12 file does not open: the password is wrong, or it is encrypted with something that is not supported"
    )]
    NotOpened,
    /// There is no private key, or no certificate that belongs to it.
    #[error("the PKCS#12 file must hold a private key and its certificate")]
    Incomplete,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Opens a PKCS#12 file: the key, its certificate, and the other certificates in it.
///
/// Files that older Keychains write (RC2-40, 3DES) are read too: OpenSSL's legacy algorithms are loaded at the first need.
pub fn open(der: &[u8], password: &str) -> Result<(PrivateKey, Certificate, Vec<Certificate>), Pkcs12Error> {
    let file = Pkcs12::from_der(der).map_err(|_| Pkcs12Error::Malformed)?;
    let parsed = match file.parse2(password) {
        Ok(parsed) => parsed,
        Err(_) if legacy_algorithms() => file.parse2(password).map_err(|_| Pkcs12Error::NotOpened)?,
        Err(_) => return Err(Pkcs12Error::NotOpened),
    };
    let (Some(key), Some(certificate)) = (parsed.pkey, parsed.cert) else {
        return Err(Pkcs12Error::Incomplete);
    };
    let read = |certificate: &openssl::x509::X509Ref| {
        let der = certificate.to_der().map_err(|_| Pkcs12Error::Malformed)?;
        Certificate::from_der(&der).map_err(|_| Pkcs12Error::Malformed)
    };
    let mut chain = Vec::new();
    for other in parsed.ca.iter().flatten() {
        chain.push(read(other)?);
    }
    Ok((PrivateKey::new(key)?, read(&certificate)?, chain))
}

/// Loads OpenSSL's legacy provider once for the process; false where this build does not have it.
///
/// Loading one provider by name switches off the automatic loading of the default one, so that both are loaded.
pub(super) fn legacy_algorithms() -> bool {
    static LOADED: OnceLock<Option<(Provider, Provider)>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let default = Provider::load(None, "default").ok()?;
            Some((default, Provider::load(None, "legacy").ok()?))
        })
        .is_some()
}

#[cfg(test)]
mod tests {
    use openssl::nid::Nid;
    use openssl::pkcs12::Pkcs12Builder;
    use openssl::x509::X509;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn file(algorithm: Nid) -> (Vec<u8>, Certificate) {
        let key = PrivateKey::generate_rsa(2048).unwrap();
        let pair = KeyPair::from_pem(key.to_pkcs8_pem().unwrap().expose()).unwrap();
        let made = CertificateParams::new(vec!["push.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let x509 = X509::from_der(made.der()).unwrap();
        let mut builder = Pkcs12::builder();
        let builder: &mut Pkcs12Builder = builder.name("push").pkey(key.pkey()).cert(&x509);
        builder.key_algorithm(algorithm).cert_algorithm(algorithm);
        // `build2` consumes the builder, which the setters only lend.
        let der = std::mem::replace(builder, Pkcs12::builder()).build2("secret").unwrap().to_der().unwrap();
        (der, Certificate::from_der(made.der()).unwrap())
    }

    #[test]
    fn a_modern_and_a_legacy_file_are_read() {
        assert!(legacy_algorithms(), "OpenSSL's legacy provider is needed");
        for algorithm in [Nid::AES_256_CBC, Nid::PBE_WITHSHA1AND40BITRC2_CBC] {
            let (der, certificate) = file(algorithm);
            let (key, read, chain) = open(&der, "secret").unwrap();
            assert_eq!(read, certificate);
            assert_eq!(key.public_spki_der().unwrap(), certificate.public_key().unwrap().spki_der());
            assert!(chain.is_empty());
        }
    }

    #[test]
    fn a_wrong_password_and_rubbish_are_told_apart() {
        let (der, _) = file(Nid::AES_256_CBC);
        assert_eq!(open(&der, "wrong").unwrap_err(), Pkcs12Error::NotOpened);
        assert_eq!(open(b"rubbish", "secret").unwrap_err(), Pkcs12Error::Malformed);
    }
}
