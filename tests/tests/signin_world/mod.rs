//! Sign-in behind TLS, with a door for each purpose, and a browser that does just what a story says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Clock;
use serde_json::{Value, json};
use signin::{AccountClaim, Begin, Context, Provider, ProviderSettings, Purpose, Rules, Settings};
use simulator::authority::Authority;
use simulator::https::Server;
use store::Store;
use tower::ServiceExt;
use url::Url;

/// What the provider calls us.
pub const CLIENT: &str = "assay";
/// The client's secret, with characters that an encoding could spoil.
pub const SECRET: &str = "a+b/c=d:e f";

/// All purposes.
pub const PURPOSES: [Purpose; 4] = [Purpose::Link, Purpose::Ade, Purpose::Byod, Purpose::Adde];

/// Our side, listening.
pub struct Site {
    pub store: Store,
    pub clock: Clock,
    pub authority: Authority,
    app: Arc<OnceLock<Router>>,
    server: Server,
}

impl Site {
    /// Listens; answers once [`Self::open`] is called.
    pub async fn listen(store: Store, clock: Clock) -> Self {
        // One for all stories: making keys takes longer than telling most of them.
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        let authority = AUTHORITY.get_or_init(|| Authority::new("Sign-in").unwrap()).clone();
        let app: Arc<OnceLock<Router>> = Arc::default();
        let answering = Arc::clone(&app);
        let server = Server::start(&authority, move |request| {
            let app = answering.get().unwrap().clone();
            async move {
                let mut request = request.map(Body::from);
                // A story says by this header where it comes from.
                let from = request.headers().get("x-from").map_or("192.0.2.1", |v| v.to_str().unwrap());
                let from = SocketAddr::new(from.parse().unwrap(), 4711);
                request.extensions_mut().insert(ConnectInfo(from));
                let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
                Response::from_parts(parts, body.collect().await.unwrap().to_bytes().to_vec())
            }
        });
        let server = server.await.unwrap();
        Self { store, clock, authority, app, server }
    }

    pub fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// Opens our routes with these settings.
    pub fn open(&self, provider: Option<Provider>, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::new(self.url("").parse().unwrap(), "Example Inc.");
        change(&mut settings);
        let ctx = Context {
            store: self.store.clone(),
            clock: self.clock.clone(),
            random: Random::System,
            sealer: Sealer::new(&[7; 32]),
            settings: Arc::new(settings),
            provider,
            limits: Arc::default(),
        };
        let mut doors = Router::new();
        for purpose in PURPOSES {
            let enter = async move |State(ctx): State<Context>, Query(query): Query<BTreeMap<String, String>>| {
                enter(&ctx, purpose, query.get("hint").map(String::as_str)).await
            };
            let leave =
                async move |State(ctx): State<Context>, headers: HeaderMap| leave(&ctx, purpose, &headers).await;
            doors = doors
                .route(&format!("/door/{}", purpose.as_str()), get(enter))
                .route(purpose.return_path(), get(leave));
        }
        let router = signin::router(ctx.clone()).merge(doors.with_state(ctx));
        assert!(self.app.set(router).is_ok());
    }

    /// A client of a provider that has a certificate of our authority.
    pub fn client(&self) -> outbound::Client {
        let pem = self.authority.pem().unwrap();
        let der = Certificate::from_pem(&pem).unwrap().der().to_vec();
        outbound::Client::new(&outbound::Settings {
            roots: outbound::Roots::Only(vec![der]),
            private_addresses: true,
            timeout: Duration::from_secs(10),
            ..outbound::Settings::new("test")
        })
        .unwrap()
    }

    /// The provider with this issuer, by its e-mail addresses of example.org.
    pub fn provider(&self, issuer: &str, change: impl FnOnce(&mut ProviderSettings)) -> Provider {
        let mut settings = ProviderSettings {
            issuer: issuer.to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret: Some(mdm_core::secret::Secret::new(SECRET.to_owned())),
            scopes: vec!["email".to_owned(), "profile".to_owned()],
            rules: Rules {
                account: AccountClaim::Email,
                domains: vec!["example.org".to_owned()],
                label_claim: None,
                labels: Vec::new(),
            },
        };
        change(&mut settings);
        Provider::new(settings, self.client()).unwrap()
    }

    /// A browser that has not been anywhere yet.
    pub fn browser(&self) -> Browser {
        Browser { client: self.client(), jar: BTreeMap::new(), from: "192.0.2.1" }
    }

    /// The reasons of refused sign-ins so far, oldest first.
    pub async fn refusals(&self) -> Vec<String> {
        self.events("sign_in.refused").await.iter().map(|data| data["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// What events of this kind say, oldest first.
    pub async fn events(&self, kind: &str) -> Vec<Value> {
        let mut tx = self.store.read().await.unwrap();
        let filter = store::events::Filter { enrollment: None, kind: Some(kind.to_owned()) };
        let rows = store::events::since(&mut tx, &filter, 0, 1000).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.data).unwrap()).collect()
    }
}

async fn enter(ctx: &Context, purpose: Purpose, hint: Option<&str>) -> Response {
    let mut tx = ctx.store.begin().await.unwrap();
    let begin = Begin { purpose, subject_of: json!({ "for": purpose.as_str() }), login_hint: hint };
    match signin::begin(&mut tx, ctx, &begin, ctx.clock.now()).await {
        Ok(begun) => {
            tx.commit().await.unwrap();
            (StatusCode::FOUND, [(header::LOCATION, begun.location), (header::SET_COOKIE, begun.cookie)])
                .into_response()
        }
        Err(signin::Error::NotConfigured) => StatusCode::NOT_FOUND.into_response(),
        Err(e) => panic!("{e}"),
    }
}

async fn leave(ctx: &Context, purpose: Purpose, headers: &HeaderMap) -> Response {
    let mut tx = ctx.store.begin().await.unwrap();
    let Some(person) = signin::take(&mut tx, ctx, headers, purpose, ctx.clock.now()).await.unwrap() else {
        return (StatusCode::FORBIDDEN, "nobody").into_response();
    };
    tx.commit().await.unwrap();
    axum::Json(json!({ "account": person.account, "label": person.label, "for": person.subject_of["for"] }))
        .into_response()
}

/// An answer, and where it came from.
#[derive(Debug)]
pub struct Answer {
    pub url: Url,
    pub status: u16,
    pub headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Who signed in, as the door says it.
    pub fn person(&self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.url, self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}: {}", self.url, self.text()))
    }

    /// Where a redirect leads.
    pub fn location(&self) -> Url {
        assert!((300..400).contains(&self.status), "{} {}: {}", self.status, self.url, self.text());
        self.url.join(self.headers[header::LOCATION].to_str().unwrap()).unwrap()
    }

    /// What stands between these two in the page.
    pub fn between(&self, before: &str, after: &str) -> String {
        let text = self.text();
        let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
        rest.split_once(after).unwrap().0.replace("&amp;", "&")
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.url, self.text());
        self
    }
}

/// A browser: it keeps cookies by host and port, and goes where it is sent.
#[derive(Clone)]
pub struct Browser {
    pub client: outbound::Client,
    pub jar: BTreeMap<(String, String), String>,
    pub from: &'static str,
}

impl Browser {
    /// One request; no redirect is followed.
    pub async fn get(&mut self, url: &str) -> Answer {
        self.send("GET", url, Vec::new()).await
    }

    /// Sends a form.
    pub async fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send("POST", url, body.into_bytes()).await
    }

    async fn send(&mut self, method: &str, url: &str, body: Vec<u8>) -> Answer {
        let url: Url = url.parse().unwrap();
        let origin = url.origin().ascii_serialization();
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|((o, _), _)| *o == origin)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let mut request = Request::builder().method(method).uri(url.as_str()).header("x-from", self.from);
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if method == "POST" {
            request =
                request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        let answer = self.client.send(request.body(body).unwrap()).await.unwrap();
        for set in answer.headers().get_all(header::SET_COOKIE) {
            let (name, value) = set.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.jar.insert((origin.clone(), name.to_owned()), value.to_owned());
        }
        let (parts, body) = answer.into_parts();
        Answer { url, status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Follows redirects from there until there is a page, or until one leads to a URL that begins so.
    pub async fn follow(&mut self, mut answer: Answer, until: Option<&str>) -> Answer {
        for _ in 0..20 {
            if !(300..400).contains(&answer.status) {
                return answer;
            }
            let next = answer.location();
            if until.is_some_and(|until| next.as_str().starts_with(until)) {
                return answer;
            }
            answer = self.get(next.as_str()).await;
        }
        panic!("no end: {}", answer.url)
    }

    /// Opens a URL and follows redirects.
    pub async fn open(&mut self, url: &str) -> Answer {
        let first = self.get(url).await;
        self.follow(first, None).await
    }
}
