//! `ClearPasscode`: takes the passcode off a device, with the unlock token that it once gave. Source: Apple, "Clear Passcode".

/// The command without its `UnlockToken`, which is put in when it is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearPasscode;

impl ClearPasscode {
    pub(super) const REQUEST_TYPE: &str = "ClearPasscode";
}
