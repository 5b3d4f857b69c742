//! The browser in which a person signs in: the web view of Setup Assistant, and the session of an account-driven
//! enrollment.
//!
//! It follows redirects, keeps cookies by RFC 6265bis (Secure, Path, the prefix `__Host-`, SameSite), fills in forms and obeys
//! `form-action` of a Content-Security-Policy on the whole way that a form sends it, as the engines of Safari do.

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use url::{Url, form_urlencoded};

use crate::error::{Error, Result};
use crate::http::{Answer, Client, Trust};
use crate::page::{self, Field, Form, Kind};

/// More pages, redirects included, than any sign-in has.
const LONGEST_WAY: usize = 60;
/// The type of a profile.
pub(crate) const PROFILE: &str = "application/x-apple-aspen-config";

/// The person in front of the screen, and what they type.
#[derive(Debug, Clone, Default)]
pub struct Person {
    answers: BTreeMap<String, String>,
}

impl Person {
    /// Somebody who can only press buttons.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Somebody with an invitation code.
    pub fn with_code(code: &str) -> Self {
        Self::nobody().answering("code", code)
    }

    /// Somebody with an account at the identity provider.
    pub fn with_password(login: &str, password: &str) -> Self {
        Self::nobody().answering("login", login).answering("password", password)
    }

    /// Types this into fields of this name. `code`, `login` and `password` also fit fields of similar meaning.
    #[must_use]
    pub fn answering(mut self, field: &str, text: &str) -> Self {
        self.answers.insert(field.to_owned(), text.to_owned());
        self
    }

    fn answer(&self, field: &Field) -> Option<&str> {
        let exact = self.answers.get(&field.name);
        let meant = || {
            let name = field.name.to_ascii_lowercase();
            let of = |words: &[&str]| words.iter().any(|word| name.contains(word));
            let meaning = if field.kind == Kind::Password || of(&["password"]) {
                "password"
            } else if of(&["code", "invitation"]) {
                "code"
            } else if of(&["login", "user", "email", "account", "identifier"]) {
                "login"
            } else {
                return None;
            };
            self.answers.get(meaning)
        };
        exact.or_else(meant).map(String::as_str)
    }

    /// What this person sends with a form; `None` where they have no answer to a field.
    fn fill(&self, form: &Form) -> Option<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        let mut pressed = false;
        for field in &form.fields {
            let value = match field.kind {
                Kind::Hidden => field.value.clone(),
                Kind::Text | Kind::Password => match self.answer(field) {
                    Some(answer) => answer.to_owned(),
                    None if !field.value.is_empty() || !field.required && field.kind == Kind::Text => {
                        field.value.clone()
                    }
                    None => return None,
                },
                Kind::Tick if field.checked || field.required => field.value.clone(),
                Kind::Tick => continue,
                // The first button counts as the one that goes on.
                Kind::Button if pressed => continue,
                Kind::Button => {
                    pressed = true;
                    field.value.clone()
                }
            };
            if !field.name.is_empty() {
                pairs.push((field.name.clone(), value));
            }
        }
        Some(pairs)
    }
}

/// Where the way ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A configuration profile from this host.
    Profile {
        /// The host of `configuration_web_url`.
        host: String,
    },
    /// A redirect to a URL that begins so.
    Callback(String),
}

/// What was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The profile's bytes.
    Profile(Vec<u8>),
    /// The URL of the redirect.
    Callback(Url),
    /// An answer 403 with a code for the device (Apple, "ErrorCode…"), as its body and type.
    Code(Answer),
}

#[derive(Debug, Clone)]
struct Cookie {
    name: String,
    value: String,
    host: String,
    path: String,
    strict: bool,
    lax: bool,
}

/// One session of a browser; it forgets everything when it is dropped, as an ephemeral session does.
pub(crate) struct Browser<'a> {
    client: Client,
    person: &'a Person,
    jar: Vec<Cookie>,
    seen: Vec<String>,
}

struct Going {
    method: Method,
    url: Url,
    form: Option<Vec<u8>>,
    /// The page on which the person pressed something; `None` for the first one.
    from: Option<Url>,
    /// `form-action` of that page, while a form is on its way.
    allowed: Option<String>,
}

impl Going {
    fn to(url: Url) -> Self {
        Self { method: Method::GET, url, form: None, from: None, allowed: None }
    }

    /// A new request may go where the page's policy lets forms go.
    fn check(&self) -> Result<()> {
        let (Some(allowed), Some(from)) = (&self.allowed, &self.from) else { return Ok(()) };
        let own = from.origin().ascii_serialization();
        let origin = self.url.origin().ascii_serialization();
        let fits = allowed.split_ascii_whitespace().any(|source| match source {
            "'self'" => origin == own,
            "*" => matches!(self.url.scheme(), "https" | "http"),
            scheme if scheme.ends_with(':') => scheme.trim_end_matches(':') == self.url.scheme(),
            host => {
                origin == host.trim_end_matches('/')
                    || self.url.scheme() == "https" && Some(host) == self.url.host_str()
            }
        });
        if fits {
            return Ok(());
        }
        Err(Error::Protocol(format!("form-action «{allowed}» of {from} forbids {}", without_query(&self.url))))
    }
}

fn without_query(url: &Url) -> String {
    url[..url::Position::AfterPath].to_owned()
}

impl<'a> Browser<'a> {
    /// A browser of a device that trusts these authorities.
    pub(crate) fn new(trust: &Trust, person: &'a Person) -> Result<Self> {
        Ok(Self { client: Client::new(trust, None)?, person, jar: Vec::new(), seen: Vec::new() })
    }

    /// Opens a URL and goes on until the end; `header` is sent with the very first request only.
    pub(crate) async fn open(&mut self, url: Url, header: Option<(&str, &str)>, end: &End) -> Result<Reached> {
        let mut going = Going::to(url);
        let mut header = header;
        for _ in 0..LONGEST_WAY {
            if going.url.scheme() != "https" {
                return Err(Error::Protocol(format!("{}: https is required", without_query(&going.url))));
            }
            let answer = self.request(&going, header.take()).await?;
            self.keep_cookies(&going.url, &answer.headers);
            if (300..400).contains(&answer.status) {
                match redirected(going, &answer, end)? {
                    Ok(next) => going = next,
                    Err(callback) => return Ok(Reached::Callback(callback)),
                }
                continue;
            }
            if answer.status == 403 && matches!(end, End::Profile { .. }) && answer.content_type() != "text/html" {
                return Ok(Reached::Code(answer));
            }
            if answer.status != 200 {
                return Err(answer.refused(going.url.as_str()));
            }
            if answer.content_type() == PROFILE {
                let End::Profile { host } = end else {
                    return Err(Error::Protocol("a profile where nobody waits for one".into()));
                };
                if going.url.host_str() != Some(host) {
                    return Err(Error::Protocol(format!("the profile comes from another host than {host}")));
                }
                return Ok(Reached::Profile(answer.body.to_vec()));
            }
            going = self.next(&going.url, &answer)?;
            going.check()?;
        }
        Err(Error::Protocol("the sign-in never ends".into()))
    }

    async fn request(&self, going: &Going, header: Option<(&str, &str)>) -> Result<Answer> {
        let cookies = self.cookies(going);
        let origin = going.from.as_ref().map(|from| from.origin().ascii_serialization());
        let mut headers =
            vec![("accept", "text/html,application/xhtml+xml"), ("user-agent", "Mozilla/5.0 (simulator)")];
        headers.extend(header);
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        if let (true, Some(origin)) = (going.method == Method::POST, &origin) {
            headers.push(("origin", origin));
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        }
        let body = going.form.clone().unwrap_or_default();
        self.client.send(going.method.clone(), going.url.as_str(), &headers, body).await
    }

    /// What the person does on a page: the first form that they can fill in, else the first link that they did not follow yet.
    fn next(&mut self, url: &Url, answer: &Answer) -> Result<Going> {
        if answer.content_type() != "text/html" {
            return Err(Error::Protocol(format!("{}: a page of type «{}»", without_query(url), answer.content_type())));
        }
        let page = page::read(&String::from_utf8_lossy(&answer.body));
        let join = |relative: &str| url.join(relative).map_err(|error| Error::Protocol(format!("{relative}: {error}")));
        for form in &page.forms {
            let Some(pairs) = self.person.fill(form) else { continue };
            let action = if form.action.is_empty() { url.clone() } else { join(&form.action)? };
            let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            // The same form with the same answers once more: the page did not take them.
            let visible = form.fields.iter().any(|field| matches!(field.kind, Kind::Text | Kind::Password));
            let typed: Vec<_> = pairs
                .iter()
                .filter(|(name, _)| form.fields.iter().any(|f| f.name == *name && f.kind != Kind::Hidden))
                .collect();
            let shown = format!("{}?{typed:?}", action.path());
            if visible && self.seen.contains(&shown) {
                let text: String = page.text.chars().take(200).collect();
                return Err(Error::Protocol(format!("the sign-in asks again: {text}")));
            }
            self.seen.push(shown);
            let mut going =
                Going { from: Some(url.clone()), allowed: form_action(&answer.headers), ..Going::to(action) };
            if form.post {
                going.method = Method::POST;
                going.form = Some(encoded.into_bytes());
            } else {
                going.url.set_query(Some(&encoded));
            }
            return Ok(going);
        }
        for link in &page.links {
            let target = join(link)?;
            if matches!(target.scheme(), "https") && !self.seen.contains(&target.to_string()) {
                self.seen.push(target.to_string());
                return Ok(Going { from: Some(url.clone()), ..Going::to(target) });
            }
        }
        let text: String = page.text.chars().take(200).collect();
        Err(Error::Protocol(format!("{}: nothing to go on with: {text}", without_query(url))))
    }

    fn cookies(&self, going: &Going) -> String {
        let host = going.url.host_str().unwrap_or_default();
        let crossed = going.from.as_ref().is_some_and(|from| from.host_str() != Some(host));
        let post = going.method != Method::GET;
        let fits = |cookie: &&Cookie| {
            cookie.host == host
                && (going.url.path() == cookie.path
                    || going.url.path().starts_with(&format!("{}/", cookie.path.trim_end_matches('/'))))
                && !(crossed && (cookie.strict || cookie.lax && post))
        };
        let pairs = self.jar.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        for header in headers.get_all(http::header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let mut parts = header.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let attributes: Vec<(String, &str)> = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(key, value)| (key.to_ascii_lowercase(), value))
                .collect();
            let get = |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
            let directory = url
                .path()
                .rsplit_once('/')
                .map_or("/", |(directory, _)| if directory.is_empty() { "/" } else { directory });
            let path = get("path").filter(|path| path.starts_with('/')).unwrap_or(directory);
            let secure = get("secure").is_some();
            let host_only = name.starts_with("__Host-");
            if host_only && !(secure && path == "/" && get("domain").is_none())
                || name.starts_with("__Secure-") && !secure
            {
                continue;
            }
            let host = url.host_str().unwrap_or_default().to_owned();
            self.jar.retain(|cookie| cookie.name != name || cookie.host != host || cookie.path != path);
            let over = get("max-age").and_then(|age| age.parse::<i64>().ok()).is_some_and(|age| age <= 0)
                || get("expires").is_some_and(|date| date.contains("1970"));
            if over {
                continue;
            }
            let same_site = get("samesite").unwrap_or("lax");
            self.jar.push(Cookie {
                name: name.to_owned(),
                value: value.to_owned(),
                host,
                path: path.to_owned(),
                strict: same_site.eq_ignore_ascii_case("strict"),
                lax: same_site.eq_ignore_ascii_case("lax"),
            });
        }
    }
}

/// The next request of a redirect, or the callback that it is (RFC 9110 section 15.4).
fn redirected(going: Going, answer: &Answer, end: &End) -> Result<std::result::Result<Going, Url>> {
    let location = answer.headers.get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| answer.refused(going.url.as_str()))?;
    let mut next = going;
    let target = next.url.join(location).map_err(|error| Error::Protocol(format!("Location {location}: {error}")))?;
    if next.from.is_none() {
        // The way of redirects counts as one: what it crosses stays crossed.
        next.from = Some(next.url.clone());
    }
    let before = std::mem::replace(&mut next.url, target);
    next.check()?;
    if let End::Callback(start) = end
        && location.starts_with(start.as_str())
    {
        if answer.status != 308 {
            return Err(Error::Protocol(format!("the redirect to {start} is {}, Apple names 308", answer.status)));
        }
        return Ok(Err(next.url));
    }
    if answer.status == 303 || matches!(answer.status, 301 | 302) && next.method == Method::POST {
        next.method = Method::GET;
        next.form = None;
    }
    if before.host_str() != next.url.host_str() && next.method == Method::GET {
        next.from = Some(before);
    }
    Ok(Ok(next))
}

fn form_action(headers: &HeaderMap) -> Option<String> {
    let policy = headers.get("content-security-policy")?.to_str().ok()?;
    let directive = policy.split(';').map(str::trim).find_map(|directive| directive.strip_prefix("form-action"))?;
    Some(directive.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::https::{Request, Response, Server};

    fn page(body: &str) -> Response {
        http::Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .header("content-security-policy", "default-src 'none'; form-action 'self'")
            .header("set-cookie", "__Host-session=1; Path=/; Secure; HttpOnly; SameSite=Lax")
            .body(body.as_bytes().to_vec())
            .unwrap()
    }

    fn to(status: u16, location: &str) -> Response {
        http::Response::builder().status(status).header("location", location).body(Vec::new()).unwrap()
    }

    async fn answer(request: Request) -> Response {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let signed_in = request.headers().get("cookie").is_some_and(|cookie| cookie == "__Host-session=1");
        match request.uri().path() {
            "/start" => page(
                "<form method=post action=/enter><input type=hidden name=state value=s><input name=code required></form>",
            ),
            "/enter" if !signed_in => http::Response::builder().status(403).body(Vec::new()).unwrap(),
            "/enter" if body == "state=s&code=good" => page("<a href='/done'>Continue</a>"),
            "/enter" if body == "state=s&code=straight" => to(303, "/done"),
            "/enter" => page(
                "<p>Wrong code</p><form method=post action=/enter><input type=hidden name=state value=s><input name=code></form>",
            ),
            "/done" => to(308, "test-scheme://authentication-results?access-token=t"),
            "/soft" => to(302, "test-scheme://authentication-results?access-token=t"),
            "/loop" => to(302, "/loop"),
            "/profile" => http::Response::builder().header("content-type", PROFILE).body(b"profile".to_vec()).unwrap(),
            _ => http::Response::builder().status(404).body(Vec::new()).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_person_gets_through_or_is_told_why_not() {
        let authority = Authority::new("Browser").unwrap();
        let server = Server::start(&authority, answer).await.unwrap();
        let trust = Trust::public().with_pem(authority.pem().unwrap().as_bytes()).unwrap();
        let callback = End::Callback("test-scheme:".into());
        let go = async |code: &str, path: &str, end: &End| {
            let person = Person::with_code(code);
            let url = Url::parse(&server.url(path)).unwrap();
            Browser::new(&trust, &person).unwrap().open(url, None, end).await
        };
        let Ok(Reached::Callback(url)) = go("good", "/start", &callback).await else { panic!() };
        assert_eq!(url.query(), Some("access-token=t"));
        for (code, path, why) in [
            ("bad", "/start", "asks again"),
            ("straight", "/start", "form-action"),
            ("good", "/soft", "Apple names 308"),
            ("good", "/loop", "never ends"),
            ("good", "/nowhere", "404"),
            ("good", "/profile", "nobody waits"),
        ] {
            let error = go(code, path, &callback).await.unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
        let same = End::Profile { host: "localhost".into() };
        assert_eq!(go("good", "/profile", &same).await.unwrap(), Reached::Profile(b"profile".to_vec()));
        let other = End::Profile { host: "mdm.example".into() };
        assert!(go("good", "/profile", &other).await.is_err());
        assert!(go("good", "/start", &same).await.is_err());
    }
}
