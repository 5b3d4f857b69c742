//! The certificates of pretend Apple and of its customer.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The certificates of the pretend world: made once for the process, because a client may be told its CA only once.
pub struct Pki {
    pub ca_pem: String,
    pub server_pem: String,
    pub server_key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn get() -> &'static Self {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(Self::new)
    }

    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Pretend Apple");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap();
        let ca_pem = ca.pem();
        let issuer = Issuer::new(params, key);

        let server_key = KeyPair::generate().unwrap();
        let names = ["api.push.apple.com", "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_pem = params.signed_by(&server_key, &issuer).unwrap().pem();
        Self { ca_pem, server_pem, server_key_pem: server_key.serialize_pem(), issuer }
    }

    /// A push certificate for `topic` and its key, as one PEM.
    pub fn push_pem(&self, topic: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), topic);
        name.push(DnType::CommonName, format!("APSP:{topic}"));
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&key, &self.issuer).unwrap().pem() + &key.serialize_pem()
    }
}
