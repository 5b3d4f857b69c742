//! Which commands take something from the person who holds the device.

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

/// Whether this `RequestType` is one of them.
pub(crate) fn is_destructive(request_type: &str) -> bool {
    DESTRUCTIVE.contains(&request_type)
}
