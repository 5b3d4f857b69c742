//! Cookies (RFC 6265bis).

use http::{HeaderMap, Method};
use url::Url;

use super::Going;

#[derive(Debug, Clone)]
struct Cookie {
    name: String,
    value: String,
    host: String,
    path: String,
    strict: bool,
    lax: bool,
}

/// The cookies of one session.
#[derive(Debug, Default)]
pub(super) struct Jar {
    cookies: Vec<Cookie>,
}

impl Jar {
    pub(super) fn header(&self, going: &Going) -> String {
        let host = going.url.host_str().unwrap_or_default();
        let crossed = going.from.as_ref().is_some_and(|from| from.host_str() != Some(host));
        let post = going.method != Method::GET;
        let fits = |cookie: &&Cookie| {
            cookie.host == host
                && (going.url.path() == cookie.path
                    || going.url.path().starts_with(&format!("{}/", cookie.path.trim_end_matches('/'))))
                && !(crossed && (cookie.strict || cookie.lax && post))
        };
        let pairs = self.cookies.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value));
        pairs.collect::<Vec<_>>().join("; ")
    }

    pub(super) fn keep(&mut self, url: &Url, headers: &HeaderMap) {
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
            self.cookies.retain(|cookie| cookie.name != name || cookie.host != host || cookie.path != path);
            let over = get("max-age").and_then(|age| age.parse::<i64>().ok()).is_some_and(|age| age <= 0)
                || get("expires").is_some_and(|date| date.contains("1970"));
            if over {
                continue;
            }
            let same_site = get("samesite").unwrap_or("lax");
            self.cookies.push(Cookie {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// What is sent with a request from one page to another URL.
    fn sent(cookie: &str, method: Method, from: &str, to: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::SET_COOKIE, cookie.parse().unwrap());
        let mut jar = Jar::default();
        jar.keep(&url("https://mdm.example/sign-in/start"), &headers);
        let mut going = Going::to(url(to));
        going.method = method;
        going.from = Some(url(from));
        jar.header(&going)
    }

    #[test]
    fn cookies_go_where_they_may() {
        let (own, other) = ("https://mdm.example/sign-in/x", "https://idp.example/login");
        for (cookie, method, from, to, goes) in [
            ("a=1", Method::GET, own, own, true),
            ("a=1", Method::GET, own, "https://mdm.example/elsewhere", false),
            ("a=1; Path=/", Method::GET, own, "https://mdm.example/elsewhere", true),
            ("a=1; Path=/", Method::GET, own, other, false),
            ("a=1; Path=/", Method::GET, other, own, true),
            ("a=1; Path=/", Method::POST, other, own, false),
            ("a=1; Path=/; Secure; SameSite=None", Method::POST, other, own, true),
            ("a=1; Path=/; SameSite=Strict", Method::GET, other, own, false),
            ("a=1; Path=/; SameSite=Strict", Method::POST, own, own, true),
            ("__Host-a=1; Path=/; Secure", Method::GET, own, own, true),
            ("__Host-a=1; Path=/", Method::GET, own, own, false),
            ("__Host-a=1; Secure", Method::GET, own, own, false),
            ("__Host-a=1; Path=/; Secure; Domain=mdm.example", Method::GET, own, own, false),
            ("a=1; Path=/; Max-Age=0", Method::GET, own, own, false),
        ] {
            assert_eq!(!sent(cookie, method.clone(), from, to).is_empty(), goes, "{cookie} {method} {from} {to}");
        }
    }
}
