//! Who a message says that it is from. Check-in messages and reports name their sender by the same keys.

use super::MessageError;
use crate::enrollment::{DeviceKey, Sender, UserKey};
use crate::ids::SHARED_IPAD_USER_ID;
use crate::plist::fields::{FieldError, Fields};

/// Takes the sender's keys. The device is named by exactly one of `UDID` and `EnrollmentID`, and the user by the key that
/// goes with it, so that one message can never be two senders (TH-03, TH-04).
pub fn take_sender(f: &mut Fields, user_short_name: Option<&str>) -> Result<Sender, MessageError> {
    let udid = f.any_string("UDID")?;
    let enrollment_id = f.any_string("EnrollmentID")?;
    let user_id = f.string("UserID")?;
    let enrollment_user_id = f.string("EnrollmentUserID")?;
    match (udid, enrollment_id) {
        (Some(udid), None) => {
            if enrollment_user_id.is_some() {
                return Err(MessageError::UserKey);
            }
            let user = match user_id {
                None => None,
                Some(id) if id.eq_ignore_ascii_case(SHARED_IPAD_USER_ID) => {
                    let name = user_short_name.ok_or(FieldError::Missing("UserShortName"))?;
                    Some(UserKey::SharedIpad(name.parse()?))
                }
                Some(id) => Some(UserKey::UserId(id.parse()?)),
            };
            Ok(Sender { device: DeviceKey::Udid(udid.parse()?), user })
        }
        (None, Some(id)) => {
            if user_id.is_some() {
                return Err(MessageError::UserKey);
            }
            let user = enrollment_user_id.map(|id| id.parse().map(UserKey::UserId)).transpose()?;
            Ok(Sender { device: DeviceKey::EnrollmentId(id.parse()?), user })
        }
        _ => Err(MessageError::DeviceKey),
    }
}
