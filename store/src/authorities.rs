//! Rows of `certificate_authority`, `ca_webhook` and `ca_webhook_call`.
