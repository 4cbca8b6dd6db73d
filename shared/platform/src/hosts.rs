//! Which hosts we talk to: one rule for tenants' sites, signed URLs and everything else that arrives from outside.
//!
//! The rule: `https` on its default port, no credentials in the URL, and the host's name on a list of exact names and `*.suffix` patterns
//! (whole labels; `*.example.com` is not `example.com`). A numeric address is never admitted, nor a name with a dot at its end.
//! An entry that names a loopback host exactly (`127.0.0.1`, `localhost`, `[::1]`) admits that host on any port, with `http` too: for local use.

use url::{Host, Url};

/// The names by which this machine reaches itself.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// A list of allowed hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Exact(String),
    /// With its leading dot.
    Suffix(String),
    Loopback(String),
}

/// An entry that can't be on the list; it has to be corrected in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is no host name, no `*.` pattern of at least two labels, and no loopback host")]
pub struct InvalidEntry {
    /// As it was given.
    pub entry: String,
}

/// Why a URL is not admitted. Asking again can't help. The text never holds more of the URL than its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an absolute URL.
    #[error("not an absolute URL")]
    NotAUrl,
    /// Neither https, nor http to a loopback host that the list names.
    #[error("not https")]
    Scheme,
    /// A user name or password in the URL.
    #[error("credentials in the URL")]
    Credentials,
    /// Another port than https has.
    #[error("not the default port")]
    Port,
    /// The host is not on the list.
    #[error("host {host} is not on the list of allowed hosts")]
    Host {
        /// The host.
        host: String,
    },
    /// A query or fragment where a base URL has none.
    #[error("a base URL with a query or a fragment")]
    NotABase,
}

impl Hosts {
    /// Reads the entries of a configuration.
    pub fn parse<Text: AsRef<str>>(
        entries: impl IntoIterator<Item = Text>,
    ) -> Result<Self, InvalidEntry> {
        let entries = entries
            .into_iter()
            .map(|entry| {
                parse_entry(entry.as_ref()).ok_or_else(|| InvalidEntry {
                    entry: entry.as_ref().to_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// Admits a URL, or says why not.
    pub fn admit(&self, url: &str) -> Result<Url, Refused> {
        let url = Url::parse(url).map_err(|_| Refused::NotAUrl)?;
        let host = host(&url)?;
        if self.entries.contains(&Entry::Loopback(host.clone())) {
            return Ok(url);
        }
        if url.scheme() != "https" {
            return Err(Refused::Scheme);
        }
        if url.port().is_some() {
            return Err(Refused::Port);
        }
        let named = matches!(url.host(), Some(Host::Domain(_)));
        let listed = self.entries.iter().any(|entry| match entry {
            Entry::Exact(name) => *name == host,
            Entry::Suffix(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|labels| !labels.is_empty()),
            Entry::Loopback(_) => false,
        });
        if named && listed {
            Ok(url)
        } else {
            Err(Refused::Host { host })
        }
    }

    /// Admits a base URL, to which paths will be appended.
    pub fn admit_base(&self, url: &str) -> Result<Url, Refused> {
        let url = self.admit(url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Refused::NotABase);
        }
        Ok(url)
    }
}

/// Admits a URL that our own configuration names: `https` to any host and port, or `http` to a loopback host.
pub fn configured(url: &str) -> Result<Url, Refused> {
    let url = Url::parse(url).map_err(|_| Refused::NotAUrl)?;
    let host = host(&url)?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if LOOPBACK.contains(&host.as_str()) => Ok(url),
        _ => Err(Refused::Scheme),
    }
}

/// The host of a URL of the web that holds no credentials.
fn host(url: &Url) -> Result<String, Refused> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refused::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Credentials);
    }
    url.host_str().map(str::to_owned).ok_or(Refused::NotAUrl)
}

fn parse_entry(entry: &str) -> Option<Entry> {
    if LOOPBACK.contains(&entry) {
        return Some(Entry::Loopback(entry.to_owned()));
    }
    let lower = entry.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("*.") {
        return (is_name(name) && name.contains('.')).then(|| Entry::Suffix(format!(".{name}")));
    }
    is_name(&lower).then_some(Entry::Exact(lower))
}

/// A host's name, not an address in any of the spellings that URLs know.
fn is_name(name: &str) -> bool {
    let labels_hold = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    labels_hold && matches!(Host::parse(name), Ok(Host::Domain(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::parse(["*.atlassian.net", "*.jira.com", "files.example.com"]).unwrap()
    }

    #[test]
    fn exact_names_and_whole_labels_below_a_suffix_are_admitted() {
        for url in [
            "https://example-site.atlassian.net/wiki",
            "https://EXAMPLE.ATLASSIAN.NET",
            "https://a.b.jira.com:443/x?y=z",
            "https://files.example.com/a",
        ] {
            assert!(hosts().admit(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn nothing_that_only_looks_like_a_listed_host_is_admitted() {
        for url in [
            "https://atlassian.net",
            "https://evilatlassian.net",
            "https://atlassian.net.evil.com",
            "https://evil.com/.atlassian.net",
            "https://evil.com#.atlassian.net",
            "https://evil.com?x=.atlassian.net",
            "https://x.atlassian.net.",
            "https://.atlassian.net",
            "https://sub.files.example.com",
            "https://x.atlassian.net\u{ff0f}evil.com",
        ] {
            assert!(hosts().admit(url).is_err(), "{url}");
        }
        // The parser reads a backslash as a slash, and so do we: the host is the listed one's impostor.
        assert_eq!(
            hosts().admit("https://evil.com\\.atlassian.net"),
            Err(Refused::Host {
                host: "evil.com".into()
            })
        );
    }

    #[test]
    fn schemes_ports_and_credentials_are_refused() {
        assert_eq!(
            hosts().admit("http://x.atlassian.net"),
            Err(Refused::Scheme)
        );
        assert_eq!(hosts().admit("ftp://x.atlassian.net"), Err(Refused::Scheme));
        assert_eq!(hosts().admit("file:///etc/passwd"), Err(Refused::Scheme));
        assert_eq!(
            hosts().admit("https://x.atlassian.net:8443"),
            Err(Refused::Port)
        );
        assert_eq!(
            hosts().admit("https://user@x.atlassian.net"),
            Err(Refused::Credentials)
        );
        assert_eq!(
            hosts().admit("https://:secret@x.atlassian.net"),
            Err(Refused::Credentials)
        );
        assert_eq!(hosts().admit("//x.atlassian.net"), Err(Refused::NotAUrl));
        assert_eq!(hosts().admit(""), Err(Refused::NotAUrl));
    }

    #[test]
    fn an_address_is_admitted_in_no_spelling() {
        for url in [
            "https://169.254.169.254/latest",
            "https://2852039166/latest",
            "https://0xa9.0xfe.0xa9.0xfe/",
            "https://127.0.0.1",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
        ] {
            assert!(
                matches!(hosts().admit(url), Err(Refused::Host { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn a_loopback_host_is_admitted_when_the_list_names_that_very_host() {
        let local = Hosts::parse(["127.0.0.1"]).unwrap();
        assert!(local.admit("http://127.0.0.1:4567/wiki").is_ok());
        assert!(local.admit("https://127.0.0.1/").is_ok());
        assert!(
            local.admit("http://2130706433:4567/").is_ok(),
            "the same address in another spelling"
        );
        assert!(local.admit("http://localhost:4567").is_err());
        assert!(local.admit("http://127.0.0.2").is_err());
        assert!(local.admit("http://[::1]:1").is_err());
        assert!(
            Hosts::parse(["[::1]"])
                .unwrap()
                .admit("http://[::1]:1")
                .is_ok()
        );
        assert!(local.admit("http://user@127.0.0.1").is_err());
    }

    #[test]
    fn a_base_url_ends_with_its_path() {
        assert!(hosts().admit_base("https://x.atlassian.net/wiki").is_ok());
        assert_eq!(
            hosts().admit_base("https://x.atlassian.net/wiki?a"),
            Err(Refused::NotABase)
        );
        assert_eq!(
            hosts().admit_base("https://x.atlassian.net/#a"),
            Err(Refused::NotABase)
        );
    }

    #[test]
    fn an_entry_that_is_no_host_is_refused_by_its_text() {
        for entry in [
            "",
            "*",
            "*.",
            "*.com",
            "a*.example.com",
            "https://example.com",
            "example.com:8443",
            "10.0.0.1",
            "0x7f.1",
            "a b",
        ] {
            assert_eq!(Hosts::parse([entry]).unwrap_err().entry, entry);
        }
    }

    #[test]
    fn a_configured_url_is_https_or_loopback() {
        assert!(configured("https://sink.example.com:8443/in").is_ok());
        assert!(configured("http://127.0.0.1:9/in").is_ok());
        assert_eq!(
            configured("http://sink.example.com/in"),
            Err(Refused::Scheme)
        );
        assert_eq!(
            configured("https://user@sink.example.com"),
            Err(Refused::Credentials)
        );
    }
}
