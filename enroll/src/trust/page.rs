//! The page about the server's own CA: what it is, its fingerprint, and what to do on each kind of device.

use maud::{Markup, html};
use mdm_core::certificate::Certificate;

use crate::Settings;
use crate::page::{frame, message, readable};

/// The server's certificate is one that devices trust by themselves.
pub(super) fn no_trust(settings: &Settings) -> Markup {
    message(settings, "Nothing to do here", "This server's certificate is one that your device trusts by itself.")
}

/// How to check the server's own CA, and its profile.
pub(super) fn trust(settings: &Settings) -> Markup {
    let organization = &settings.organization;
    let body = html! {
        h1 { "Trust this server" }
        p.lead {
            "The certificate of this server comes from " (organization) "'s own authority, which your device does not know yet. "
            "That is why the browser warned you."
        }
        h2 { "1. Compare" }
        p {
            "Ask the person who gave you the link for the fingerprint, by another way than this page. "
            "Every character must be the same. " strong { "Don't go on if it is not." }
        }
        @for anchor in &settings.anchors {
            p.fine {
                strong { (anchor.common_name().unwrap_or_else(|| "Certificate authority".to_owned())) }
                ", SHA-256 fingerprint, valid until " (readable(anchor.not_after()))
            }
            p.fingerprint { (fingerprint(anchor)) }
        }
        h2 { "2. Install" }
        p { a.button href="/trust/profile" { "Download the certificate profile" } }
        details open {
            summary { "On an iPhone or iPad" }
            ol {
                li { "Open this page in " strong { "Safari" } ", tap the button above, then " strong { "Allow" } "." }
                li {
                    "Open " strong { "Settings" } " and tap " strong { "Profile Downloaded" } ", then " strong { "Install" }
                    " until it is done. It is also in General → VPN & Device Management."
                }
                li {
                    "Go to Settings → General → About → " strong { "Certificate Trust Settings" }
                    ", at the very bottom, and switch the certificate on. Without this step the device does not trust the server."
                }
                li { "Go back to Safari and open your enrollment link." }
            }
        }
        details open {
            summary { "On a Mac" }
            ol {
                li { "Open this page in " strong { "Safari" } ", click the button above, and allow the download." }
                li {
                    "Open " strong { "System Settings" } " → General → Device Management, double-click the profile, and click "
                    strong { "Install" } ". Before macOS 15 it is Privacy & Security → Profiles."
                }
                li { "Go back to Safari and open your enrollment link." }
            }
        }
        p.fine {
            "A device that " (organization) " sets up by Automated Device Enrollment or Apple Configurator gets all this by itself."
        }
    };
    frame(settings, "Trust this server", body)
}

/// In pairs, as device and browser show it.
fn fingerprint(certificate: &Certificate) -> String {
    certificate.fingerprint().0.map(|byte| format!("{byte:02X}")).join(" ")
}
