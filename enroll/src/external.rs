//! A certificate of an ACME server shows itself for the first time: its issuance record is the open one that its names lead to.
//!
//! Believed is only what a configured authority issued, under a name that this server gave out in a profile and that is still
//! open. There is no trust for whoever comes first (TH-02, TH-05).

use std::time::Duration;

use issuer::admission::names;
use mdm_core::certificate::Certificate;
use mdm_core::enrollment::Door;
use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use store::Tx;
use store::issuance::{Flow, Issuance, Purpose, State};

use crate::Error;
use crate::door::{self, Require, Settings};

/// More names than a certificate for one device has.
const MOST_NAMES: usize = 16;

/// The door that a flow leads through; a renewal goes through none.
pub(crate) fn door_of(flow: Flow) -> Option<Door> {
    match flow {
        Flow::Link => Some(Door::Link),
        Flow::Ade => Some(Door::Ade),
        Flow::Byod => Some(Door::Byod),
        Flow::Adde => Some(Door::Adde),
        Flow::Import => Some(Door::Import),
        Flow::Renewal => None,
    }
}

/// How much earlier than its record a certificate may begin: authorities date them back, many by an hour, for clocks that run
/// behind.
const DATED_BACK: Duration = Duration::from_mins(65);

/// The open record that this certificate fulfils, where there is exactly one; of those for `purpose` only, where one is named.
/// Of an enrollment and a renewal under the same name neither is taken, where the caller can't say which it is.
pub(crate) async fn open_record(
    tx: &mut Tx,
    certificate: &Certificate,
    external_issuer: Option<Fingerprint>,
    purpose: Option<Purpose>,
    now: Timestamp,
) -> Result<Option<Issuance>, Error> {
    let Some(issuer) = external_issuer else { return Ok(None) };
    let mut names = names(certificate);
    names.truncate(MOST_NAMES);
    let mut records = issuer::issuance::open_acme_records(tx, &names, now).await?;
    records.retain(|record| purpose.is_none_or(|purpose| record.purpose == purpose));
    let (Some(record), true) = (records.pop(), records.is_empty()) else { return Ok(None) };
    // An older certificate of the same device was not issued for this record.
    if certificate.not_before() < record.created_at.minus(DATED_BACK) {
        return Ok(None);
    }
    let settings = settings_of(tx, &record).await?;
    let accepted = settings
        .identity
        .acme
        .is_some_and(|acme| acme.issuers.is_empty() || acme.issuers.iter().any(|sha256| *sha256 == issuer.to_string()));
    Ok((accepted && !was_refused(tx, certificate).await?).then_some(record))
}

/// Whether an operator refused this certificate in the quarantine: it has no record of its own that could be revoked.
pub(crate) async fn was_refused(tx: &mut Tx, certificate: &Certificate) -> Result<bool, Error> {
    let standing = store::quarantine::of_certificate(tx, certificate.fingerprint()).await?;
    Ok(standing.is_some_and(|row| row.state == "refused"))
}

/// The record by which a certificate renews an enrollment, where it was not used yet: it was issued here, or it came from an
/// ACME server and fulfils an open record now. For a certificate that shows itself in another message than `Authenticate`.
///
/// `external_issuer` is the configured CA that itself signed the certificate.
pub async fn renewing(
    tx: &mut Tx,
    certificate: &Certificate,
    external_issuer: Option<Fingerprint>,
    now: Timestamp,
) -> Result<Option<Issuance>, Error> {
    let renews = |record: &Issuance| record.purpose == Purpose::Renewal;
    if let Some(record) = store::issuance::by_certificate(tx, certificate.fingerprint()).await? {
        return Ok(Some(record).filter(|record| renews(record) && record.state == State::Issued));
    }
    let open = open_record(tx, certificate, external_issuer, Some(Purpose::Renewal), now).await?;
    let Some(record) = open else { return Ok(None) };
    if !issuer::issuance::fulfil_acme(tx, &record, certificate, now).await? {
        return Ok(None);
    }
    Ok(store::issuance::get(tx, record.id).await?)
}

/// What a door asked for when the profile was given out is asked again when the device comes with it (TH-48): the door may have
/// been closed since, or the approval of the serial number taken back.
pub(crate) async fn ask_the_door_again(tx: &mut Tx, record: &Issuance) -> Result<(), Error> {
    let Some(door) = door_of(record.flow).filter(|door| *door != Door::Import) else { return Ok(()) };
    let settings = door::load(tx, door).await?;
    if !settings.enabled {
        return Err(Error::DoorClosed(door));
    }
    if let (Door::Ade, Some(serial)) = (door, record.expected_serial.as_deref()) {
        let device = store::ade::device(tx, serial).await?.ok_or(Error::NotListed)?;
        if settings.require == Require::Approval && device.approved_at.is_none() {
            return Err(Error::NotApproved);
        }
    }
    Ok(())
}

/// The settings of the door that a record's enrollment came or comes in by.
pub(crate) async fn settings_of(tx: &mut Tx, record: &Issuance) -> Result<Settings, Error> {
    let door = match (door_of(record.flow), record.enrollment) {
        (Some(door), _) => door,
        (None, Some(id)) => store::enrollments::get(tx, id).await?.map_or(Door::Import, |enrollment| enrollment.door),
        (None, None) => Door::Import,
    };
    door::load(tx, door).await
}
