//! Account-driven enrollment: a person types a Managed Apple Account into Settings, signs in, and the device is enrolled as
//! `mdm-byod` (User Enrollment) or `mdm-adde` (device enrollment).
//!
//! Sources: Apple, "Discover authentication servers", "Implementing the simple authentication user-enrollment flow",
//! "Implementing the OAuth2 authentication user-enrollment flow"; RFC 6749, RFC 6750, RFC 7636, RFC 9700.
//!
//! The way: service discovery (`discovery`), the device's first request and the challenge (`http`, [`challenge`]), the person's
//! sign-in (`sign_in`), for apple-oauth2 the token endpoint (`grant`), the device's second request with the bearer token and its
//! profile (`http`). From then on the device shows the token with every request, and [`bearer`] judges it.
//!
//! A token is 256 random bits, kept as a hash, good for one mode and one account, and from `Authenticate` on for one enrollment
//! (TH-54). Here, and where [`bearer`] says so, a device may be answered 401: nowhere else.

pub mod bearer;
pub mod challenge;
mod clean_up;
mod discovery;
mod error;
mod grant;
mod http;
mod mode;
mod oauth2;
mod presented;
mod refusal;
mod sign_in;

pub use clean_up::clean_up;
pub use error::Error;
pub use http::router;
pub use mode::Mode;
