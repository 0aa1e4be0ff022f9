//! Where a provider is: a base URL, read by one strict parser. Resolves no name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokenroute_proxy::egress::{Reach, reach};

/// Longest base URL, in bytes.
const URL_BYTES_MAX: usize = 512;
/// Longest DNS name, in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Longest label of a DNS name.
const LABEL_BYTES_MAX: usize = 63;
/// Where the demo provider's endpoints begin.
const DEMO_PATH_PREFIX: &str = "/v1";

/// Where a provider is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// At a fixed address.
    At(Origin),
    /// In this process, at a port that is known once it runs.
    Demo,
}

impl Base {
    /// The address, given the port of the demo provider.
    pub(crate) fn origin(&self, demo_port: u16) -> Origin {
        match self {
            Self::At(origin) => origin.clone(),
            Self::Demo => Origin {
                tls: false,
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: demo_port,
                path_prefix: DEMO_PATH_PREFIX.to_owned(),
            },
        }
    }
}

/// A base URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Whether TLS is spoken; the certificate must be for `host`.
    pub tls: bool,
    /// A lower-case DNS name, or an IP address without brackets. Never empty.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What comes before `/chat/completions`: empty, or a path that starts with `/` and does not
    /// end in one.
    pub path_prefix: String,
}

impl Origin {
    /// Reads `https://host[:port][/path]` or the same with `http`. The error says what to change.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        if url.len() > URL_BYTES_MAX {
            return Err("is too long: at most 512 bytes");
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err("has characters that no URL may have: write plain ASCII without spaces");
        }
        let (scheme, rest) = url.split_once("://").ok_or("is no URL: write https://host/path")?;
        let (tls, default_port) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err("has an unknown scheme: write https://"),
        };
        if rest.contains('?') || rest.contains('#') {
            return Err("must not have a query or a fragment");
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("must not have a user or password: use credential_env or credential_file");
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => parse_port(port)?,
            None => default_port,
        };
        Ok(Self { tls, host: parse_host(host)?, port, path_prefix: parse_path(path)? })
    }

    /// Scheme, host and port: what a stored credential is bound to.
    pub(crate) fn address(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            format!("{scheme}://[{}]:{}", self.host, self.port)
        } else {
            format!("{scheme}://{}:{}", self.host, self.port)
        }
    }

    /// Whether the host can only be this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }
}

/// Splits `host:port` or `[v6]:port`; the host of an IPv6 address comes without brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let end = bracketed.find(']').ok_or("has a [ without a ]")?;
        let (address, rest) = bracketed.split_at(end);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err("has no IPv6 address between [ and ]");
        }
        return match rest.strip_prefix(']').unwrap_or_default() {
            "" => Ok((address, None)),
            port => Ok((address, Some(port.strip_prefix(':').ok_or("has a wrong port")?))),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse::<u16>().ok()).flatten();
    port.filter(|port| *port > 0).ok_or("has a wrong port: write a number from 1 to 65535")
}

fn parse_host(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("has no host");
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return match reach(address) {
            Reach::Never => Err("points to an address where no provider can be"),
            Reach::Private | Reach::Public => Ok(address.to_string()),
        };
    }
    let host = text.to_ascii_lowercase();
    let label_is_sound = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label_is_sound) {
        return Err("has a wrong host: write a DNS name, an IPv4 address or [an IPv6 address]");
    }
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some resolvers and names to others.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return Err("has a host that ends in a number: write an IPv4 address as four of them");
    }
    Ok(host)
}

fn parse_path(text: &str) -> Result<String, &'static str> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let sound = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@".contains(&byte);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
    };
    match path.strip_prefix('/') {
        None => Ok(String::new()),
        Some(segments) if segments.split('/').all(sound) => Ok(path.to_owned()),
        Some(_) => Err("has a wrong path: write plain segments such as /v1, none empty or .."),
    }
}
