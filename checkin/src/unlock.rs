//! `ClearPasscode`: the device's unlock token is put into the command when it is handed out, and never before (TH-64).
//!
//! Source: Apple, `ClearPasscode` (`UnlockToken`, from the device's `TokenUpdate`). The token in use is that of the present
//! enrollment; those of former ones stay in the archive.

use mdm_core::plist::{self, Dictionary, Limits, Value};
use store::Tx;
use store::enrollments::{self, Enrollment};

use crate::Door;
use crate::reply::DeviceError;

/// The context that a device's unlock token is sealed for.
fn context(enrollment: &Enrollment) -> String {
    format!("enrollment.unlock_token_sealed:{}", enrollment.id)
}

/// The command with the device's unlock token, or why there is none.
pub(crate) async fn render(
    door: &Door,
    tx: &mut Tx,
    enrollment: &Enrollment,
    body: &[u8],
) -> Result<Result<Vec<u8>, String>, DeviceError> {
    let Some(sealed) = enrollments::unlock_token(tx, enrollment.id).await? else {
        return Ok(Err("the device has given no unlock token".to_owned()));
    };
    let token = door.sealer.open(&context(enrollment), &sealed)?;
    let unreadable = store::Error::Corrupt("command.body_sealed");
    let Ok(mut whole) = plist::decode_dictionary(body, Limits::API) else { return Err(unreadable.into()) };
    let mut command: Dictionary = whole.remove("Command").and_then(Value::into_dictionary).ok_or(unreadable)?;
    command.insert("UnlockToken".into(), Value::Data(token.expose().clone()));
    whole.insert("Command".into(), Value::Dictionary(command));
    Ok(Ok(plist::encode(&Value::Dictionary(whole))))
}
