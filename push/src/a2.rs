//! The client through the crate `a2`: the default way to Apple's own hosts.
//!
//! What a2 leaves out (checked in 0.10.0): other hosts, ports and CAs; `Retry-After`; reasons that it does not know,
//! which it drops, so that only the status is left; a time-out on the body of an answer. It does not switch Nagle's
//! algorithm off, so many pushes have to be in flight: the loop sees to that. Use [`crate::direct`] for the rest.

use ::a2::request::notification::{NotificationOptions, Priority};
use ::a2::request::payload::PayloadLike;
use ::a2::{Client, ClientConfig, Endpoint, PushType};
use async_trait::async_trait;
use serde::Serialize;

use crate::outcome::Answer;
use crate::{Apns, Error, Outcome, Payload, TIME_OUT, Target};

/// How long a2 may keep a connection that nothing is sent on, in seconds.
const IDLE_SECONDS: u64 = 600;

/// A client for one push certificate.
pub struct A2 {
    client: Client,
}

impl A2 {
    /// For the push certificate (PEM, with its chain) and key (PKCS#8 PEM). Connects at the first push.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let config = ClientConfig {
            endpoint: Endpoint::Production,
            request_timeout_secs: Some(TIME_OUT.as_secs()),
            pool_idle_timeout_secs: Some(IDLE_SECONDS),
        };
        let client = Client::certificate_parts(certificate_pem.as_bytes(), key_pem.as_bytes(), config)
            .map_err(|e| Error::Client(e.to_string()))?;
        Ok(Self { client })
    }
}

/// A push as a2 takes it: serialized it is only [`Payload`], without the `aps` of a2's own.
struct Push<'a> {
    payload: Payload<'a>,
    token: String,
    options: NotificationOptions<'a>,
}

impl Serialize for Push<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.payload.serialize(s)
    }
}

impl std::fmt::Debug for Push<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Push")
    }
}

impl PayloadLike for Push<'_> {
    fn get_device_token(&self) -> &str {
        &self.token
    }

    fn get_options(&self) -> &NotificationOptions<'_> {
        &self.options
    }
}

#[async_trait]
impl Apns for A2 {
    async fn send(&self, target: &Target) -> Outcome {
        let push = Push {
            payload: Payload { mdm: target.push_magic.expose() },
            token: hex::encode(&target.token),
            options: NotificationOptions {
                apns_push_type: Some(PushType::Mdm),
                apns_expiration: Some(u64::try_from(target.expiration.unix_seconds()).unwrap_or(0)),
                apns_priority: Some(Priority::High),
                apns_topic: Some(&target.topic),
                ..NotificationOptions::default()
            },
        };
        match tokio::time::timeout(TIME_OUT, self.client.send(push)).await {
            Ok(Ok(response)) => Outcome::Accepted { apns_id: response.apns_id },
            Ok(Err(error)) => outcome(error),
            Err(_) => Outcome::broken("no answer in time"),
        }
    }
}

fn outcome(error: ::a2::Error) -> Outcome {
    match error {
        ::a2::Error::ResponseError(response) => {
            // Its name is Apple's word; its Display is an explanation.
            let reason = response.error.as_ref().map(|e| format!("{:?}", e.reason));
            let timestamp = response.error.as_ref().and_then(|e| i64::try_from(e.timestamp?).ok());
            let answer = Answer { status: response.code, reason: reason.as_deref(), timestamp, ..Answer::default() };
            answer.into()
        }
        ::a2::Error::RequestTimeout(_) => Outcome::broken("no answer in time"),
        other => broken(&other),
    }
}

/// A request without an answer. a2's TLS library is not ours, so an alert about our certificate is known by its text.
fn broken(error: &::a2::Error) -> Outcome {
    const ALERTS: [&str; 8] = [
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "AccessDenied",
        "CertificateRequired",
    ];
    let mut reason = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        reason = format!("{reason}: {source}");
        next = source.source();
    }
    match reason.split_once("received fatal alert: ") {
        Some((_, alert)) if ALERTS.iter().any(|a| alert.starts_with(a)) => Outcome::Rejected { reason },
        _ => Outcome::broken(reason),
    }
}
