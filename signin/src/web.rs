//! What every page for a person has in common: its frame, its headers, how often one address may ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use mdm_core::rate::network;

/// Whose pages these are.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The organization's name.
    pub organization: &'a str,
    /// A trial, with a banner on every page.
    pub pilot: bool,
}

/// A page: no script, one style sheet.
pub fn frame(site: Site<'_>, title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) " – " (site.organization) }
                link rel="stylesheet" href="/enroll/style.css";
            }
            body {
                main {
                    p.organization { (site.organization) }
                    @if site.pilot {
                        p.banner { "A trial: nobody vouches for this server. Enroll only a device that you can erase." }
                    }
                    (body)
                }
            }
        }
    }
}

/// A page of a heading and a sentence.
pub fn message(site: Site<'_>, title: &str, text: &str) -> Markup {
    frame(site, title, html! { h1 { (title) } p.lead { (text) } })
}

/// An answer that asks for patience: this status and page, and when to come again.
pub fn later(status: StatusCode, seconds: &'static str, page: Markup) -> Response {
    (status, [(header::RETRY_AFTER, HeaderValue::from_static(seconds))], page).into_response()
}

/// The client's own address, as the listener learned it. Without one all clients are one.
pub fn address(extensions: &Extensions) -> IpAddr {
    let connected = extensions.get::<ConnectInfo<SocketAddr>>().map(|connected| connected.0.ip());
    network(connected.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// `Content-Security-Policy` of a page whose forms lead to this server.
pub const FORMS_HERE: &str = "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The same where a form's answer leads, by redirects, to the address by which a device takes the end of an account-driven
/// sign-in: browsers ask for it in `form-action`.
pub const FORMS_TO_DEVICE: &str = "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; \
     form-action 'self' apple-remotemanagement-user-login:; frame-ancestors 'none'";

/// No page is kept, framed, indexed or told to others, and none runs a script.
pub fn safe_headers(mut response: Response, policy: &'static str) -> Response {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
