//! HTTPS requests to services that an operator configured: Apple's device service, an OpenID Connect provider.
