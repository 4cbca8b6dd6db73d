//! The query string hash (qsh), read anew from the protocol: SHA-256 over `METHOD&path&query` in canonical form.

use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write as _;

/// `POST&/migration/webhook&version=1`, for a request as it stands on the wire.
///
/// `context_path` is the path of the receiver's base URL (`""` or `"/"` when it has none); a path that doesn't lie below it is
/// taken as it is.
pub fn canonical_request(method: &str, path: &str, raw_query: &str, context_path: &str) -> String {
    format!(
        "{}&{}&{}",
        method.to_uppercase(),
        canonical_path(path, context_path),
        canonical_query(raw_query)
    )
}

/// The lower-case hexadecimal SHA-256 of a canonical request.
pub fn query_string_hash(canonical_request: &str) -> String {
    hex::encode(digest(&SHA256, canonical_request.as_bytes()))
}

fn canonical_path(path: &str, context_path: &str) -> String {
    let context = context_path.trim_end_matches('/');
    let below = match path.strip_prefix(context) {
        // "/wikipedia" doesn't lie below "/wiki".
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    };
    let mut canonical = below.replace('&', "%26");
    if !canonical.starts_with('/') {
        canonical.insert(0, '/');
    }
    if canonical.len() > 1 && canonical.ends_with('/') {
        canonical.pop();
    }
    canonical
}

fn canonical_query(raw_query: &str) -> String {
    // Code units, not bytes: the reference sorts UTF-16 strings.
    let mut parameters: Vec<(Vec<u16>, String, Vec<u16>, String)> = raw_query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (form_decoded(name), form_decoded(value)))
        .filter(|(name, _)| name != "jwt")
        .map(|(name, value)| {
            (
                name.encode_utf16().collect(),
                name,
                value.encode_utf16().collect(),
                value,
            )
        })
        .collect();
    parameters.sort();

    let mut canonical = String::new();
    let mut previous: Option<&str> = None;
    for (_, name, _, value) in &parameters {
        if previous == Some(name.as_str()) {
            canonical.push(',');
        } else {
            if previous.is_some() {
                canonical.push('&');
            }
            push_encoded(&mut canonical, name);
            canonical.push('=');
        }
        push_encoded(&mut canonical, value);
        previous = Some(name);
    }
    canonical
}

/// A name or value of a query: `+` is a space, `%XX` a byte; a broken escape stands for itself.
pub(crate) fn form_decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}

fn push_encoded(target: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, query: &str, context: &str, canonical: &str, hash: &str) {
        let request = canonical_request(method, path, query, context);
        assert_eq!(request, canonical);
        assert_eq!(query_string_hash(&request), hash, "hash of {canonical}");
    }

    /// PROTOCOL 4.4, the table of vectors, in its order.
    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn the_fifteen_vectors_of_the_protocol_hold() {
        let root = "c88caad15a1c1a900b8ac08aa9686f4e8184539bea1deda36e2f649430df3239";
        check("GET", "/", "", "", "GET&/&", root);
        check("get", "", "", "/", "GET&/&", root);
        check(
            "GET",
            "/",
            "param=foo",
            "",
            "GET&/&param=foo",
            "557b49d80f3f963f6bec47b74d9832d8d601d6ed0979476bdb35bae4abafb0a4",
        );
        check(
            "POST",
            "/user",
            "",
            "",
            "POST&/user&",
            "18f9496a296abb418647d87857700529a1f4b2d18b4c1cfa77bbebdeeda6f068",
        );
        check(
            "GET",
            "/path/to/service",
            "zee_last=param&repeated=parameter%201&first=param&repeated=parameter%202",
            "",
            "GET&/path/to/service&first=param&repeated=parameter%201,parameter%202&zee_last=param",
            "e52bb281606c3bd9ca16cfe96fe2df78f5d9ffa126f06befd750dfa10fa1a897",
        );
        check(
            "POST",
            "/app/migration/webhook",
            "",
            "/app",
            "POST&/migration/webhook&",
            "f1cac0b6061ad061675e976c2c2827c3675a18f48bf8f6258c7ac615d76b3653",
        );
        check(
            "POST",
            "/app/migration/webhook/",
            "version=1",
            "/app",
            "POST&/migration/webhook&version=1",
            "32d97a65775da703c30fb9f015bce9dca2f6d581b7c3ef79dc946d38b88bb7bb",
        );
        let progress =
            "/rest/atlassian-connect/1/migration/progress/e4166374-2345-4c31-918c-83b14eb644f6";
        check(
            "POST",
            progress,
            "",
            "",
            &format!("POST&{progress}&"),
            "3a4dc09f30a767d6aa92f232cf7b0293ac45211a45402058f12b9af9d0e7f290",
        );
        let mapping =
            "/rest/atlassian-connect/1/migration/mapping/e4166374-2345-4c31-918c-83b14eb644f6";
        check(
            "POST",
            &format!("/wiki{mapping}/find"),
            "namespace=identity:user",
            "/wiki",
            &format!("POST&{mapping}/find&namespace=identity%3Auser"),
            "3d33a97dd4fa3f4cfc9731d11edb57c09f475c2a5dc53c7512627f4da6719039",
        );
        check(
            "GET",
            &format!("{mapping}/page"),
            "namespace=jira%2Fclassic%3AcustomField&pageSize=100",
            "",
            &format!("GET&{mapping}/page&namespace=jira%2Fclassic%3AcustomField&pageSize=100"),
            "f9ed33215931e96c0595798c0e6e47b5998c89d085b33e2d52acf47a6ea77714",
        );
        check(
            "GET",
            "/x",
            "a=*~'()!&b=a+b&c=%20&d=%2B&e=%C3%A9",
            "",
            "GET&/x&a=%2A~%27%28%29%21&b=a%20b&c=%20&d=%2B&e=%C3%A9",
            "d8857bfe48942cedf90637484080e30e89a78f7cf543b9ddd48d7e4307061d9b",
        );
        check(
            "GET",
            "/a&b/c",
            "x=y",
            "",
            "GET&/a%26b/c&x=y",
            "7b95a18071ff388edd7d9ce4d42c339fb16c5fc3ca9e3f14f8e9d2156c3ff562",
        );
        check(
            "GET",
            "/x",
            "jwt=abc&b=2&a=1&A=0",
            "",
            "GET&/x&A=0&a=1&b=2",
            "e241d034e126c6edf6f832559eda543348d401e0bf55047fdb3e3b4c1da28109",
        );
        check(
            "GET",
            "/x",
            "empty=&noval",
            "",
            "GET&/x&empty=&noval=",
            "29ddc3f43b76a911849f69e04151d348b0e92ad91ade742148699be81c675ae6",
        );
        check(
            "GET",
            "/x",
            "b=2&b=10&b=1",
            "",
            "GET&/x&b=1,10,2",
            "37542eb85450060f0e77af1e4073178e718cf6f5fe11e648e268d601258af0f2",
        );
        check(
            "GET",
            "/addon",
            "tz=Europe%2FMoscow&loc=en-US&user_id=admin&user_key=admin&xdm_e=http%3A%2F%2Flocalhost%3A2990&xdm_c=channel-servlet-click-me&cp=%2Fjira&lic=none&xdm_p=1",
            "",
            "GET&/addon&cp=%2Fjira&lic=none&loc=en-US&tz=Europe%2FMoscow&user_id=admin&user_key=admin&xdm_c=channel-servlet-click-me&xdm_e=http%3A%2F%2Flocalhost%3A2990&xdm_p=1",
            "3a6ff1b66f60eb275d0e4cb6be4261d5d3b0216b91c58dc6524509227ef346de",
        );
    }

    #[test]
    fn a_path_that_only_begins_like_the_context_path_keeps_it() {
        assert_eq!(
            canonical_request("GET", "/wikipedia", "", "/wiki"),
            "GET&/wikipedia&"
        );
        assert_eq!(canonical_request("GET", "/wiki", "", "/wiki"), "GET&/&");
    }
}
