//! Which commands take something from the person who holds the device.

use mdm_core::command::Envelope;
use mdm_core::plist::{self, Limits, Value};

use crate::Shared;
use crate::auth::{Caller, Scope};
use crate::problem::{Problem, Slug};

/// Commands that erase, lock, unmanage or restart a device, or take an account, a password or a lock from its user.
/// They need the scope `commands:destructive` and go to the urgent lane by default (TH-60, RG-08).
const DESTRUCTIVE: &[&str] = &[
    "ClearActivationLockBypassCode",
    "ClearPasscode",
    "ClearRestrictionsPassword",
    "DeleteUser",
    "DeviceLock",
    "DisableLostMode",
    "DisableRemoteDesktop",
    "EnableLostMode",
    "EraseDevice",
    "LOMDeviceRequest",
    "LogOutUser",
    "RemoveApplication",
    "RestartDevice",
    "RotateFileVaultKey",
    "ScheduleOSUpdate",
    "SetAutoAdminPassword",
    "SetFirmwarePassword",
    "SetRecoveryLock",
    "ShutDownDevice",
    "UnlockUserAccount",
];

/// The most devices that a destructive command may reach without a confirmed count.
const UNCONFIRMED: usize = 10;

/// Whether this command is one of them, or removes the enrollment profile, which unmanages the device.
pub(crate) fn is_destructive(shared: &Shared, envelope: &Envelope) -> bool {
    DESTRUCTIVE.contains(&envelope.request_type.as_str())
        || (envelope.request_type == "RemoveProfile"
            && removed(envelope).is_none_or(|id| id == shared.policy.identifier))
}

/// `Identifier` of a `RemoveProfile`.
fn removed(envelope: &Envelope) -> Option<String> {
    let whole = plist::decode_dictionary(&envelope.body, Limits::API).ok()?;
    let command = whole.get("Command").and_then(Value::as_dictionary)?;
    command.get("Identifier").and_then(Value::as_string).map(str::to_owned)
}

/// Refuses a command that the token may not send, or a destructive one that reaches more devices than was confirmed (TH-60).
pub(crate) fn permitted(
    shared: &Shared,
    caller: &Caller,
    envelope: &Envelope,
    targets: usize,
    confirmed: Option<usize>,
) -> Result<(), Problem> {
    if !is_destructive(shared, envelope) {
        return caller.must(Scope::CommandsWrite);
    }
    caller.must_destroy(shared)?;
    if targets > UNCONFIRMED && confirmed != Some(targets) {
        let detail = format!(
            "{} would reach {targets} enrollments; repeat the request with confirm_targets={targets}",
            envelope.request_type
        );
        return Err(Problem::new(Slug::ConfirmationNeeded, detail));
    }
    Ok(())
}
