//! What certificate authorities ask before they issue: step-ca's webhooks, and a generic signed one.
