//! The renewal of MDM identities: planned, queued, delivered, seen, and tried again.
