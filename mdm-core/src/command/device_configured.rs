//! `DeviceConfigured`: lets a device that waits in Setup Assistant go on. Source: `device.configured.yaml`.

/// The command; it has no keys. Device channel, Automated Device Enrollment only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceConfigured;

impl DeviceConfigured {
    pub(super) const REQUEST_TYPE: &str = "DeviceConfigured";
}
