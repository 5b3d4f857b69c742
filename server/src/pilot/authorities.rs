//! What an administrator sets up before the first certificate: the two certificate authorities, the webhooks by which they ask,
//! and the policy for everybody.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use simulator::acme_ca::{AcmeCa, Kind, Webhook};
use simulator::http::Trust;

use super::operator::Operator;
use super::services::Services;

/// The authority that also takes devices without attestation, as the REST API knows it.
pub(super) const OFFICE: &str = "office";
/// The authority that is as strict as step-ca.
pub(super) const FACTORY: &str = "factory";

/// Tells the server of both authorities, and the authorities of their webhooks.
pub(super) async fn set_up(operator: &Operator, services: &Services, trust: &Trust) -> Result<()> {
    let office = json!({
        "kind": "generic",
        "directory_url": services.office.directory_url(),
        "issuers": [services.office.issuer_pem()?],
        "accepts_unattested": true,
        "identifier": "any",
        "common_name": "any",
    });
    let factory = json!({
        "kind": "step_ca",
        "directory_url": services.factory.directory_url(),
        "issuers": [services.factory.issuer_pem()?],
    });
    add(operator, OFFICE, &office, &services.office, &[Kind::Generic], trust).await?;
    add(operator, FACTORY, &factory, &services.factory, &[Kind::Enriching, Kind::Authorizing], trust).await
}

async fn add(
    operator: &Operator,
    name: &str,
    document: &Value,
    authority: &AcmeCa,
    kinds: &[Kind],
    trust: &Trust,
) -> Result<()> {
    let path = format!("/api/v1/certificate-authorities/{name}");
    operator.put(&path, document).await.with_context(|| format!("the certificate authority {name}"))?;
    let shown = operator.get(&path).await?;
    let url = text(&shown, "/certificate_authority/webhook_url")?;
    let mut webhooks = Vec::new();
    for kind in kinds {
        let word = match kind {
            Kind::Enriching => "enriching",
            Kind::Authorizing => "authorizing",
            Kind::Generic => "generic",
        };
        let made = operator.post(&format!("{path}/webhooks"), &json!({ "kind": word })).await?;
        let (id, secret) = (text(&made, "/webhook/webhook_id")?, text(&made, "/secret")?);
        webhooks.push(Webhook { id, url: url.clone(), secret, kind: *kind });
    }
    authority.set_webhooks(webhooks, trust)?;
    Ok(())
}

/// A policy for everybody: the strongest form that each device can honour.
pub(super) async fn policy_for_everybody(operator: &Operator, name: &str, label: &str) -> Result<()> {
    let policy = json!({
        "name": name,
        "channel": "both",
        "certificate_authority": OFFICE,
        "client_identifier": "{random}",
        "subject": [[["O", "Pilot"]], [["CN", "{enrollment_id}"]]],
        "key_type": "ECSECPrimeRandom",
        "key_size": 256,
        "hardware_bound": "when_supported",
        "attest": "when_supported",
    });
    operator.create_policy(name, &policy).await.context("creating the policy")?;
    operator.assign_to_label(name, label).await.context("assigning the policy")
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("the answer has no {pointer}"))
}
