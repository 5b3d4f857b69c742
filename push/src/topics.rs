//! One client per topic, made anew when the stored push certificate changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mdm_core::crypto::seal::Sealer;
use mdm_core::time::Timestamp;
use store::push::Cert;

use crate::a2::A2;
use crate::direct::{Direct, Endpoint};
use crate::plan::Road;
use crate::schedule::TOPIC_RESTS;
use crate::{Apns, Error, cert};

/// How pushes reach APNs.
#[derive(Clone)]
pub enum Client {
    /// Through the crate a2, to Apple's production host.
    A2,
    /// Through our own client, to any host.
    Direct(Endpoint),
    /// Through this one, whatever the topic and its certificate: for tests in process.
    Given(Arc<dyn Apns>),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::A2 => "A2",
            Self::Direct(_) => "Direct",
            Self::Given(_) => "Given",
        })
    }
}

struct Topic {
    uploaded_at: i64,
    not_after: Timestamp,
    stopped_at: Option<Timestamp>,
    /// APNs asked for a pause of all pushes.
    rests_until: Timestamp,
    apns: Option<Arc<dyn Apns>>,
}

/// The topics that this server has certificates for.
pub(crate) struct Topics {
    client: Client,
    by_name: HashMap<String, Topic>,
}

impl Topics {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, by_name: HashMap::new() }
    }

    /// Takes over what is stored; a certificate that makes no client closes its own topic only (RG-19).
    pub(crate) fn refresh(&mut self, stored: Vec<Cert>, sealer: &Sealer) {
        self.by_name.retain(|name, _| stored.iter().any(|c| c.topic == *name));
        for row in stored {
            match self.by_name.get_mut(&row.topic) {
                Some(known) if known.uploaded_at == row.uploaded_at => {
                    known.stopped_at = row.stopped_at.map(Timestamp);
                }
                _ => {
                    let apns = self.build(&row, sealer).map_err(|error| {
                        tracing::error!(push.topic = %row.topic, %error, "the push certificate cannot be used");
                    });
                    let topic = Topic {
                        uploaded_at: row.uploaded_at,
                        not_after: Timestamp(row.not_after),
                        stopped_at: row.stopped_at.map(Timestamp),
                        rests_until: Timestamp(0),
                        apns: apns.ok(),
                    };
                    self.by_name.insert(row.topic, topic);
                }
            }
        }
    }

    fn build(&self, row: &Cert, sealer: &Sealer) -> Result<Arc<dyn Apns>, Error> {
        if let Client::Given(apns) = &self.client {
            return Ok(Arc::clone(apns));
        }
        let (certificate, key) = cert::open(row, sealer)?;
        Ok(match &self.client {
            Client::Direct(endpoint) => Arc::new(Direct::new(endpoint, &certificate, key.expose())?),
            _ => Arc::new(A2::new(&certificate, key.expose())?),
        })
    }

    /// Whether `topic` can be pushed to at `now`.
    pub(crate) fn road(&self, topic: &str, now: Timestamp) -> Road {
        if matches!(self.client, Client::Given(_)) {
            return Road::Open;
        }
        let Some(known) = self.by_name.get(topic) else { return Road::Closed(now.plus(TOPIC_RESTS)) };
        let stopped = known.stopped_at.map_or(Timestamp(0), |at| at.plus(TOPIC_RESTS));
        let until = stopped.max(known.rests_until);
        if known.apns.is_none() || known.not_after <= now {
            Road::Closed(now.plus(TOPIC_RESTS))
        } else if until > now {
            Road::Closed(until)
        } else {
            Road::Open
        }
    }

    /// The client for `topic`, and which certificate it speaks for.
    pub(crate) fn client(&self, topic: &str) -> Option<(Arc<dyn Apns>, i64)> {
        if let Client::Given(apns) = &self.client {
            return Some((Arc::clone(apns), 0));
        }
        let known = self.by_name.get(topic)?;
        Some((Arc::clone(known.apns.as_ref()?), known.uploaded_at))
    }

    /// APNs asked, when it answered at `now`, for a pause.
    pub(crate) fn rest(&mut self, topic: &str, now: Timestamp, pause: Duration) {
        if let Some(known) = self.by_name.get_mut(topic) {
            known.rests_until = known.rests_until.max(now.plus(pause.min(TOPIC_RESTS)));
        }
    }

    /// APNs refused the certificate at `at`. True if that is news.
    pub(crate) fn stop(&mut self, topic: &str, uploaded_at: i64, at: Timestamp) -> bool {
        match self.by_name.get_mut(topic) {
            Some(known) if known.uploaded_at == uploaded_at => {
                let news = known.stopped_at.is_none_or(|before| at.since(before) >= TOPIC_RESTS);
                known.stopped_at = Some(at);
                news
            }
            _ => false,
        }
    }

    /// A push that was sent at `sent_at` was accepted. True if the topic had been stopped before that; a push that was
    /// in flight when another was refused proves nothing.
    pub(crate) fn resume(&mut self, topic: &str, uploaded_at: i64, sent_at: Timestamp) -> bool {
        match self.by_name.get_mut(topic) {
            Some(known) if known.uploaded_at == uploaded_at && known.stopped_at.is_some_and(|at| at < sent_at) => {
                known.stopped_at = None;
                true
            }
            _ => false,
        }
    }
}
