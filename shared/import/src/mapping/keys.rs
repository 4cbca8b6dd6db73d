//! What the keys of the platform's namespaces look like, as far as anybody has said (PROTOCOL.md 8). Of other namespaces nothing is assumed.

use crate::declaration::{ContainerType, Mapping};

/// Namespaces whose keys begin with one of these forms, and are found in no other.
const TYPED: [(&str, &[&str]); 2] = [
    (
        "identity:user",
        &[
            "email/",
            "jira.userkey/",
            "jira.username/",
            CONFLUENCE_USER_KEY,
        ],
    ),
    ("identity:group", &["identity:group:name/"]),
];

/// Namespaces whose keys are the server's ids as they are.
const PLAIN: [&str; 22] = [
    "confluence:page",
    "jira/classic:appCustomField",
    "jira/classic:customField",
    "jira/classic:customFieldConfigScheme",
    "jira/classic:customFieldOption",
    "jira/classic:issueSecurityLevel",
    "jira/classic:issueStatus",
    "jira/classic:issueType",
    PROJECT,
    "jira:comment",
    "jira:fileAttachment",
    "jira:filter",
    "jira:issue",
    "jira:issueLink",
    "jira:issueLinkType",
    "jira:portalPage",
    "jira:priority",
    "jira:projectCategory",
    "jira:projectComponent",
    "jira:projectRole",
    "jira:projectVersion",
    "jira:resolution",
];

/// The one documented namespace whose ids are those of containers.
const PROJECT: &str = "jira/classic:project";

const CONFLUENCE_USER_KEY: &str = "confluence.userkey/";

/// Digits of the key by which Confluence knows a user inside; its names are no keys (PROTOCOL.md 8).
const CONFLUENCE_USER_KEY_DIGITS: usize = 32;

/// The forms with one of which each key of the namespace begins; none where keys are plain, or nothing is known of them.
pub(super) fn forms(namespace: &str) -> &'static [&'static str] {
    TYPED
        .iter()
        .find(|(typed, _)| *typed == namespace)
        .map_or(&[], |(_, forms)| *forms)
}

/// Why no key that is looked up as declared can ever be found; it completes `….key_prefix`.
pub(crate) fn problem(mapping: &Mapping) -> Option<String> {
    let Mapping {
        namespace,
        key_prefix,
        ..
    } = mapping;
    let forms = forms(namespace);
    let declared = key_prefix.as_deref();
    if !forms.is_empty() {
        if declared.is_some_and(|prefix| forms.contains(&prefix)) {
            return None;
        }
        let what = match declared {
            None => "is needed, or no id is ever found".to_owned(),
            Some(prefix) => format!("{prefix:?} begins no key, so no id is ever found"),
        };
        let names = if namespace == "identity:user" {
            "; Confluence's user names have no mapping, so export the user's key"
        } else {
            ""
        };
        let forms: Vec<String> = forms.iter().map(|form| format!("{form:?}")).collect();
        let forms = forms.join(", ");
        return Some(format!("{what}: in {namespace} write {forms}{names}"));
    }
    if !PLAIN.contains(&&**namespace) {
        return None;
    }
    let prefix = declared?;
    let (owner, _) = TYPED.iter().find(|(_, forms)| forms.contains(&prefix))?;
    Some(format!(
        "{prefix:?} begins keys of {owner}, so no id is ever found: write namespace = {owner:?}, or leave the prefix out"
    ))
}

/// Why the ids of a namespace are those of no container of the declared type; it completes `….within`.
pub(crate) fn within_problem(mapping: &Mapping) -> Option<String> {
    let (container_type, namespace) = (mapping.within?, &*mapping.namespace);
    let is_documented = PLAIN.contains(&namespace) || !forms(namespace).is_empty();
    let fits = (container_type, namespace) == (ContainerType::JiraProject, PROJECT);
    (is_documented && !fits).then(|| {
        let of = container_type.name();
        format!("has no meaning in {namespace}: its ids are those of no {of}")
    })
}

/// The key by which an id is looked up. `room` is where it is written, if it must be.
pub(super) fn key_of<'id>(
    prefix: Option<&str>,
    forms: &[&str],
    id: &'id str,
    room: &'id mut String,
) -> &'id str {
    let Some(prefix) = prefix else { return id };
    if forms.iter().any(|form| id.starts_with(form)) {
        return id;
    }
    room.clear();
    room.push_str(prefix);
    room.push_str(id);
    room
}

/// What a person should know of a key that has no mapping.
pub(super) fn hint(mapping: &Mapping, id: &str) -> &'static str {
    let (prefix, forms) = (mapping.key_prefix.as_deref(), forms(&mapping.namespace));
    let mut room = String::new();
    let key = key_of(prefix, forms, id, &mut room);
    let Some(user) = key.strip_prefix(CONFLUENCE_USER_KEY) else {
        return "";
    };
    let is_key = user.len() == CONFLUENCE_USER_KEY_DIGITS
        && user.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_key || forms.is_empty() {
        return "";
    }
    " (Confluence knows its users by a key of 32 hexadecimal digits; a name has no mapping)"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declaration::OnMiss;

    fn mapping(namespace: &str, key_prefix: Option<&str>) -> Mapping {
        Mapping {
            pointer: "/a".to_owned(),
            pattern: None,
            namespace: namespace.to_owned(),
            on_miss: OnMiss::Reject,
            placeholder: None,
            key_prefix: key_prefix.map(str::to_owned),
            within: None,
        }
    }

    fn problem_of(namespace: &str, key_prefix: Option<&str>) -> Option<String> {
        problem(&mapping(namespace, key_prefix))
    }

    #[test]
    fn a_user_without_the_form_of_its_key_is_a_problem_that_says_what_to_write() {
        assert_eq!(
            problem_of("identity:user", None).unwrap(),
            "is needed, or no id is ever found: in identity:user write \"email/\", \"jira.userkey/\", \"jira.username/\", \
             \"confluence.userkey/\"; Confluence's user names have no mapping, so export the user's key"
        );
        let names = problem_of("identity:user", Some("confluence.username/")).unwrap();
        assert!(
            names.starts_with("\"confluence.username/\" begins no key"),
            "{names}"
        );
        assert_eq!(
            problem_of("identity:group", Some("group/")).unwrap(),
            "\"group/\" begins no key, so no id is ever found: in identity:group write \"identity:group:name/\""
        );
    }

    #[test]
    fn every_documented_form_is_taken_in_its_own_namespace_and_in_no_other_documented_one() {
        for (namespace, forms) in TYPED {
            for form in forms {
                assert_eq!(problem_of(namespace, Some(form)), None);
                for (other, others) in TYPED {
                    assert_eq!(
                        problem_of(other, Some(form)).is_none(),
                        others.contains(form)
                    );
                }
                for plain in PLAIN {
                    assert!(problem_of(plain, Some(form)).unwrap().contains(namespace));
                }
            }
        }
        for plain in PLAIN {
            assert_eq!(problem_of(plain, None), None);
            assert_eq!(problem_of(plain, Some("com.example/")), None);
        }
    }

    #[test]
    fn a_namespace_that_nobody_documents_takes_whatever_is_declared() {
        for namespace in ["identity:team", "confluence:space", "com.example:thing"] {
            for prefix in [None, Some("confluence.userkey/"), Some("x")] {
                assert_eq!(problem_of(namespace, prefix), None);
            }
        }
    }

    #[test]
    fn an_id_that_has_the_form_of_a_key_already_is_one() {
        let key = |id: &str| {
            let mut room = "of the id before".to_owned();
            let users = forms("identity:user");
            key_of(Some("confluence.userkey/"), users, id, &mut room).to_owned()
        };
        assert_eq!(key("ff80"), "confluence.userkey/ff80");
        assert_eq!(key("email/a@example.com"), "email/a@example.com");
        assert_eq!(key("confluence.userkey/ff80"), "confluence.userkey/ff80");
        assert_eq!(key_of(Some("x/"), &[], "x/1", &mut String::new()), "x/x/1");
        assert_eq!(key_of(None, &[], "1", &mut String::new()), "1");
    }

    #[test]
    fn a_confluence_user_name_is_called_one_when_it_misses() {
        let declared = mapping("identity:user", Some(CONFLUENCE_USER_KEY));
        assert!(hint(&declared, "admin").contains("32 hexadecimal digits"));
        let key = "ff80808154510724015451074c160001";
        assert_eq!(hint(&declared, key), "");
        assert_eq!(hint(&declared, "jira.userkey/admin"), "");
        assert_eq!(hint(&mapping("jira:issue", None), "admin"), "");
    }

    #[test]
    fn the_documented_namespaces_are_those_of_the_table_in_the_configuration_s_documentation() {
        let documentation = include_str!("../../../../docs/configuration.md");
        let typed = TYPED.iter().map(|(namespace, forms)| (*namespace, *forms));
        let plain = PLAIN.iter().map(|namespace| (*namespace, &[][..]));
        for (namespace, forms) in typed.chain(plain) {
            let named = format!("`{namespace}`");
            let row = documentation.lines().find(|line| {
                let first = line.split('|').nth(1);
                first.is_some_and(|first| first.contains(&named))
            });
            let row = row.unwrap_or_else(|| panic!("{namespace} has no row"));
            for form in forms {
                assert!(row.contains(&format!("`{form}`")), "{namespace}: {form}");
            }
        }
    }
}
