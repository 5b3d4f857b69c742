//! The pages, for a person with an iPhone, an iPad or a Mac: plain words, no script, one style sheet.

use maud::{Markup, PreEscaped, html};
use mdm_core::time::Timestamp;
use qrcode::QrCode;
use qrcode::render::svg;
use signin::web::{self, Site};
use store::links::Row;

use crate::Settings;
use crate::link::Standing;

fn site(settings: &Settings) -> Site<'_> {
    Site { organization: &settings.organization, pilot: settings.trust.pilot }
}

pub(crate) fn frame(settings: &Settings, title: &str, body: Markup) -> Markup {
    web::frame(site(settings), title, body)
}

/// The page of a link that can be used.
/// `path` is that of the link, `url` the whole of it, for the QR code. With `sign_in` a person signs in before the profile.
pub(crate) fn link(settings: &Settings, row: &Row, path: &str, url: &str, sign_in: bool) -> Markup {
    let organization = &settings.organization;
    let user = row.kind == "user";
    let body = html! {
        h1 { "Set up device management" }
        p.lead {
            "This link enrolls " strong { @if row.max_uses == 1 { "one iPhone, iPad or Mac" } @else { "an iPhone, iPad or Mac" } }
            " in device management by " (organization) ". Open it on the device that you want to enroll."
        }
        @if sign_in {
            p { a.button href=(format!("{path}/sign-in")) { "Sign in and download the profile" } }
        } @else {
            form method="post" action=(format!("{path}/profile")) {
                button type="submit" { "Download the profile" }
            }
        }
        p.fine {
            "The link works until " (readable(Timestamp(row.expires_at)))
            @if row.max_uses == 1 { ", once." } @else { "." }
        }
        details open {
            summary { "On an iPhone or iPad" }
            ol {
                li { "Open this page in " strong { "Safari" } " on that iPhone or iPad." }
                li { "Tap " strong { "Download the profile" } ", then " strong { "Allow" } "." }
                li {
                    "Open " strong { "Settings" } " and tap " strong { "Profile Downloaded" }
                    " near the top. It is also in General → VPN & Device Management."
                }
                li { "Tap " strong { "Install" } ", enter the passcode, and tap " strong { "Install" } " and " strong { "Trust" } " when asked." }
                @if user { li { "Sign in with " strong { (row.managed_apple_account.as_deref().unwrap_or_default()) } " when asked." } }
            }
        }
        details open {
            summary { "On a Mac" }
            ol {
                li { "Open this page in " strong { "Safari" } " on that Mac." }
                li { "Click " strong { "Download the profile" } " and allow the download." }
                li {
                    "Open " strong { "System Settings" } " → General → Device Management. "
                    "Before macOS 15 it is Privacy & Security → Profiles."
                }
                li { "Double-click the profile, then click " strong { "Install" } " or " strong { "Enroll" } ". A Mac asks for the password of an administrator." }
            }
        }
        details {
            summary { "Open this page on another device" }
            p { "Point the camera of that iPhone or iPad at this code, or copy the address to that Mac." }
            @if let Some(svg) = qr(url) {
                div.qr role="img" aria-label="QR code of this page" { (PreEscaped(svg)) }
            }
        }
        details {
            summary { "What will " (organization) " be able to do?" }
            @if user {
                ul {
                    li { "Install and remove the settings, certificates and accounts of your work." }
                    li { "See the kind of device, its system version, and what " (organization) " itself installed." }
                }
                p { "It can't see your personal apps, data, serial number or location, and it can't erase the device." }
            } @else {
                ul {
                    li { "Install and remove settings, certificates and accounts." }
                    li { "See what the device is: model, serial number, system version, installed profiles and certificates." }
                    li { "Lock or erase the device, for example when it is lost." }
                }
                p { "It can't read your messages, mails or pictures. You can remove the profile in the same place in Settings, unless the device belongs to the organization and was set up by it." }
            }
        }
        @if settings.gives_anchors() {
            p.fine {
                "Does the browser say that this connection is not private? This server has a certificate of " (organization)
                "'s own. " a href="/trust" { "How to check it" } "."
            }
        }
    };
    frame(settings, "Set up device management", body)
}

/// The page of a link that can't be used (any more), or that never was.
pub(crate) fn gone(settings: &Settings, standing: Option<Standing>) -> Markup {
    let (title, text) = match standing {
        Some(Standing::UsedUp) => (
            "This link was used already",
            "An enrollment link works only as often as it was made for. If the device was not set up, ask for a new link.",
        ),
        Some(Standing::Expired) => {
            ("This link has expired", "Enrollment links work for a short time only. Ask for a new one.")
        }
        Some(Standing::Revoked) => ("This link was withdrawn", "It can't be used any more. Ask for a new one."),
        Some(Standing::Ready | Standing::Again) | None => (
            "There is no such link",
            "Check that the whole address was copied, or scan the QR code again. If that does not help, ask for a new link.",
        ),
    };
    message(settings, title, text)
}

/// Something loads ahead; a person would not see this.
pub(crate) fn preview(settings: &Settings) -> Markup {
    message(settings, "Not for previews", "The profile is given out when a person asks for it, not ahead of that.")
}

/// Too many requests from one address.
pub(crate) fn too_many(settings: &Settings) -> Markup {
    message(settings, "Too many requests", "Please wait a minute, then try again. The link is not used up.")
}

/// Something is wrong on our side.
pub(crate) fn failed(settings: &Settings) -> Markup {
    message(
        settings,
        "The server is not ready",
        "Something is wrong on our side, not with your device. The link is not used up: try again in some minutes, or tell the person who gave it to you.",
    )
}

/// A device of Automated Device Enrollment, in its web view, gets nothing.
pub(crate) fn turned_away(settings: &Settings) -> Markup {
    message(settings, "This device can't be enrolled now", "Ask your organization's administrator, then try again.")
}

/// A sign-in that is over, or was for something else.
pub(crate) fn not_signed_in(settings: &Settings) -> Markup {
    message(
        settings,
        "Please sign in again",
        "The sign-in is over. Open the enrollment link once more. It is not used up.",
    )
}

/// The operator lets nobody in by links, or not this device.
pub(crate) fn closed(settings: &Settings) -> Markup {
    message(settings, "This device can't be enrolled here", "Ask the person who gave you the link.")
}

/// A page of a heading and a sentence.
pub fn message(settings: &Settings, title: &str, text: &str) -> Markup {
    web::message(site(settings), title, text)
}

/// `22 Nov 2026, 05:00 UTC`, from RFC 3339.
pub(crate) fn readable(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = at.to_rfc3339();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().ok().and_then(|m| MONTHS.get(m.wrapping_sub(1)));
    match month {
        Some(month) => format!("{} {month} {}, {} UTC", part(8, 10).trim_start_matches('0'), part(0, 4), part(11, 16)),
        None => text,
    }
}

/// The QR code of a link as SVG; `None` where the address is longer than such a code can be.
fn qr(url: &str) -> Option<String> {
    let code = QrCode::new(url.as_bytes()).ok()?;
    let svg = code.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
    svg.find("<svg").and_then(|from| svg.get(from..)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(readable(Timestamp(1_793_336_400_000)), "30 Oct 2026, 05:00 UTC");
        assert_eq!(readable(Timestamp::from_rfc3339("2027-01-02T03:04:05Z").unwrap()), "2 Jan 2027, 03:04 UTC");
    }

    #[test]
    fn a_qr_code_is_markup_without_a_declaration() {
        let svg = qr("https://mdm.example.org/enroll/abc").unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("style="), "an inline style would be refused by the page's own policy");
    }
}
