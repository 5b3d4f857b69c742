//! `CertificateList`: which certificates are installed. Source: `certificate.list.yaml`.

use crate::plist::fields::Fields;
use crate::plist::{Dictionary, Value};

/// The command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateList {
    /// `ManagedOnly`: only those that MDM installed.
    pub managed_only: bool,
}

impl CertificateList {
    pub(super) const REQUEST_TYPE: &str = "CertificateList";

    pub(super) fn write(self, command: &mut Dictionary) {
        command.insert("ManagedOnly".into(), self.managed_only.into());
    }
}

/// One installed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledCertificate {
    /// `CommonName`, as the device shows it.
    pub common_name: String,
    /// `IsIdentity`: the device holds the key too.
    pub is_identity: bool,
    /// `Data`: DER, not checked.
    pub der: Vec<u8>,
}

/// Reads the answer; `None` where the report holds none. Items without data are left out.
pub fn answer(body: &Dictionary) -> Option<Vec<InstalledCertificate>> {
    let items = body.get("CertificateList")?.as_array()?;
    let item = |value: &Value| {
        let mut f = Fields::new(value.as_dictionary()?.clone());
        Some(InstalledCertificate {
            common_name: f.any_string("CommonName").ok().flatten().unwrap_or_default(),
            is_identity: f.boolean("IsIdentity").ok().flatten().unwrap_or_default(),
            der: f.data("Data").ok().flatten()?,
        })
    };
    Some(items.iter().filter_map(item).collect())
}

#[cfg(test)]
mod tests {
    use crate::plist::{Limits, decode_dictionary};

    #[test]
    fn the_stored_answer_is_read() {
        let bytes = include_bytes!("../../tests/golden/report_certificate_list.plist");
        let body = decode_dictionary(bytes, Limits::REPORT).unwrap();
        let certificates = super::answer(&body).unwrap();
        assert_eq!(certificates.len(), 2);
        assert!(certificates[0].is_identity && !certificates[1].is_identity);
        assert_eq!(certificates[0].common_name, "Ada");
        assert_eq!(certificates[0].der, [0x30, 0x03, 0x02, 0x01, 0x00]);
        assert_eq!(super::answer(&crate::plist::Dictionary::new()), None);
    }
}
