//! The objects of RFC 8555 section 7.1 as JSON.

use serde_json::{Value, json};

use super::{Order, Progress};

fn status(order: &Order) -> (&'static str, &'static str) {
    match order.progress {
        Progress::Pending => ("pending", "pending"),
        Progress::Ready(_) => ("ready", "valid"),
        Progress::Processing => ("processing", "valid"),
        Progress::Valid { .. } => ("valid", "valid"),
        Progress::Invalid(_) => ("invalid", "invalid"),
    }
}

fn identifier_json(order: &Order) -> Value {
    json!({ "type": "permanent-identifier", "value": order.identifier })
}

pub(super) fn order_json(order: &Order, id: &str, base: &str) -> Value {
    let mut body = json!({
        "status": status(order).0,
        "identifiers": [identifier_json(order)],
        "authorizations": [format!("{base}/authz/{id}")],
        "finalize": format!("{base}/order/{id}/finalize"),
    });
    let mut add = |key: &str, value: Value| body.as_object_mut().map(|body| body.insert(key.to_owned(), value));
    match &order.progress {
        Progress::Valid { .. } => {
            add("certificate", json!(format!("{base}/certificate/{id}")));
        }
        Progress::Invalid(problem) => {
            add("error", problem.json());
        }
        _ => {}
    }
    body
}

pub(super) fn authorization_json(order: &Order, id: &str, base: &str) -> Value {
    json!({
        "status": status(order).1,
        "identifier": identifier_json(order),
        "challenges": [challenge_json(order, id, base)],
    })
}

pub(super) fn challenge_json(order: &Order, id: &str, base: &str) -> Value {
    let mut body = json!({
        "type": "device-attest-01",
        "url": format!("{base}/challenge/{id}"),
        "status": status(order).1,
        "token": order.token,
    });
    if let (Progress::Invalid(problem), Some(body)) = (&order.progress, body.as_object_mut()) {
        body.insert("error".to_owned(), problem.json());
    }
    body
}
