//! Automated Device Enrollment: Apple's device service (`mdmenrollment.apple.com`), its devices and its profiles.
