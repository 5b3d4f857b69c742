//! The pages, in the style of the enrollment pages: plain words, no script, their style sheet.

use maud::{Markup, html};

use crate::{Settings, web};

/// The form for an invitation code. `path` is its own; `provider` the way to the provider, where there is one.
pub(crate) fn code(settings: &Settings, path: &str, provider: Option<&str>, again: bool) -> Markup {
    let body = html! {
        h1 { "Sign in" }
        @if let Some(provider) = provider {
            p.lead { "Sign in with your account at " (settings.organization) "." }
            p { a.button href=(provider) { "Sign in" } }
            h2 { "Or with an invitation code" }
        } @else {
            p.lead { "Enter the invitation code that " (settings.organization) " gave you." }
        }
        @if again {
            p role="alert" {
                strong { "This code does not work here." }
                " Check every character. A code works for one account, for a limited time, and only as often as it was made for."
            }
        }
        form method="post" action=(path) {
            label for="code" { "Invitation code" }
            input id="code" name="code" type="text" required autofocus maxlength="64" autocomplete="one-time-code"
                autocapitalize="characters" autocorrect="off" spellcheck="false" placeholder="XXXX-XXXX-XXXX-XXXX";
            button type="submit" { "Continue" }
        }
        p.fine { "No code, or does it not work? Ask the person who invited you for a new one." }
    };
    web::frame(settings.site(), "Sign in", body)
}

fn message(settings: &Settings, title: &str, text: &str) -> Markup {
    web::message(settings.site(), title, text)
}

/// Nobody is signed in, and this sign-in is over. It says the same whatever the reason: the log and the events have it.
pub(crate) fn refused(settings: &Settings) -> Markup {
    message(
        settings,
        "You are not signed in",
        "This sign-in did not work, took too long, or was begun in another browser. Close this page and begin again on your \
         device. If it does not work then either, ask the person who manages your devices.",
    )
}

/// Too many requests.
pub(crate) fn too_many(settings: &Settings) -> Markup {
    message(settings, "Too many requests", "Please wait a minute, then try again.")
}

/// Something is wrong on our side or the provider's.
pub(crate) fn failed(settings: &Settings) -> Markup {
    message(
        settings,
        "You can't sign in just now",
        "Something is wrong on our side, not with your device or your account. Try again in some minutes, or tell the person \
         who manages your devices.",
    )
}
