//! The little of HTML that a sign-in needs: forms with their fields, and links.

/// A tag with its attributes; a closing one has `/` before its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What kind of field this is, as far as it matters for filling it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sent as it is.
    Hidden,
    /// A person types here.
    Text,
    /// A person types a secret here.
    Password,
    /// Sent only when ticked.
    Tick,
    /// Sent only when pressed.
    Button,
}

/// A field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) kind: Kind,
    /// Must be filled in or ticked.
    pub(crate) required: bool,
    /// Ticked already.
    pub(crate) checked: bool,
}

/// A form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    /// `action`, as written; empty for the page itself.
    pub(crate) action: String,
    /// Whether `method` is post.
    pub(crate) post: bool,
    pub(crate) fields: Vec<Field>,
}

/// What a page offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) forms: Vec<Form>,
    /// `href` of each link, in order.
    pub(crate) links: Vec<String>,
    /// The text, for messages.
    pub(crate) text: String,
}

/// Reads a page; what is not understood is skipped.
pub(crate) fn read(html: &str) -> Page {
    let mut page = Page::default();
    let mut form: Option<Form> = None;
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (text, from) = rest.split_at(start);
        page.text.push_str(text);
        if let Some(comment) = from.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some((tag, after)) = tag(from) else {
            rest = from.get(1..).unwrap_or_default();
            continue;
        };
        rest = after;
        page.text.push(' ');
        match tag.name.as_str() {
            "script" | "style" => {
                let end = format!("</{}", tag.name);
                let at = rest.to_ascii_lowercase().find(&end).unwrap_or(rest.len());
                rest = rest.get(at..).unwrap_or_default();
            }
            "a" => page.links.extend(tag.get("href").map(str::to_owned)),
            "form" => {
                form = Some(Form {
                    action: tag.get("action").unwrap_or_default().to_owned(),
                    post: tag.get("method").is_some_and(|method| method.eq_ignore_ascii_case("post")),
                    fields: Vec::new(),
                });
            }
            "/form" => page.forms.extend(form.take()),
            "input" | "button" => {
                if let Some(form) = &mut form {
                    form.fields.push(field(&tag));
                }
            }
            _ => {}
        }
    }
    page.forms.extend(form);
    page.text = page.text.split_whitespace().collect::<Vec<_>>().join(" ");
    page
}

fn field(tag: &Tag) -> Field {
    let button = tag.name == "button";
    let kind = tag.get("type").unwrap_or(if button { "submit" } else { "text" }).to_ascii_lowercase();
    let kind = match kind.as_str() {
        "hidden" => Kind::Hidden,
        "password" => Kind::Password,
        "checkbox" | "radio" => Kind::Tick,
        "submit" | "button" | "image" | "reset" => Kind::Button,
        _ => Kind::Text,
    };
    let ticked = if kind == Kind::Tick { "on" } else { "" };
    Field {
        name: tag.get("name").unwrap_or_default().to_owned(),
        value: tag.get("value").unwrap_or(ticked).to_owned(),
        kind,
        required: tag.get("required").is_some(),
        checked: tag.get("checked").is_some(),
    }
}

/// The tag at the start of the text, and what follows it.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let inner = text.strip_prefix('<')?;
    let length = inner.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(inner.len());
    let name = inner.get(..length)?.trim_end_matches('/').to_ascii_lowercase();
    if !name.trim_start_matches('/').starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let mut tag = Tag { name, attributes: Vec::new() };
    let mut rest = inner.get(length..)?;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return Some((tag, after));
        }
        let length = rest.find(|c: char| c.is_ascii_whitespace() || "=>/".contains(c))?;
        let key = rest.get(..length)?.to_ascii_lowercase();
        rest = rest.get(length..)?.trim_start();
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            let (raw, behind) = match after.chars().next()? {
                quote @ ('"' | '\'') => after.get(1..)?.split_once(quote)?,
                _ => after.split_at(after.find(|c: char| c.is_ascii_whitespace() || c == '>')?),
            };
            value = unescape(raw);
            rest = behind;
        }
        if key.is_empty() {
            return None;
        }
        tag.attributes.push((key, value));
    }
}

fn unescape(text: &str) -> String {
    ["&lt;<", "&gt;>", "&quot;\"", "&#39;'", "&#x27;'", "&apos;'", "&#x2F;/", "&amp;&"].iter().fold(
        text.to_owned(),
        |text, pair| {
            let (entity, plain) = pair.split_at(pair.len() - 1);
            text.replace(entity, plain)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_fields_and_links_are_found() {
        let page = read(
            "<!doctype html><title>Sign in</title><!-- <form> --><script>if (a < b) { '<form>' }</script>\
             <a href=\"/help?a=1&amp;b=2\">Help</a><form method=post action='/login'>\
             <input type=hidden name=csrf value=\"a&quot;b\"><input name=\"login\" required autofocus/>\
             <input type=password name=password><input type=checkbox name=terms required>\
             <button name=go value=yes>Go</button></form> 3 < 4",
        );
        assert_eq!(page.links, ["/help?a=1&b=2"]);
        let form = &page.forms[0];
        assert!(page.forms.len() == 1 && form.post && form.action == "/login");
        let kinds: Vec<Kind> = form.fields.iter().map(|field| field.kind).collect();
        assert_eq!(kinds, [Kind::Hidden, Kind::Text, Kind::Password, Kind::Tick, Kind::Button]);
        assert_eq!(form.fields[0].value, "a\"b");
        assert!(form.fields[1].required && form.fields[3].value == "on");
        assert!(page.text.contains("Sign in"), "{}", page.text);
    }

    #[test]
    fn a_broken_page_is_no_form() {
        for text in ["", "<", "<form", "<form action=", "<form action=\"x", "< form>", "<input name=a>"] {
            assert!(read(text).forms.is_empty(), "{text}");
        }
    }
}
