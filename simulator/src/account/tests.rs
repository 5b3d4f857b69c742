use super::*;

#[test]
fn both_challenges_are_read_and_what_apple_would_not_take_is_refused() {
    let web = Challenge::parse("Bearer method=\"apple-as-web\", url=\"https://mdm.example/sign-in\"").unwrap();
    assert_eq!(web, Challenge::Web { url: Url::parse("https://mdm.example/sign-in").unwrap() });
    let oauth = "Bearer method=\"apple-oauth2\", authorization-url=\"https://a.example/authorize\", \
                 token-url=\"https://a.example/token\", \
                 redirect-url=\"apple-remotemanagement-user-login:/oauth2/redirection\", client-id=\"c\", scope=\"s t\"";
    let Challenge::OAuth2 { scope, client_id, .. } = Challenge::parse(oauth).unwrap() else { panic!() };
    assert_eq!((scope.as_str(), client_id.as_str()), ("s t", "c"));
    for broken in [
        "Basic realm=\"x\"",
        "Bearer",
        "Bearer realm=\"x\"",
        "Bearer method=\"apple-as-web\"",
        "Bearer method=\"apple-as-web\" url=\"https://mdm.example/\"",
        "Bearer method=\"apple-as-web\", url=\"http://mdm.example/\"",
        "Bearer method=\"apple-as-web\", url=https://mdm.example/",
        "Bearer method=\"apple-as-web\", method=\"apple-as-web\", url=\"https://mdm.example/\"",
        "Bearer method=\"other\", url=\"https://mdm.example/\"",
        &oauth.replace("apple-remotemanagement-user-login:/", "https://evil.example/"),
        &oauth.replace(", scope=\"s t\"", ""),
    ] {
        assert!(Challenge::parse(broken).is_err(), "{broken}");
    }
}

#[test]
fn systems_that_cannot_enroll_with_an_account() {
    assert_eq!(Mode::Byod.since(Family::AppleTv), None);
    assert!(Mode::Adde.since(Family::IPhone) > Mode::Byod.since(Family::IPhone));
    assert_eq!(Mode::of("mdm-other"), None);
}
