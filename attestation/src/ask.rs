//! When a device is asked for an attestation, and with which nonce.

use std::time::Duration;

use mdm_core::enrollment::Channel;
use mdm_core::hardware::{AttestSupport, OsVersion, Platform};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use store::Tx;
use store::attestations::{self, Nonce};
use store::enrollments::Enrollment;

use crate::{Context, Result};

/// Apple makes a new attestation of a device no more often than this (`DeviceAttestationNonce`).
pub const INTERVAL: Duration = Duration::from_hours(7 * 24);
/// What is added to it, by a share that each enrollment always has, so that devices that enrolled together do not ask together.
pub const SPREAD: Duration = Duration::from_hours(12);

/// What is known of a device that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its operating system.
    pub platform: Option<Platform>,
    /// Its version.
    pub os_version: Option<OsVersion>,
    /// Its row in Apple's table.
    pub hardware: AttestSupport,
}

/// Whether silicon and operating system know the query (`DevicePropertiesAttestation`). What does not know it ignores it; such a
/// device is not asked at all.
pub fn can_attest(asked: &Asked) -> bool {
    let since = match asked.platform {
        Some(Platform::Ios | Platform::Tvos) => OsVersion::new(16, 0),
        Some(Platform::Ipados) => OsVersion::new(16, 1),
        Some(Platform::Macos) => OsVersion::new(14, 0),
        Some(Platform::Visionos) => OsVersion::new(1, 1),
        Some(Platform::Watchos) => OsVersion::new(10, 0),
        None => return false,
    };
    asked.hardware == AttestSupport::Supported && asked.os_version.is_some_and(|version| version >= since)
}

/// What is to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the answer to the last nonce is there, and it is too early for a new one.
    Nothing,
    /// The last nonce once more: no attestation that carries it has come yet. That asks Apple for nothing new.
    Again,
    /// A new nonce.
    New,
}

/// Decides what to ask. `sent_at`: when the last nonce was first sent; `answered_at`: when an attestation that carries it came;
/// `since`: when the enrollment began, before which nothing counts that was learned.
pub fn next(
    enrollment: EnrollmentId,
    sent_at: Option<Timestamp>,
    answered_at: Option<Timestamp>,
    since: Timestamp,
    now: Timestamp,
) -> Next {
    match sent_at {
        None => Next::New,
        Some(sent_at) if now >= next_nonce_from(enrollment, sent_at) => Next::New,
        Some(_) if answered_at.is_some_and(|at| at >= since) => Next::Nothing,
        Some(_) => Next::Again,
    }
}

/// From when a new nonce may be sent to an enrollment that was sent one at this time.
pub fn next_nonce_from(enrollment: EnrollmentId, sent_at: Timestamp) -> Timestamp {
    sent_at.plus(INTERVAL).plus(spread(enrollment))
}

/// The same for an enrollment always, and different for most.
fn spread(enrollment: EnrollmentId) -> Duration {
    let [.., high, low] = *enrollment.0.as_bytes();
    SPREAD * u32::from(u16::from_be_bytes([high, low])) / u32::from(u16::MAX)
}

/// The nonce that the `DeviceInformation` with this `CommandUUID` is to carry, which is noted; `None`: no attestation is to be asked
/// for. The lock on the enrollment is held. Asked again for the same command, it gives the same nonce.
pub async fn ask(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    asked: &Asked,
    command: &CommandUuid,
    now: Timestamp,
) -> Result<Option<Vec<u8>>> {
    if enrollment.channel == Channel::User || !can_attest(asked) {
        return Ok(None);
    }
    let last = attestations::last_nonce(tx, enrollment.id).await?;
    if let Some(Nonce { nonce, command_uuid, .. }) = &last
        && command_uuid == command.as_str()
    {
        return Ok(Some(nonce.clone()));
    }
    let sent_at = last.as_ref().map(|nonce| Timestamp(nonce.sent_at));
    let answered_at = match sent_at {
        Some(sent_at) => attestations::answered_at(tx, enrollment.id, sent_at).await?,
        None => None,
    };
    let since = enrollment.enrolled_at.unwrap_or(enrollment.created_at);
    match (next(enrollment.id, sent_at, answered_at, since, now), last) {
        (Next::Nothing, _) => Ok(None),
        (Next::Again, Some(Nonce { nonce, .. })) => {
            attestations::send_again(tx, &nonce, command).await?;
            Ok(Some(nonce))
        }
        (Next::New | Next::Again, _) => {
            let nonce = ctx.random.bytes::<32>().to_vec();
            attestations::send(tx, enrollment.id, &nonce, command, now).await?;
            Ok(Some(nonce))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn asked(platform: Platform, version: &str) -> Asked {
        Asked {
            platform: Some(platform),
            os_version: Some(version.parse().unwrap()),
            hardware: AttestSupport::Supported,
        }
    }

    #[test]
    fn only_who_knows_the_query_is_asked() {
        for (platform, before, from) in [
            (Platform::Ios, "15.8", "16.0"),
            (Platform::Ipados, "16.0", "16.1"),
            (Platform::Macos, "13.6", "14.0"),
            (Platform::Tvos, "15.6", "16.0"),
            (Platform::Visionos, "1.0", "1.1"),
            (Platform::Watchos, "9.6", "10.0"),
        ] {
            assert!(!can_attest(&asked(platform, before)), "{platform} {before}");
            assert!(can_attest(&asked(platform, from)), "{platform} {from}");
            for hardware in [AttestSupport::Unknown, AttestSupport::MustBeFalse, AttestSupport::Ignored] {
                assert!(!can_attest(&Asked { hardware, ..asked(platform, from) }), "{platform} {hardware}");
            }
            assert!(!can_attest(&Asked { os_version: None, ..asked(platform, from) }));
        }
        assert!(!can_attest(&Asked { platform: None, ..asked(Platform::Ios, "18.0") }));
    }

    #[test]
    fn an_answered_nonce_is_enough_and_one_without_an_answer_comes_again() {
        let id = EnrollmentId(Uuid::from_u128(1));
        let (sent, answered) = (Timestamp(10 * DAY), Timestamp(10 * DAY + 5));
        let ask = |answered_at, since, now| next(id, Some(sent), answered_at, Timestamp(since), Timestamp(now));
        assert_eq!(next(id, None, None, sent, sent), Next::New);
        assert_eq!(ask(Some(answered), 0, 12 * DAY), Next::Nothing);
        assert_eq!(ask(None, 0, 12 * DAY), Next::Again);
        assert_eq!(
            ask(Some(answered), 11 * DAY, 12 * DAY),
            Next::Again,
            "it enrolled anew: what was known is forgotten"
        );
        assert_eq!(ask(Some(answered), 0, 18 * DAY), Next::New);
    }

    proptest! {
        #[test]
        fn th_38_a_new_nonce_at_most_once_in_seven_days(
            id: u128, gaps in prop::collection::vec(0i64..4 * DAY, 1..60), answers in prop::collection::vec(any::<bool>(), 60),
        ) {
            let id = EnrollmentId(Uuid::from_u128(id));
            let (mut now, mut sent, mut answered) = (Timestamp(0), None, None);
            for (gap, answers) in gaps.into_iter().zip(answers) {
                now = Timestamp(now.0 + gap);
                if next(id, sent, answered, Timestamp(0), now) == Next::New {
                    if let Some(before) = sent {
                        prop_assert!(now.since(before) >= INTERVAL);
                    }
                    (sent, answered) = (Some(now), None);
                } else if let Some(before) = sent {
                    prop_assert!(now.since(before) < INTERVAL + SPREAD);
                }
                if answers {
                    answered = Some(now);
                }
            }
        }
    }
}
