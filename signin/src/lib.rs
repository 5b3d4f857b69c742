//! Who a person is: sign-in by an OpenID Connect provider, or by an invitation code.
