//! The certificate authority of a policy, and what it would refuse: at writing time whatever the device, and for one device.

use ca::{Asking, Authority, CommonNameRule, IdentifierRule, Refusal};
use mdm_core::certificate::pem_chain;
use mdm_core::hardware::Platform;
use mdm_core::ids::{AuthorityId, PolicyId, PolicyName};
use mdm_core::profile::acme::{AcmePayload, Attest};
use mdm_core::time::Timestamp;
use store::enrollments::Enrollment;
use store::{Tx, Wake, assignments, policies, rollouts};

use crate::acme::{AcmePolicy, FieldError, InvalidPolicy, PolicyDocument};
use crate::decision::Target;
use crate::error::{Error, Result, corrupt};
use crate::facts::FactName;
use crate::gate::Wish;
use crate::reason::ReasonCode;
use crate::template::{Values, Variable};

/// How many policies are looked through at a time.
const PAGE: i64 = 200;

/// The authority that a policy names, or the bare one behind its `directory_url`.
pub async fn of(tx: &mut Tx, policy: &AcmePolicy) -> Result<Authority> {
    let document = policy.document();
    let Some(name) = document.certificate_authority.as_deref() else { return Ok(bare(document)) };
    let row = store::authorities::by_name(tx, name).await?;
    let row = row.ok_or_else(|| Error::NoAuthority(name.to_owned()))?;
    let (_, authority) = ca::stored(&row).map_err(|_| corrupt("certificate_authority.body"))?;
    Ok(authority)
}

/// What is known of the ACME server behind a bare `directory_url`.
fn bare(document: &PolicyDocument) -> Authority {
    let chains = document.issuers.iter().filter_map(|pem| pem_chain(pem).ok());
    let issuers = chains.flatten().map(|certificate| certificate.der().to_vec()).collect();
    let url = document.directory_url.as_deref().unwrap_or_default();
    Authority::bare(url, document.ca_accepts_unattested, issuers)
}

/// Whether a certificate of this authority can be proved: its issuers are known, or it shows what it has issued.
pub async fn provable(tx: &mut Tx, authority: &Authority) -> Result<bool> {
    if !authority.issuers.is_empty() {
        return Ok(true);
    }
    let Some(id) = authority.id else { return Ok(false) };
    let webhooks = store::authorities::webhooks(tx, AuthorityId(id)).await?;
    Ok(webhooks.iter().any(|webhook| webhook.kind == "generic" && webhook.revoked_at.is_none()))
}

/// Refuses a policy whose authority does not exist, or would refuse every device.
pub(crate) async fn check(tx: &mut Tx, policy: &AcmePolicy) -> Result<()> {
    let authority = match of(tx, policy).await {
        Err(Error::NoAuthority(_)) => {
            let expected = "the name of a certificate authority that exists".to_owned();
            let field = "certificate_authority".to_owned();
            return Err(Error::Invalid(InvalidPolicy(vec![FieldError { field, expected }])));
        }
        authority => authority?,
    };
    let wrong = lint(policy.document(), &authority);
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(InvalidPolicy(wrong))) }
}

/// What of a policy its authority would refuse for every device.
fn lint(document: &PolicyDocument, authority: &Authority) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, expected: &str| {
        errors.push(FieldError { field: field.to_owned(), expected: expected.to_owned() });
    };
    if document.attest == Wish::Never && !authority.accepts_unattested {
        wrong(
            "attest",
            "required or when_supported, since its certificate authority refuses devices without an attestation",
        );
    }
    let names = ["{serial}", "{udid}", "{provisioning_udid}"];
    if authority.identifier == IdentifierRule::Attested
        && !authority.accepts_unattested
        && !names.contains(&document.client_identifier.as_str())
    {
        wrong(
            "client_identifier",
            "{serial}, {udid} or {provisioning_udid}, since its certificate authority wants the attested serial number or UDID",
        );
    }
    let common_names = document.subject.iter().flatten().filter_map(|pair| match pair.as_slice() {
        [kind, value] if is_common_name(kind) => Some(value),
        _ => None,
    });
    let mut others = common_names.filter(|name| !name.is_empty() && **name != document.client_identifier);
    if authority.common_name == CommonNameRule::Identifier && others.next().is_some() {
        wrong(
            "subject",
            "without a common name (CN), or with the same template as client_identifier: its certificate authority wants that",
        );
    }
    errors
}

/// Apple's short name of the type, or its object identifier.
fn is_common_name(kind: &str) -> bool {
    matches!(kind, "CN" | "2.5.4.3")
}

/// Why the authority would refuse this payload.
pub(crate) fn refuses(
    authority: &Authority,
    payload: &AcmePayload,
    target: &Target<'_>,
    platform: Option<Platform>,
) -> Option<ReasonCode> {
    let keys = payload.keys();
    let common_names: Vec<&str> = keys
        .subject
        .iter()
        .flatten()
        .filter_map(|pair| match pair.as_slice() {
            [kind, value] if is_common_name(kind) => Some(value.as_str()),
            _ => None,
        })
        .collect();
    let asking = Asking {
        client_identifier: &keys.client_identifier,
        common_names: &common_names,
        attested: keys.attest == Attest::True,
        kind: target.kind,
        platform,
        serial_number: target.facts.text(FactName::SerialNumber),
        udid: target.facts.text(FactName::Udid),
        provisioning_udid: target.facts.text(FactName::ProvisioningUdid),
    };
    authority.refuses(&asking).map(|refusal| match refusal {
        Refusal::Unattested => ReasonCode::CaUnattested,
        Refusal::IdentifierMalformed => ReasonCode::CaIdentifierMalformed,
        Refusal::IdentifierNotAttested => ReasonCode::CaIdentifierNotAttested,
        Refusal::MacUdid => ReasonCode::CaMacUdid,
        Refusal::UserEnrollment => ReasonCode::CaUserEnrollment,
        Refusal::CommonName => ReasonCode::CaCommonName,
    })
}

/// How the device behind an enrollment is called, as it is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its operating system.
    pub platform: Option<Platform>,
    /// `SerialNumber`.
    pub serial_number: Option<String>,
    /// `UDID`.
    pub udid: Option<String>,
    /// `ProvisioningUDID`.
    pub provisioning_udid: Option<String>,
}

/// How the device behind an enrollment is called: for who compares it with what an authority was shown.
pub async fn known(tx: &mut Tx, enrollment: &Enrollment, now: Timestamp) -> Result<Known> {
    let facts = crate::target::facts_of(tx, enrollment).await?;
    let values = Values::default();
    let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts: &facts, values: &values, now };
    let text = |name| facts.text(name).map(str::to_owned);
    Ok(Known {
        platform: crate::gate::hardware(&target.gate_facts()).platform,
        serial_number: text(FactName::SerialNumber),
        udid: text(FactName::Udid),
        provisioning_udid: text(FactName::ProvisioningUdid),
    })
}

/// Whether this revision of a policy makes its `ClientIdentifier` of `{random}`, so that only who was sent it can know it.
pub async fn has_one_time_identifier(tx: &mut Tx, policy: PolicyId, revision: i64) -> Result<bool> {
    let wording = policies::wording(tx, policy, revision).await?;
    let policy = wording.and_then(|wording| AcmePolicy::from_json(&wording.body).ok());
    Ok(policy.is_some_and(|policy| policy.client_identifier_uses(Variable::Random)))
}

/// The policies that name this authority: in their current revision, in the one that a rollout leaves behind or would go back to,
/// or in one that is on its way to a device.
pub async fn users(tx: &mut Tx, authority: &str) -> Result<Vec<policies::Policy>> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = policies::list(tx, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        last.name.clone_into(&mut after);
        for row in page {
            if names(&row.body, authority) || names_before(tx, &row, authority).await? {
                found.push(row);
            }
        }
    }
}

fn names(body: &str, authority: &str) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_str(body).ok();
    body.is_some_and(|body| body.get("certificate_authority").and_then(|n| n.as_str()) == Some(authority))
}

/// Whether an older revision that is in use names it.
async fn names_before(tx: &mut Tx, policy: &policies::Policy, authority: &str) -> Result<bool> {
    let mut revisions = assignments::revisions_under_way(tx, policy.id()).await?;
    let rollout = rollouts::current(tx, policy.id()).await?.filter(|r| r.state != rollouts::State::RolledBack);
    revisions.extend(rollout.and_then(|r| r.from_revision));
    for revision in revisions.into_iter().filter(|revision| *revision != policy.revision) {
        let wording = policies::wording(tx, policy.id(), revision).await?;
        if wording.is_some_and(|wording| names(&wording.body, authority)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An authority was changed: the devices of the policies that name it are decided for again, and so are those that it kept out or that
/// were given up. What is on a device stays as it is until it is renewed.
pub async fn changed(tx: &mut Tx, authority: &str, now: Timestamp) -> Result<Vec<PolicyName>> {
    let mut names = Vec::new();
    for policy in users(tx, authority).await? {
        assignments::due_policy(tx, policy.id(), now).await?;
        assignments::retry_given_up(tx, policy.id(), now).await?;
        names.extend(policy.name.parse().ok());
    }
    tx.wake(Wake::Reconcile);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use mdm_core::enrollment::{Channel, EnrollmentKind};
    use serde_json::json;

    use super::*;
    use crate::decision::decision;
    use crate::facts::{FactValue, Facts, Source};

    fn policy(change: serde_json::Value) -> AcmePolicy {
        let mut json = json!({
            "name": "wifi", "certificate_authority": "step", "client_identifier": "{serial}", "subject": [[["CN", "{serial}"]]],
        });
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        AcmePolicy::from_value(json).unwrap()
    }

    fn step_ca() -> Authority {
        let document =
            json!({"name": "step", "kind": "step_ca", "directory_url": "https://ca.example/acme/mdm/directory"});
        Authority::of(uuid::Uuid::from_u128(1), "step", &serde_json::from_value(document).unwrap())
    }

    fn wrong(change: serde_json::Value, authority: &Authority) -> Vec<String> {
        lint(policy(change).document(), authority).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_policy_that_step_ca_would_refuse_on_every_device_is_refused_when_it_is_written() {
        assert_eq!(wrong(json!({}), &step_ca()), Vec::<String>::new());
        let o_only = json!({"client_identifier": "{udid}", "subject": [[["O", "Example"]]]});
        assert_eq!(wrong(o_only, &step_ca()), Vec::<String>::new());
        for (change, field) in [
            (json!({"client_identifier": "{random}", "subject": [[["O", "x"]]]}), "client_identifier"),
            (json!({"client_identifier": "mac-{serial}", "subject": [[["O", "x"]]]}), "client_identifier"),
            (json!({"subject": [[["CN", "{device_name}"]]]}), "subject"),
            (json!({"subject": [[["2.5.4.3", "{device_name}"]]]}), "subject"),
            (json!({"attest": "never"}), "attest"),
        ] {
            assert_eq!(wrong(change, &step_ca()), [field]);
        }
        let bare = Authority::bare("https://ca.example", false, vec![]);
        assert_eq!(wrong(json!({"client_identifier": "{random}"}), &bare), Vec::<String>::new());
    }

    fn decide(policy: &AcmePolicy, product: &str, provisioning: Option<&str>) -> Option<ReasonCode> {
        let at = Timestamp(1);
        let mut facts = Facts { asked_at: Some(at), ..Facts::default() };
        let mut values = Values::default();
        for (name, variable, text) in [
            (FactName::ProductName, Variable::ProductName, Some(product)),
            (FactName::OsVersion, Variable::OsVersion, Some("17.0")),
            (FactName::SerialNumber, Variable::Serial, Some("C02")),
            (FactName::Udid, Variable::Udid, Some("U")),
            (FactName::ProvisioningUdid, Variable::ProvisioningUdid, provisioning),
        ] {
            if let Some(text) = text {
                facts.learn(name, FactValue::Text(text.into()), Source::DeviceInformation, at);
            }
            values.set(variable, text);
        }
        let target =
            Target { kind: EnrollmentKind::Device, channel: Channel::Device, facts: &facts, values: &values, now: at };
        decision(policy, &step_ca(), &target).0.reason.map(|reason| reason.code)
    }

    #[test]
    fn th_40_the_gate_knows_which_udid_of_a_mac_step_ca_will_see() {
        let udid = policy(json!({"client_identifier": "{udid}", "subject": [[["O", "Example"]]]}));
        assert_eq!(decide(&udid, "iPhone15,2", None), None);
        assert_eq!(decide(&udid, "Mac14,2", Some("P")), Some(ReasonCode::CaMacUdid));
        assert_eq!(decide(&udid, "MacBookPro16,1", Some("U")), Some(ReasonCode::AttestIgnoredBySilicon));
        let provisioning = policy(json!({"client_identifier": "{provisioning_udid}", "subject": [[["O", "Example"]]]}));
        assert_eq!(decide(&provisioning, "Mac14,2", Some("P")), None);
        assert_eq!(decide(&policy(json!({})), "Mac14,2", Some("P")), None);
    }
}
