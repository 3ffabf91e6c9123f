use tollgate_l7::PathForm;
use tollgate_l7::refusal::*;

#[test]
fn clear_paths_have_one_form() {
    let table = [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/A/b.c", "/A/b.c"),
        ("/a//b///c", "/a/b/c"),
        ("/a//", "/a/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/%61%7E%2d", "/a~-"),
        ("/a%2eb", "/a.b"),
        ("/a%20b", "/a b"),
        ("/100%25", "/100%"),
        ("/100%25off", "/100%off"),
        ("/caf%C3%a9", "/café"),
        ("/a%3Fb", "/a?b"),
        ("/a:b@c,d=e&f+g", "/a:b@c,d=e&f+g"),
    ];
    for (sent, normal) in table {
        let form = PathForm::new(sent);
        assert_eq!(
            (form.normal.as_str(), form.ambiguous),
            (normal, None),
            "{sent}"
        );
    }
}

#[test]
fn paths_that_servers_read_differently_are_marked() {
    let table = [
        (HTTP_PATH_BACKSLASH, "/a\\b"),
        (HTTP_PATH_BACKSLASH, "/..\\a"),
        (HTTP_PATH_FRAGMENT, "/a#b"),
        (HTTP_PATH_PARAMETERS, "/a;b/c"),
        (HTTP_PATH_PARAMETERS, "/secret;.css"),
        (HTTP_PATH_PARAMETERS, "/a/..;/b"),
        (HTTP_PATH_PARAMETERS, "/a%3bb"),
        (HTTP_PATH_ENCODED_SLASH, "/a%2fb"),
        (HTTP_PATH_ENCODED_SLASH, "/a%2F..%2Fb"),
        (HTTP_PATH_ENCODED_SLASH, "/a%5cb"),
        (HTTP_PATH_ENCODED_CONTROL, "/a%00b"),
        (HTTP_PATH_ENCODED_CONTROL, "/a%0d%0ab"),
        (HTTP_PATH_ENCODED_CONTROL, "/a%7f"),
        (HTTP_PATH_BAD_ESCAPE, "/a%"),
        (HTTP_PATH_BAD_ESCAPE, "/a%2"),
        (HTTP_PATH_BAD_ESCAPE, "/a%2g"),
        (HTTP_PATH_BAD_ESCAPE, "/%u002e"),
        (HTTP_PATH_DOUBLE_ENCODING, "/a%252fb"),
        (HTTP_PATH_DOUBLE_ENCODING, "/%2561"),
        (HTTP_PATH_DOUBLE_ENCODING, "/%25%32%66"),
        (HTTP_PATH_NOT_UTF8, "/%ff"),
        (HTTP_PATH_NOT_UTF8, "/%c0%af"),
        (HTTP_PATH_DOT_SEGMENTS, "/a/./b"),
        (HTTP_PATH_DOT_SEGMENTS, "/a/../b"),
        (HTTP_PATH_DOT_SEGMENTS, "/a/%2e%2e/b"),
        (HTTP_PATH_DOT_SEGMENTS, "/a/.%2E"),
        (HTTP_PATH_DOT_SEGMENTS, "/."),
        (HTTP_PATH_DOT_SEGMENTS, "/a//../b"),
        (HTTP_PATH_ABOVE_ROOT, "/.."),
        (HTTP_PATH_ABOVE_ROOT, "/../a"),
        (HTTP_PATH_ABOVE_ROOT, "/a/../../b"),
        (HTTP_PATH_ABOVE_ROOT, "/%2e%2e/a"),
        (HTTP_PATH_DOUBLE_SLASH, "//a/b"),
        (HTTP_PATH_DOUBLE_SLASH, "//"),
    ];
    for (want, sent) in table {
        assert_eq!(PathForm::new(sent).ambiguous, Some(want), "{sent}");
    }
    let options = tollgate_l7::http1::split_target("OPTIONS", "http://a").0;
    assert_eq!(options.ambiguous, Some(HTTP_PATH_OPTIONS_ROOT));
    for refusal in ALL.iter().filter(|r| r.reason.starts_with("http-path-")) {
        let tested = table.iter().any(|(want, _)| want == refusal);
        assert!(
            tested || *refusal == HTTP_PATH_OPTIONS_ROOT,
            "{}",
            refusal.reason
        );
    }
}

#[test]
fn marked_paths_still_have_the_likeliest_form() {
    let table = [
        ("/a/./b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("//a//b", "/a/b"),
        ("/a%2Fb", "/a/b"),
        ("/a%zz", "/a%zz"),
        ("/a;x=1/b", "/a;x=1/b"),
    ];
    for (sent, normal) in table {
        let form = PathForm::new(sent);
        assert_eq!(form.normal, normal, "{sent}");
        assert!(form.ambiguous.is_some(), "{sent}");
    }
}
