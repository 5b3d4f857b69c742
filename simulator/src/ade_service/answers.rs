//! What each request is answered.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Asked, Fault, Known, State, devices, lock, oauth};
use crate::https::{Request, Response};

/// Every key of a profile.
const KEYS: [&str; 23] = [
    "url",
    "configuration_web_url",
    "profile_name",
    "org_magic",
    "department",
    "support_phone_number",
    "support_email_address",
    "devices",
    "anchor_certs",
    "supervising_host_certs",
    "allow_pairing",
    "is_supervised",
    "is_mandatory",
    "is_mdm_removable",
    "is_multi_user",
    "await_device_configured",
    "auto_advance_setup",
    "language",
    "region",
    "skip_setup_items",
    "do_not_use_profile_from_backup",
    "is_return_to_service",
    "mdm_migration_deadline",
];

/// What is answered, before it is HTTP.
struct Answer {
    status: u16,
    body: Value,
    session: Option<String>,
    retry_after: Option<u64>,
    late: Option<std::time::Duration>,
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self { status, body, session: None, retry_after: None, late: None }
    }
}

pub(super) async fn answer(state: Arc<Mutex<State>>, request: Request) -> Response {
    let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
    let answer = {
        let mut state = lock(&state);
        let answer = judged(&mut state, &request, &body);
        state
            .asked
            .push(Asked { what: format!("{} {}", request.method(), request.uri().path()), status: answer.status });
        answer
    };
    if let Some(late) = answer.late {
        tokio::time::sleep(late).await;
    }
    // Apple's refusals are words, not always JSON.
    let bytes = match &answer.body {
        Value::String(word) if answer.status >= 400 => word.clone().into_bytes(),
        body => body.to_string().into_bytes(),
    };
    let mut response =
        http::Response::builder().status(answer.status).header("Content-Type", "application/json;charset=UTF8");
    if let Some(session) = answer.session {
        response = response.header("X-ADM-Auth-Session", session);
    }
    if let Some(seconds) = answer.retry_after {
        response = response.header("Retry-After", seconds);
    }
    response.body(bytes).unwrap_or_default()
}

fn judged(state: &mut State, request: &Request, body: &Value) -> Answer {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header("User-Agent").is_none_or(|agent| agent.trim().is_empty()) {
        return Answer::new(400, json!("USER_AGENT_MISSING"));
    }
    if header("X-Server-Protocol-Version").is_none_or(|version| version.parse::<u32>().is_err()) {
        return Answer::new(400, json!("PROTOCOL_VERSION_MISSING"));
    }
    if !request.body().is_empty() && !header("Content-Type").is_some_and(|kind| kind.starts_with("application/json")) {
        return Answer::new(400, json!("MALFORMED_REQUEST_BODY"));
    }
    let path = request.uri().path().to_owned();
    let session = header("X-ADM-Auth-Session").map(str::to_owned);
    let number = if path == "/session" {
        let url = format!("https://{}/session", header("Host").unwrap_or_default());
        match oauth::verify(state, &url, header("Authorization").unwrap_or_default()) {
            Ok(number) => number,
            Err(problem) => return Answer::new(401, json!(problem)),
        }
    } else {
        // A session is good for one request: the answer names the next one.
        match session.and_then(|session| state.sessions.remove(&session)) {
            Some(number) => number,
            None => return Answer::new(401, json!("UNAUTHORIZED")),
        }
    };
    let mut answer = for_server(state, number, request, &path, body);
    if answer.status < 400 || path != "/session" {
        let next = state.fresh("session");
        state.sessions.insert(next.clone(), number);
        if path == "/session" {
            answer.body = json!({ "auth_session_token": next });
        } else {
            answer.session = Some(next);
        }
    }
    answer
}

fn for_server(state: &mut State, number: usize, request: &Request, path: &str, body: &Value) -> Answer {
    let fault = state.known_mut(number).ok().and_then(|known| known.faults.get_mut(path)?.pop_front());
    if let Some(Fault::Answer(status, word, retry_after)) = fault {
        return Answer { retry_after, ..Answer::new(status, json!(word)) };
    }
    if !state.known(number).is_ok_and(|known| known.terms_signed) {
        return Answer::new(403, json!("T_C_NOT_SIGNED"));
    }
    let (put_is_known, now, fresh) = (state.put_is_known, state.now(), state.fresh("profile"));
    let method = request.method().as_str();
    let (status, body) = match (method, path) {
        ("POST", "/server/devices") => devices::fetch(state, number, body, fault.as_ref()),
        ("POST", "/devices/sync") => devices::sync(state, number, body, fault.as_ref()),
        _ => match state.known_mut(number) {
            Ok(known) => plain(known, method, path, request, body, put_is_known, &now, &fresh),
            Err(_) => (500, Value::Null),
        },
    };
    let late = if let Some(Fault::Slow(late)) = fault { Some(late) } else { None };
    Answer { late, ..Answer::new(status, body) }
}

#[expect(clippy::too_many_arguments, reason = "what a request can need, once")]
fn plain(
    known: &mut Known,
    method: &str,
    path: &str,
    request: &Request,
    body: &Value,
    put_is_known: bool,
    now: &str,
    fresh: &str,
) -> (u16, Value) {
    match (method, path) {
        ("GET", "/session") => (200, Value::Null),
        ("GET", "/account") => (
            200,
            json!({
                "server_name": known.name, "server_uuid": "677cab70-fe18-11e2-b778-0800200c9a66",
                "admin_id": "admin@example.com", "org_name": "Example Inc.", "org_email": "it@example.com",
                "org_phone": "555-0100", "org_address": "1 Example Way", "org_type": "org", "org_version": "v2",
                "urls": [{ "uri": "/profile/devices", "http_method": ["PUT"], "limit": { "default": 100, "maximum": 1000 } }],
            }),
        ),
        ("POST", "/profile") => define(known, body, fresh),
        ("GET", "/profile") => {
            let uuid = request.uri().query().and_then(|q| q.strip_prefix("profile_uuid=")).unwrap_or_default();
            known.profiles.get(uuid).map_or((404, json!("NOT_FOUND")), |profile| (200, profile.clone()))
        }
        ("PUT", "/profile/devices") if !put_is_known => (405, json!("METHOD_NOT_ALLOWED")),
        ("PUT" | "POST", "/profile/devices") => match body.get("profile_uuid").and_then(Value::as_str) {
            Some(uuid) => devices::assign(known, body, now, Some(uuid)),
            None => (400, json!("PROFILE_UUID_REQUIRED")),
        },
        ("DELETE", "/profile/devices") => devices::assign(known, body, now, None),
        ("POST", "/account-driven-enrollment/profile") => {
            match body.get("mdm_service_discovery_url").and_then(Value::as_str) {
                Some(url) if url.starts_with("https://") => {
                    known.discovery = Some(url.to_owned());
                    (200, json!({}))
                }
                _ => (400, json!("MDM_SERVICE_DISCOVERY_URL_INVALID")),
            }
        }
        ("GET", "/account-driven-enrollment/profile") => match &known.discovery {
            Some(url) => (200, json!({ "mdm_service_discovery_url": url })),
            None => (404, json!("NOT_FOUND")),
        },
        ("DELETE", "/account-driven-enrollment/profile") => {
            known.discovery = None;
            (200, json!({}))
        }
        _ => (404, json!("NOT_FOUND")),
    }
}

/// `POST /profile`.
fn define(known: &mut Known, body: &Value, uuid: &str) -> (u16, Value) {
    let Some(keys) = body.as_object() else { return (400, json!("MALFORMED_REQUEST_BODY")) };
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return (400, json!(format!("UNKNOWN_KEY {unknown}")));
    }
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("profile_name").is_empty() || text("profile_name").len() > 125 {
        return (400, json!("CONFIG_NAME_INVALID"));
    }
    if !text("url").starts_with("https://") {
        return (400, json!("CONFIG_URL_INVALID"));
    }
    for list in ["anchor_certs", "supervising_host_certs"] {
        let certificates = body.get(list).and_then(Value::as_array).into_iter().flatten();
        for certificate in certificates {
            let der = certificate.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            if openssl::x509::X509::from_der(&der).is_err() {
                return (400, json!("ANCHOR_CERTS_INVALID"));
            }
        }
    }
    known.profiles.insert(uuid.to_owned(), body.clone());
    (200, json!({ "profile_uuid": uuid, "devices": {} }))
}
