use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, SanType};

use super::*;

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: Duration = Duration::from_hours(1);
const SECRET: &str = "fKx0v1uYy8mZqJ4nWl2pTtRrEe3sSdDfGgHhJjKkLlA";

/// An authority of a test.
pub(crate) fn authority() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Example CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Issuer::new(params, KeyPair::generate().unwrap())
}

/// A certificate to be issued: for a new key on P-256, from now on for a day.
pub(crate) struct Issue {
    params: CertificateParams,
    key: KeyPair,
}

impl Default for Issue {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let issue = Self { params, key: KeyPair::generate().unwrap() };
        issue.valid(NOW, NOW.plus(HOUR * 24))
    }
}

impl Issue {
    pub(crate) fn valid(mut self, from: Timestamp, until: Timestamp) -> Self {
        let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
        (self.params.not_before, self.params.not_after) = (moment(from), moment(until));
        self
    }

    pub(crate) fn subject(mut self, subject: &[(&str, &str)]) -> Self {
        for (kind, value) in subject {
            let kind = match *kind {
                "O" => DnType::OrganizationName,
                "L" => DnType::LocalityName,
                _ => DnType::CommonName,
            };
            self.params.distinguished_name.push(kind, *value);
        }
        self
    }

    pub(crate) fn dns(mut self, name: &str) -> Self {
        self.params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        self
    }

    pub(crate) fn san(mut self, extension: CustomExtension) -> Self {
        self.params.custom_extensions.push(extension);
        self
    }

    pub(crate) fn by(self, authority: &Issuer<'_, KeyPair>) -> Certificate {
        Certificate::from_der(self.params.signed_by(&self.key, authority).unwrap().der()).unwrap()
    }
}

/// A subject alternative name with one `PermanentIdentifier` (RFC 4043).
pub(crate) fn permanent_identifier(value: &str) -> CustomExtension {
    let wrap = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let oid = [0x06, 0x08, 0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x08, 0x03];
    let identifier = wrap(0x30, &wrap(0x0C, value.as_bytes()));
    let other_name = wrap(0xA0, &[&oid[..], &wrap(0xA0, &identifier)].concat());
    CustomExtension::from_oid_content(&[2, 5, 29, 17], wrap(0x30, &other_name))
}

fn expectation(names_device: bool) -> Expectation {
    let identifier = if names_device { "C02XX" } else { SECRET };
    Expectation {
        serial_number: Some("C02XX".into()),
        udid: None,
        provisioning_udid: None,
        client_identifier_sha256: Fingerprint::of(identifier.as_bytes()).to_string(),
        names_device,
        key_type: "ECSECPrimeRandom".into(),
        key_size: 256,
        hardware_bound: true,
        attested: true,
        subject: vec![Name { kind: "2.5.4.3".into(), value: Expected::Text("C02XX".into()) }],
        names: vec![],
    }
}

fn asked(expectation: &Expectation) -> Asked<'_> {
    Asked { expectation, delivered_at: NOW, reported: None, authorized_key: None, issuers_known: true, now: NOW }
}

fn issued(certificate: Certificate) -> Candidate {
    Candidate { certificate, issued: true, owner: Owner::Free }
}

fn good() -> Candidate {
    issued(Issue::default().subject(&[("CN", "C02XX")]).by(&authority()))
}

fn why(asked: &Asked<'_>, candidate: Candidate) -> ReasonCode {
    judge(asked, &[candidate]).unwrap_err().reason
}

#[test]
fn the_certificate_that_was_asked_for_is_found_among_others() {
    let expectation = expectation(true);
    let other = issued(Issue::default().subject(&[("CN", "mdm identity")]).by(&authority()));
    let found = judge(&asked(&expectation), &[other.clone(), good(), other.clone()]);
    assert_eq!(found, Ok((1, Evidence::Names)));
    let missing = judge(&asked(&expectation), &[]).unwrap_err();
    assert_eq!(missing.reason, ReasonCode::CertificateNotListed);
    let stranger = Candidate { issued: false, ..other };
    assert_eq!(
        judge(&asked(&expectation), &[stranger.clone(), stranger]).unwrap_err().detail,
        "the list shows 2 other identities"
    );
}

#[test]
fn an_issuer_that_is_not_the_authoritys_proves_nothing() {
    let expectation = expectation(true);
    let forged = || Candidate { issued: false, ..good() };
    assert_eq!(why(&asked(&expectation), forged()), ReasonCode::CertificateIssuerUnknown);
    let nobody = Asked { issuers_known: false, ..asked(&expectation) };
    assert_eq!(why(&nobody, forged()), ReasonCode::IssuersUnknown);
    // A key that the webhook allowed is no signature: the device itself could have made this certificate.
    let candidate = forged();
    let key = Some(candidate.certificate.subject_key().spki_sha256);
    assert_eq!(why(&Asked { authorized_key: key, ..nobody }, candidate), ReasonCode::IssuersUnknown);
    // The very certificate that the authority has shown needs no issuer.
    let candidate = forged();
    let shown = Asked { reported: Some(candidate.certificate.fingerprint()), ..nobody };
    assert_eq!(judge(&shown, &[candidate]), Ok((0, Evidence::Reported)));
}

#[test]
fn th_42_a_key_of_another_enrollment_is_refused_whatever_else_is_right() {
    let expectation = expectation(true);
    let candidate = Candidate { owner: Owner::OtherEnrollment, ..good() };
    let shown = Asked { reported: Some(candidate.certificate.fingerprint()), ..asked(&expectation) };
    assert_eq!(why(&shown, candidate), ReasonCode::CertificateOfAnother);
}

#[test]
fn the_certificate_that_is_to_be_renewed_is_no_proof_of_the_renewal() {
    let expectation = expectation(true);
    let old = Candidate { owner: Owner::OtherAttempt, ..good() };
    assert_eq!(why(&asked(&expectation), old.clone()), ReasonCode::CertificateNotListed);
    assert_eq!(judge(&asked(&expectation), &[old, good()]), Ok((1, Evidence::Names)));
}

#[test]
fn a_certificate_from_before_the_delivery_is_not_fresh() {
    let expectation = expectation(true);
    let from =
        |at: Timestamp| issued(Issue::default().subject(&[("CN", "C02XX")]).valid(at, NOW.plus(HOUR)).by(&authority()));
    assert!(judge(&asked(&expectation), &[from(NOW.minus(SKEW))]).is_ok());
    let early = || from(NOW.minus(SKEW + Duration::from_secs(1)));
    assert_eq!(why(&asked(&expectation), early()), ReasonCode::CertificateNotFresh);
    // What belongs to this attempt for certain may be dated back.
    let candidate = early();
    let allowed =
        Asked { authorized_key: Some(candidate.certificate.subject_key().spki_sha256), ..asked(&expectation) };
    assert_eq!(judge(&allowed, &[candidate]), Ok((0, Evidence::Key)));
    let ended = issued(Issue::default().subject(&[("CN", "C02XX")]).valid(NOW.minus(HOUR), NOW).by(&authority()));
    assert_eq!(why(&asked(&expectation), ended), ReasonCode::CertificateNotFresh);
}

#[test]
fn a_one_time_identifier_in_it_is_as_good_as_a_date() {
    let expectation = expectation(false);
    let with = |value: &str| {
        let issue = Issue::default().san(permanent_identifier(value)).valid(NOW.minus(HOUR * 5), NOW.plus(HOUR));
        issued(issue.by(&authority()))
    };
    assert_eq!(judge(&asked(&expectation), &[with("another"), with(SECRET)]), Ok((1, Evidence::OneTime)));
}

#[test]
fn another_key_than_the_authority_asked_about_is_refused() {
    let expectation = expectation(true);
    let other_key = Asked { authorized_key: Some([7; 32]), ..asked(&expectation) };
    assert_eq!(why(&other_key, good()), ReasonCode::CertificateKeyDiffers);
    let other_certificate = Asked { reported: Some(Fingerprint([7; 32])), ..asked(&expectation) };
    assert_eq!(why(&other_certificate, good()), ReasonCode::CertificateKeyDiffers);
    let mut larger = expectation.clone();
    larger.key_size = 384;
    assert_eq!(why(&asked(&larger), good()), ReasonCode::CertificateKeyDiffers);
}

#[test]
fn the_strongest_evidence_wins() {
    let expectation = expectation(true);
    let (weak, strong) = (good(), good());
    let key = Some(strong.certificate.subject_key().spki_sha256);
    // The other one is refused then: the authority was not asked about its key.
    assert_eq!(judge(&Asked { authorized_key: key, ..asked(&expectation) }, &[strong, weak]), Ok((0, Evidence::Key)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is proved has an issuer or was shown, belongs to nobody else, has the right key and has not ended.
    #[test]
    fn nothing_is_proved_that_should_not_be(
        signed: bool, known: bool, owner in 0usize..3, name in 0usize..3, starts in -600i64..600, lives in -600i64..600,
        reported in 0usize..3, allowed in 0usize..3, size in prop::sample::select(vec![256u32, 384]), names_device: bool,
    ) {
        let (from, until) = (NOW.plus(HOUR), NOW.plus(HOUR));
        let from = Timestamp(from.0 - 3_600_000 + starts * 1000);
        let until = Timestamp(until.0 - 3_600_000 + lives * 1000);
        let mut expectation = expectation(names_device);
        expectation.key_size = size;
        let subject = [("CN", ["C02XX", "other", "C02XX"][name])];
        let subject: &[_] = if name == 2 { &[] } else { &subject };
        let certificate = Issue::default().subject(subject).valid(from, until).by(&authority());
        let key = certificate.subject_key().spki_sha256;
        let asked = Asked {
            reported: [None, Some(certificate.fingerprint()), Some(Fingerprint([1; 32]))][reported],
            authorized_key: [None, Some(key), Some([1; 32])][allowed],
            issuers_known: known,
            ..asked(&expectation)
        };
        let owner = [Owner::Free, Owner::OtherAttempt, Owner::OtherEnrollment][owner];
        let shown = reported == 1;
        let expected = owner == Owner::Free && (signed || shown) && size == 256 && until > NOW
            && (shown || (reported == 0 && (allowed == 1 || (allowed == 0 && name == 0 && from >= NOW.minus(SKEW)))));
        let judged = judge(&asked, &[Candidate { certificate, issued: signed, owner }]);
        prop_assert_eq!(judged.is_ok(), expected, "{:?}", judged);
        if let Err(missing) = judged {
            prop_assert!(!missing.detail.is_empty() && !missing.detail.contains(SECRET));
        }
    }
}

#[test]
fn of_two_that_look_alike_the_first_is_taken() {
    let expectation = expectation(true);
    let at = |minutes: u64| {
        let from = NOW.plus(Duration::from_secs(60 * minutes));
        issued(Issue::default().subject(&[("CN", "C02XX")]).valid(from, NOW.plus(HOUR * 24)).by(&authority()))
    };
    let (first, second) = (at(1), at(2));
    assert_eq!(judge(&asked(&expectation), &[second.clone(), first.clone()]), Ok((1, Evidence::Names)));
    let taken = Candidate { owner: Owner::OtherAttempt, ..first };
    assert_eq!(judge(&asked(&expectation), &[second, taken]), Ok((0, Evidence::Names)));
}
