//! The query string hash that binds a token to one request (PROTOCOL 4.4).

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::{percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::call::RESERVED;
use crate::digest::sha256_hex;

/// Most parameters that a request may have before its hash is refused; a genuine one has a handful.
const PARAMETERS_MAX: usize = 256;

/// Most segments of a base path that are tried one by one.
const BASE_SEGMENTS_MAX: usize = 8;

/// The canonical request: method, path and query joined by `&`.
///
/// `path` is relative to the receiver's base path, as it stands in the request; `query` is without its `?`.
pub fn canonical(method: &str, path: &str, query: &str) -> String {
    format!(
        "{}&{}&{}",
        method.to_ascii_uppercase(),
        canonical_path(path),
        canonical_query(query)
    )
}

/// The hash of a canonical request, as the claim `qsh` has it.
pub fn hash(canonical: &str) -> String {
    sha256_hex(canonical.as_bytes())
}

/// Which reading of the request's path a hash agreed with (OPEN-QUESTIONS A5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The path as we saw it.
    AsSeen,
    /// The path without our base path: what the protocol says.
    BelowBase,
    /// The path below the base with the base path, or its last segments (behind a stage or a proxy's prefix), before it.
    WithBase,
}

impl Reading {
    /// The word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AsSeen => "as-seen",
            Self::BelowBase => "below-base",
            Self::WithBase => "with-base",
        }
    }
}

/// One canonical request that the sender may have meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How the path was read.
    pub reading: Reading,
    /// The canonical request.
    pub canonical: String,
}

/// The small set of canonical requests that a hash is compared with: all of them name our own host, so accepting any loses nothing.
///
/// Empty when the request has more parameters than any genuine one.
pub fn candidates(method: &str, raw_path: &str, raw_query: &str, base_url: &Url) -> Vec<Candidate> {
    if raw_query.split('&').count() > PARAMETERS_MAX {
        return Vec::new();
    }
    let base_path = base_url.path().trim_end_matches('/');
    let below = below_base(raw_path, base_path);
    let query = canonical_query(raw_query);
    let method = method.to_ascii_uppercase();
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |reading, path: &str| {
        let canonical = format!("{method}&{}&{query}", canonical_path(path));
        if !found
            .iter()
            .any(|candidate| candidate.canonical == canonical)
        {
            found.push(Candidate { reading, canonical });
        }
    };
    add(Reading::BelowBase, below);
    add(Reading::AsSeen, raw_path);
    for (start, _) in base_path.match_indices('/').take(BASE_SEGMENTS_MAX) {
        add(
            Reading::WithBase,
            &format!("{}{below}", &base_path[start..]),
        );
    }
    found
}

/// The part of `path` below `base_path`, or all of it when it isn't below. `/application` is not below `/app`.
pub fn below_base<'a>(path: &'a str, base_path: &str) -> &'a str {
    let base_path = base_path.trim_end_matches('/');
    match path.strip_prefix(base_path) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn canonical_path(path: &str) -> String {
    let path = path.replace('&', "%26");
    let path = if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    };
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter.to_owned(),
    }
}

fn canonical_query(query: &str) -> String {
    let mut parameters: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .filter(|(name, _)| name != "jwt")
        .collect();
    parameters.sort_by(|one, other| {
        one.0
            .encode_utf16()
            .cmp(other.0.encode_utf16())
            .then_with(|| one.1.encode_utf16().cmp(other.1.encode_utf16()))
    });
    let mut canonical = String::new();
    let mut previous: Option<&str> = None;
    for (name, value) in &parameters {
        let value = utf8_percent_encode(value, RESERVED);
        let written = if previous == Some(name) {
            write!(canonical, ",{value}")
        } else {
            let separator = if previous.is_some() { "&" } else { "" };
            write!(
                canonical,
                "{separator}{}={value}",
                utf8_percent_encode(name, RESERVED)
            )
        };
        written.expect("a string takes every write");
        previous = Some(name);
    }
    canonical
}

fn decoded(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIND: &str =
        "/rest/atlassian-connect/1/migration/mapping/e4166374-2345-4c31-918c-83b14eb644f6/find";
    const PAGE: &str =
        "/rest/atlassian-connect/1/migration/mapping/e4166374-2345-4c31-918c-83b14eb644f6/page";
    const PROGRESS: &str =
        "/rest/atlassian-connect/1/migration/progress/e4166374-2345-4c31-918c-83b14eb644f6";

    fn relative(path: &'static str, base: &str) -> &'static str {
        below_base(path, base)
    }

    #[test]
    fn the_protocols_fifteen_vectors_hold() {
        let vectors: [(&str, &str, &str, String, &str); 15] = [
            ("GET", "/", "", "GET&/&".into(), "c88caad15a1c1a900b8ac08aa9686f4e8184539bea1deda36e2f649430df3239"),
            ("GET", "/", "param=foo", "GET&/&param=foo".into(), "557b49d80f3f963f6bec47b74d9832d8d601d6ed0979476bdb35bae4abafb0a4"),
            ("POST", "/user", "", "POST&/user&".into(), "18f9496a296abb418647d87857700529a1f4b2d18b4c1cfa77bbebdeeda6f068"),
            (
                "GET",
                "/path/to/service",
                "zee_last=param&repeated=parameter%201&first=param&repeated=parameter%202",
                "GET&/path/to/service&first=param&repeated=parameter%201,parameter%202&zee_last=param".into(),
                "e52bb281606c3bd9ca16cfe96fe2df78f5d9ffa126f06befd750dfa10fa1a897",
            ),
            (
                "POST",
                relative("/app/migration/webhook", "/app"),
                "",
                "POST&/migration/webhook&".into(),
                "f1cac0b6061ad061675e976c2c2827c3675a18f48bf8f6258c7ac615d76b3653",
            ),
            (
                "POST",
                relative("/app/migration/webhook/", "/app"),
                "version=1",
                "POST&/migration/webhook&version=1".into(),
                "32d97a65775da703c30fb9f015bce9dca2f6d581b7c3ef79dc946d38b88bb7bb",
            ),
            (
                "POST",
                PROGRESS,
                "",
                format!("POST&{PROGRESS}&"),
                "3a4dc09f30a767d6aa92f232cf7b0293ac45211a45402058f12b9af9d0e7f290",
            ),
            (
                "POST",
                FIND,
                "namespace=identity:user",
                format!("POST&{FIND}&namespace=identity%3Auser"),
                "3d33a97dd4fa3f4cfc9731d11edb57c09f475c2a5dc53c7512627f4da6719039",
            ),
            (
                "GET",
                PAGE,
                "namespace=jira%2Fclassic%3AcustomField&pageSize=100",
                format!("GET&{PAGE}&namespace=jira%2Fclassic%3AcustomField&pageSize=100"),
                "f9ed33215931e96c0595798c0e6e47b5998c89d085b33e2d52acf47a6ea77714",
            ),
            (
                "GET",
                "/x",
                "a=*~'()!&b=a+b&c=%20&d=%2B&e=%C3%A9",
                "GET&/x&a=%2A~%27%28%29%21&b=a%20b&c=%20&d=%2B&e=%C3%A9".into(),
                "d8857bfe48942cedf90637484080e30e89a78f7cf543b9ddd48d7e4307061d9b",
            ),
            ("GET", "/a&b/c", "x=y", "GET&/a%26b/c&x=y".into(), "7b95a18071ff388edd7d9ce4d42c339fb16c5fc3ca9e3f14f8e9d2156c3ff562"),
            (
                "GET",
                "/x",
                "jwt=abc&b=2&a=1&A=0",
                "GET&/x&A=0&a=1&b=2".into(),
                "e241d034e126c6edf6f832559eda543348d401e0bf55047fdb3e3b4c1da28109",
            ),
            ("GET", "/x", "empty=&noval", "GET&/x&empty=&noval=".into(), "29ddc3f43b76a911849f69e04151d348b0e92ad91ade742148699be81c675ae6"),
            ("GET", "/x", "b=2&b=10&b=1", "GET&/x&b=1,10,2".into(), "37542eb85450060f0e77af1e4073178e718cf6f5fe11e648e268d601258af0f2"),
            (
                "GET",
                "/addon",
                "tz=Europe%2FMoscow&loc=en-US&user_id=admin&user_key=admin&xdm_e=http%3A%2F%2Flocalhost%3A2990&xdm_c=channel-servlet-click-me&cp=%2Fjira&xdm_p=1&lic=none",
                "GET&/addon&cp=%2Fjira&lic=none&loc=en-US&tz=Europe%2FMoscow&user_id=admin&user_key=admin&xdm_c=channel-servlet-click-me&xdm_e=http%3A%2F%2Flocalhost%3A2990&xdm_p=1".into(),
                "3a6ff1b66f60eb275d0e4cb6be4261d5d3b0216b91c58dc6524509227ef346de",
            ),
        ];
        for (number, (method, path, query, expected, hashed)) in (1..).zip(vectors) {
            let canonical = canonical(method, path, query);
            assert_eq!(canonical, expected, "vector {number}");
            assert_eq!(hash(&canonical), hashed, "vector {number}");
        }
    }

    #[test]
    fn an_empty_path_is_the_root_and_the_root_keeps_its_slash() {
        assert_eq!(canonical("get", "", ""), "GET&/&");
        assert_eq!(canonical("GET", "/", ""), "GET&/&");
        assert_eq!(canonical("GET", "/a/", ""), "GET&/a&");
        assert_eq!(canonical("GET", "/a//", ""), "GET&/a/&");
    }

    #[test]
    fn names_sort_by_utf16_code_units() {
        // U+10000 is the surrogate D800 first, before U+FFFD.
        assert_eq!(
            canonical("GET", "/", "\u{fffd}=1&\u{10000}=2"),
            "GET&/&%F0%90%80%80=2&%EF%BF%BD=1"
        );
    }

    #[test]
    fn broken_percent_signs_and_empty_pairs_are_taken_as_they_stand() {
        assert_eq!(
            canonical("GET", "/", "&a=%zz&&b=%2"),
            "GET&/&a=%25zz&b=%252"
        );
    }

    #[test]
    fn a_path_is_below_a_base_by_whole_segments() {
        assert_eq!(below_base("/app/x", "/app"), "/x");
        assert_eq!(below_base("/app/x", "/app/"), "/x");
        assert_eq!(below_base("/app", "/app"), "/");
        assert_eq!(below_base("/application", "/app"), "/application");
        assert_eq!(below_base("/x", ""), "/x");
    }

    fn tried(path: &str, base: &str) -> Vec<String> {
        candidates("POST", path, "jwt=t", &Url::parse(base).unwrap())
            .into_iter()
            .map(|candidate| candidate.canonical)
            .collect()
    }

    #[test]
    fn every_reading_of_the_path_is_tried_once() {
        assert_eq!(
            tried("/connect/events", "https://example.com"),
            ["POST&/connect/events&"]
        );
        let all = [
            "POST&/connect/events&",
            "POST&/prod/app/connect/events&",
            "POST&/app/connect/events&",
        ];
        // The base path reached us, or a gateway took it away: the same set, for the sender can't know.
        assert_eq!(
            tried("/prod/app/connect/events", "https://example.com/prod/app/"),
            all
        );
        assert_eq!(
            tried("/connect/events", "https://example.com/prod/app"),
            all
        );
        // A stage in front of the path that the base URL doesn't have.
        assert_eq!(
            tried("/prod/connect/events", "https://example.com"),
            ["POST&/prod/connect/events&"]
        );
    }

    #[test]
    fn a_query_without_end_is_not_hashed() {
        let query = "a&".repeat(1_000);
        assert!(
            candidates(
                "POST",
                "/",
                &query,
                &Url::parse("https://example.com").unwrap()
            )
            .is_empty()
        );
    }
}
