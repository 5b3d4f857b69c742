//! The server token: JSON between MESSAGE lines, in MIME, in CMS, in MIME.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::X509;
use serde_json::json;

use crate::error::{Error, Result};

/// The second pair of a token.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) token: String,
    pub(super) secret: String,
    pub(super) expires_ms: i64,
}

/// A token as the portal gives it out.
pub(super) fn p7m(consumer_key: &str, consumer_secret: &str, access: &Access, certificate_pem: &str) -> Result<String> {
    let json = json!({
        "consumer_key": consumer_key,
        "consumer_secret": consumer_secret,
        "access_token": access.token,
        "access_secret": access.secret,
        "access_token_expiry": super::rfc3339(access.expires_ms),
    });
    let content = format!(
        "Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         -----BEGIN MESSAGE-----\n{json}\n-----END MESSAGE-----\n"
    );
    let certificate = X509::from_pem(certificate_pem.as_bytes())?;
    if certificate.public_key()?.rsa()?.size() < 256 {
        return Err(Error::Options("the portal takes RSA keys of 2048 bits and more".to_owned()));
    }
    let mut recipients = Stack::new()?;
    recipients.push(certificate)?;
    let options = CMSOptions::BINARY;
    let cms = CmsContentInfo::encrypt(&recipients, content.as_bytes(), Cipher::aes_256_cbc(), options)?.to_der()?;
    let base64 = STANDARD.encode(cms);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok(format!(
        "Content-Type: application/pkcs7-mime; name=\"smime.p7m\"; smime-type=enveloped-data\r\n\
         Content-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"smime.p7m\"\r\n\
         Content-Description: S/MIME Encrypted Message\r\n\r\n{}\r\n",
        lines.join("\r\n")
    ))
}
