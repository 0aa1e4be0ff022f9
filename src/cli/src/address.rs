//! Addresses that a key or token may be sent to: `https`, or plain `http` to this machine itself.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// Longest address, in bytes.
const BYTES_MAX: usize = 2048;

/// An address that may be asked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    text: String,
    host: String,
    is_here: bool,
}

impl Address {
    /// Reads an address, or says why it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let is_plain = text.chars().all(|c| c.is_ascii_graphic() && !r#""'\<>`{}|^#"#.contains(c));
        if text.len() > BYTES_MAX || !is_plain {
            return Err("it is not a URL");
        }
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let authority = uri.authority().ok_or("it does not begin with https://")?;
        if authority.as_str().contains('@') {
            return Err("it has a user or password in it");
        }
        let host = authority.host();
        let is_here = is_loopback(host);
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_here => {}
            Some("http") => return Err("it must be https: a key would be read on the way"),
            _ => return Err("it does not begin with https://"),
        }
        Ok(Self { text: text.to_owned(), host: authority.as_str().to_owned(), is_here })
    }

    /// Reads an address that paths are added to: no query, no final slash.
    pub(crate) fn parse_base(text: &str) -> Result<Self, &'static str> {
        if text.contains('?') {
            return Err("it has a query");
        }
        Self::parse(text.trim_end_matches('/'))
    }

    /// The address of `path`, which begins with a slash.
    pub(crate) fn at(&self, path: &str) -> Self {
        Self { text: format!("{}{path}", self.text), ..self.clone() }
    }

    /// As it was typed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is this machine itself.
    pub(crate) fn is_here(&self) -> bool {
        self.is_here
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_or_this_machine() {
        for text in [
            "https://api.example.com",
            "https://api.example.com:8443/gateway",
            "http://127.0.0.1:9902",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            assert!(Address::parse_base(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "api.example.com",
            "http://api.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com",
            "https://user:password@api.example.com",
            "ftp://api.example.com",
            "https://api.example.com/a b",
            "https://api.example.com/\"$(x)\"",
            "https://api.example.com?a=b",
            "https://",
        ] {
            assert!(Address::parse_base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_added_after_the_slash_is_gone() {
        let base = Address::parse_base("https://api.example.com/v1/").unwrap();
        assert_eq!(base.at("/models").text(), "https://api.example.com/v1/models");
    }
}
