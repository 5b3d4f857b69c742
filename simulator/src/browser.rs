//! The browser in which a person signs in: the web view of Setup Assistant, and the session of an account-driven
//! enrollment.
//!
//! It follows redirects, keeps cookies by RFC 6265bis (Secure, Path, the prefix `__Host-`, SameSite), fills in forms and obeys
//! `form-action` of a Content-Security-Policy on the whole way that a form sends it, as the engines of Safari do.

use http::{HeaderMap, Method};
use url::{Origin, Url, form_urlencoded};

use crate::error::{Error, Result};
use crate::http::{Answer, Client, Trust};
use crate::page::{self, Kind};

mod cookies;
mod person;

use cookies::Jar;
pub use person::Person;

/// More pages, redirects included, than any sign-in has.
const LONGEST_WAY: usize = 60;
/// The type of a profile.
pub(crate) const PROFILE: &str = "application/x-apple-aspen-config";

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

/// One session of a browser; it forgets everything when it is dropped, as an ephemeral session does.
pub(crate) struct Browser<'a> {
    client: Client,
    /// For every other origin than this one, where one origin has anchors of its own.
    elsewhere: Option<(Origin, Client)>,
    person: &'a Person,
    jar: Jar,
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
        Ok(Self { client: Client::new(trust, None)?, elsewhere: None, person, jar: Jar::default(), seen: Vec::new() })
    }

    /// Trusts others for every origin but this one: the anchors that come with a profile are for the server's own pages, not for
    /// those of the organization's identity provider.
    pub(crate) fn trusting_elsewhere(mut self, origin: &Url, trust: &Trust) -> Result<Self> {
        self.elsewhere = Some((origin.origin(), Client::new(trust, None)?));
        Ok(self)
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
            self.jar.keep(&going.url, &answer.headers);
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
        let cookies = self.jar.header(going);
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
        let client = match &self.elsewhere {
            Some((origin, client)) if *origin != going.url.origin() => client,
            _ => &self.client,
        };
        client.send(going.method.clone(), going.url.as_str(), &headers, body).await
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
