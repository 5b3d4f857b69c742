//! The judgement: a pure function of the facts and the time.

use mdm_core::certificate::Certificate;
use mdm_core::crypto::key::{Hash, KeyError, SignatureAlgorithm};
use mdm_core::time::Timestamp;
use url::Url;

use super::ends::{self, DAY, End};
use super::facts::{Facts, Lost, Seen};
use super::path::{self, Path};
use super::{Code, Finding};
use crate::config::ServerKind;

/// A server certificate below a private CA may live this long on Apple's systems.
const LONGEST_PRIVATE_DAYS: u64 = 825;
/// And below a public one.
const LONGEST_PUBLIC_DAYS: u64 = 398;
/// When the next anchor must be staged: so long before the end of a root.
const STAGE_BEFORE_DAYS: u32 = 90;

const TLS: &str = "TLS certificate";
const ANCHOR: &str = "anchor";

/// What is wrong, what soon will be, and what to do; nothing where all is well. Errors first.
pub fn examine(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((leaf, _)) = facts.shown().split_first() {
        host(facts, leaf, &mut found);
        chain(facts, leaf, now, &mut found);
        strength(facts, leaf, &mut found);
        pins(facts, now, &mut found);
    }
    if let Some(trouble) = &facts.files_trouble {
        found.push(finding(
            Code::E2,
            TLS,
            trouble.clone(),
            "put certificate and key right; what was read before stays in use until then",
        ));
    }
    url(facts, &mut found);
    validity(facts, now, &mut found);
    apple(facts, &mut found);
    seen(facts, &mut found);
    others(facts, now, &mut found);
    pilot(facts, &mut found);
    staged(facts, now, &mut found);
    found.sort_by_key(|f| f.code);
    found
}

fn finding(code: Code, about: &'static str, text: impl Into<String>, what_to_do: impl Into<String>) -> Finding {
    Finding { code, about, text: text.into(), what_to_do: what_to_do.into(), urgent: code.is_error() }
}

fn host(facts: &Facts, leaf: &Certificate, found: &mut Vec<Finding>) {
    if !path::names_host(leaf, &facts.public_url) {
        let host = facts.public_url.host_str().unwrap_or_default();
        found.push(finding(
            Code::E1,
            TLS,
            format!("the certificate names {} and not {host}: devices refuse it", path::names(leaf)),
            "get a certificate whose Subject Alternative Name has the host of public_url",
        ));
    }
}

/// E2 and E5: where the chain leads, against what is said of it.
fn chain(facts: &Facts, leaf: &Certificate, now: Timestamp, found: &mut Vec<Finding>) {
    let shown = facts.shown();
    let given: Vec<Certificate> = facts.anchors.iter().chain(&facts.next_anchors).cloned().collect();
    let public = path::follow(shown, &path::public_roots(&facts.public_roots), now);
    let anchored = path::follow(shown, &path::only(&given), now);
    let own = path::is_self_issued(leaf);
    let contradiction = |text: &str, to_do: &str| finding(Code::E5, TLS, text, to_do);
    let declared = facts.kind.as_str();
    let broken = match (&public, &anchored) {
        // A root that is shown as a server's certificate is no path; whether that is meant is judged below.
        _ if own => None,
        (Path::Leads, _) | (_, Path::Leads) => None,
        (Path::Broken(why), _) | (_, Path::Broken(why)) => Some(why),
        _ => None,
    };
    if let Some(why) = broken {
        found.push(finding(
            Code::E2,
            TLS,
            format!("the chain cannot be followed: {why}"),
            "get a certificate that Apple's systems accept (RSA 2048 or more or P-256, SHA-256)",
        ));
        return;
    }
    match facts.kind {
        ServerKind::SelfSigned if !own => found.push(contradiction(
            &format!("trust.server_certificate is \"{declared}\", but the certificate was issued by {}", leaf.issuer()),
            "say \"private-ca\" (with trust.anchors) or \"public\"",
        )),
        ServerKind::SelfSigned => {}
        _ if own => found.push(contradiction(
            &format!("trust.server_certificate is \"{declared}\", but the certificate is its own issuer"),
            "get a certificate from a CA; for a trial, say \"self-signed\" and trust.pilot = true",
        )),
        ServerKind::Public if public == Path::Leads && facts.pinned && anchored != Path::Leads => {
            found.push(contradiction(
                "trust.pin is \"ca\", but the chain leads to none of trust.anchors: devices that enroll now would refuse the server",
                "put the root of the chain into trust.anchors, or set trust.pin = \"auto\"",
            ));
        }
        ServerKind::Public if public == Path::Leads => {}
        ServerKind::Public if anchored == Path::Leads || ends_at_a_root(shown) => found.push(contradiction(
            &format!("trust.server_certificate is \"{declared}\", but the chain leads to a CA that devices do not know"),
            "say trust.server_certificate = \"private-ca\" and give its root in trust.anchors, or get a certificate from a public CA",
        )),
        ServerKind::Public => found.push(finding(
            Code::E2,
            TLS,
            "the chain leads to no root that devices trust",
            "add the intermediates behind the certificate in tls.certificate_file",
        )),
        ServerKind::PrivateCa if anchored == Path::Leads => {}
        ServerKind::PrivateCa if public == Path::Leads => found.push(contradiction(
            &format!("trust.server_certificate is \"{declared}\", but the certificate comes from a public CA that is not in trust.anchors"),
            "with devices enrolled, serve the former certificate again and stage this CA's root in trust.next_anchors: docs/trust.md, \
             \"Changing the CA\"; only while no device is enrolled, say trust.server_certificate = \"public\" at once",
        )),
        ServerKind::PrivateCa => found.push(finding(
            Code::E2,
            TLS,
            "the chain leads to none of trust.anchors",
            "add the intermediates behind the certificate in tls.certificate_file, or put the chain's root into trust.anchors",
        )),
    }
}

/// Whether the last certificate that is sent is a root: then nothing is missing, and the root is not a known one.
fn ends_at_a_root(chain: &[Certificate]) -> bool {
    chain.len() > 1 && chain.last().is_some_and(path::is_self_issued)
}

fn strength(facts: &Facts, leaf: &Certificate, found: &mut Vec<Finding>) {
    let refused = |text: String| {
        finding(
            Code::E4,
            TLS,
            format!("{text}: Apple's systems refuse it"),
            "get a new certificate: RSA 2048 or more or P-256, SHA-256, extended key usage serverAuth, at most 825 days",
        )
    };
    for certificate in facts.shown() {
        if let Err(KeyError::Weak { bits }) = certificate.public_key() {
            found.push(refused(format!("{} has a key of {bits} bits", certificate.subject())));
        }
        let sha1 = matches!(
            certificate.signature(),
            Some((SignatureAlgorithm::Rsa(Hash::Sha1) | SignatureAlgorithm::Ecdsa(Hash::Sha1), _))
        );
        if sha1 && !path::is_self_issued(certificate) {
            found.push(refused(format!("{} is signed with SHA-1", certificate.subject())));
        }
    }
    if !leaf.allows_server_auth() {
        found.push(refused("the certificate is not meant for servers (no extended key usage serverAuth)".to_owned()));
    }
    let days = leaf.not_after().since(leaf.not_before()).as_secs() / DAY.as_secs();
    let most = if facts.kind == ServerKind::Public { LONGEST_PUBLIC_DAYS } else { LONGEST_PRIVATE_DAYS };
    if days > most {
        found.push(refused(format!("the certificate is valid for {days} days, more than {most}")));
    }
}

/// E7: enrolled devices that do not accept the chain.
fn pins(facts: &Facts, now: Timestamp, found: &mut Vec<Finding>) {
    let lost = lost(facts, facts.shown(), now);
    if lost.enrollments > 0 {
        found.push(finding(
            Code::E7,
            "pins",
            format!(
                "{} of {} enrolled devices accept only CAs that are not in the chain: they cannot connect",
                lost.enrollments, lost.of
            ),
            "serve a chain under the CA that they hold, then change it as docs/trust.md says (\"Changing the CA\")",
        ));
    }
    if let Some(held) = facts.held_back {
        found.push(finding(
            Code::E7,
            "pins",
            format!(
                "the TLS certificate's files hold a chain that {} of {} enrolled devices would not accept; the former one stays in use",
                held.enrollments, held.of
            ),
            "wait until they hold the next anchor (GET /api/v1/trust says how many do), or set trust.force_switch = true and lose them",
        ));
    }
}

/// How many live enrollments would not accept `chain`. Those of which nothing is known are not counted.
pub(super) fn lost(facts: &Facts, chain: &[Certificate], now: Timestamp) -> Lost {
    let known: Vec<Certificate> = facts.anchors.iter().chain(&facts.next_anchors).cloned().collect();
    let once_known: Vec<Certificate> = known.iter().chain(&facts.former_anchors).cloned().collect();
    let reached = path::reached(chain, &once_known, now);
    let public = path::follow(chain, &path::public_roots(&facts.public_roots), now) == Path::Leads;
    let beforehand = facts.preinstalled && path::leads_to(chain, &known, now);
    let (mut enrollments, mut of) = (0, 0);
    for group in &facts.groups {
        let Some(anchors) = &group.anchors else { continue };
        of += group.enrollments;
        let by_anchor = anchors.iter().any(|anchor| reached.contains(anchor));
        // A profile that carries anchors may pin them, whatever the settings say today: only without any does a device take
        // what it trusts by itself.
        let by_itself = anchors.is_empty() && (public || beforehand);
        if !by_anchor && !by_itself {
            enrollments += group.enrollments;
        }
    }
    Lost { enrollments, of }
}

fn url(facts: &Facts, found: &mut Vec<Finding>) {
    let ours = &facts.public_url;
    if ours.scheme() != "https" {
        found.push(finding(
            Code::E6,
            "public URL",
            format!("{ours} is not https: no Apple device enrolls there"),
            "set public_url to an https address",
        ));
    }
    let same = |theirs: &Url| {
        (theirs.scheme(), theirs.host_str(), theirs.port_or_known_default())
            == (ours.scheme(), ours.host_str(), ours.port_or_known_default())
    };
    for group in &facts.groups {
        let Some(theirs) = &group.server_url else { continue };
        if !theirs.parse().is_ok_and(|theirs| same(&theirs)) {
            found.push(finding(
                Code::E6,
                "public URL",
                format!("{} enrolled devices were enrolled with {theirs}, and public_url is {ours}", group.enrollments),
                "set public_url back: a device never takes another address; if the host moves, keep the old name for these devices",
            ));
        }
    }
}

/// E3 and W1: the ends of the chain and of the anchors.
fn validity(facts: &Facts, now: Timestamp, found: &mut Vec<Finding>) {
    let chain = facts.shown().iter().map(|c| (TLS, c));
    let anchors = facts.anchors.iter().chain(&facts.next_anchors).map(|c| (ANCHOR, c));
    let mut told = Vec::new();
    for (about, certificate) in chain.chain(anchors) {
        if told.contains(&certificate.fingerprint()) {
            continue;
        }
        told.push(certificate.fingerprint());
        let (subject, not_after) = (certificate.subject(), certificate.not_after());
        let to_do = if about == TLS {
            "renew it; the server takes the new file without a restart"
        } else {
            "stage a new CA: docs/trust.md, \"Changing the CA\""
        };
        if now < certificate.not_before() {
            let text = format!("{subject} is not valid before {}", certificate.not_before());
            found.push(finding(Code::E3, about, text, "check the clock of this machine (NTP), or wait"));
            continue;
        }
        match ends::of_certificate(certificate, now) {
            End::Far => {}
            End::Over => found.push(finding(Code::E3, about, format!("{subject} ended on {not_after}"), to_do)),
            End::Soon { days, urgent } => {
                let text = format!("{subject} ends {}, on {not_after}", ends::in_days(days));
                found.push(Finding { urgent, ..finding(Code::W1, about, text, to_do) });
            }
        }
    }
}

fn apple(facts: &Facts, found: &mut Vec<Finding>) {
    for stale in &facts.stale {
        found.push(finding(
            Code::W2,
            "ADE profile",
            format!(
                "at Apple, profile \"{}\" of server \"{}\" has other anchors than trust.anchors: a device that is set up with it may \
                 refuse this server",
                stale.profile, stale.server
            ),
            "the server defines it anew by itself; if this stays for an hour, look at the health of the ADE server",
        ));
    }
}

fn seen(facts: &Facts, found: &mut Vec<Finding>) {
    let url = &facts.public_url;
    match (&facts.seen, facts.chain.first()) {
        (Seen::Chain(seen), Some(ours)) if seen.first() != Some(ours) => {
            let theirs = seen.first().map(|c| format!("{} of {}", c.subject(), c.issuer())).unwrap_or_default();
            found.push(finding(
                Code::W3,
                "public URL",
                format!("at {url} another certificate is seen than the one served here: {theirs}"),
                "if no proxy of yours stands there, somebody inspects TLS on the way: exempt this host; with a proxy of yours, set tls.off = true",
            ));
        }
        (Seen::Unreachable(why), None) => found.push(finding(
            Code::W3,
            "public URL",
            format!("the certificate at {url} could not be looked at: {why}"),
            "let this server reach its public URL, or set trust.probe = false and check the proxy's certificate by other means",
        )),
        _ => {}
    }
}

fn others(facts: &Facts, now: Timestamp, found: &mut Vec<Finding>) {
    for ending in &facts.ends {
        let (name, not_after) = (&ending.name, ending.not_after);
        let (text, urgent) = match ends::of(not_after, now, ending.notice) {
            End::Far => continue,
            End::Over => (format!("{name} ended on {not_after}"), true),
            End::Soon { days, urgent } => (format!("{name} ends {}, on {not_after}", ends::in_days(days)), urgent),
        };
        found.push(Finding { urgent, ..finding(Code::W4, ending.about, text, ending.what_to_do) });
    }
}

fn pilot(facts: &Facts, found: &mut Vec<Finding>) {
    if facts.pilot {
        found.push(finding(
            Code::W5,
            "pilot",
            "this server is a pilot (trust.pilot): at most 25 devices enroll, and none by an account",
            "before going on, get a certificate from a CA; devices of the pilot must be enrolled anew under it",
        ));
    }
}

fn staged(facts: &Facts, now: Timestamp, found: &mut Vec<Finding>) {
    if facts.kind == ServerKind::Public && !facts.pinned {
        return;
    }
    for anchor in &facts.anchors {
        let end = anchor.not_after();
        let followed = facts.next_anchors.iter().any(|next| next.not_after() > end)
            || facts.anchors.iter().any(|other| other.not_after().since(end) > STAGE_BEFORE_DAYS * DAY);
        if end.since(now) < STAGE_BEFORE_DAYS * DAY && !followed {
            found.push(finding(
                Code::W6,
                ANCHOR,
                format!("{} ends on {end}, and no next CA is staged", anchor.subject()),
                "make the next CA now and name it in trust.next_anchors: docs/trust.md, \"Changing the CA\"",
            ));
        }
    }
}

#[cfg(test)]
#[path = "examine/tests.rs"]
mod tests;
