//! Checks `[control]`: where the management plane is, and whom it believes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokenroute_control::{InternalSecret, Oidc};

use super::check::Checker;
use super::file;
use super::plan::ControlPlan;
use super::server::address;

const ADDRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// What clients ask an issuer for if nothing is said.
const SCOPES_DEFAULT: &str = "openid profile email offline_access";
/// What stands before the digits of a hash.
const HASH_PREFIX: &str = "sha256:";

/// The management plane, which has an address of its own beside `others`.
pub(super) fn control(
    checker: &mut Checker<'_>,
    typed: &file::Control,
    others: &[SocketAddr],
) -> ControlPlan {
    let address = address(checker, "control.address", typed.address.as_deref(), ADDRESS_DEFAULT);
    if address.port() != 0 && others.contains(&address) {
        checker.problem("control.address", "is the same as listen.address or admin.address");
    }
    let public_url = url(checker, "control.public_url", typed.public_url.as_deref());
    if address.ip().is_unspecified() && public_url.is_none() {
        let why = "control.public_url is missing: links and tokens will name an address that nobody can reach";
        checker.warnings.push(why.to_owned());
    }
    let inference = typed.inference_base_url.as_deref();
    ControlPlan {
        address,
        public_url,
        inference_base_url: url(checker, "control.inference_base_url", inference),
        admins: typed.admins.clone().unwrap_or_default(),
        oidc: oidc(checker, &typed.oidc),
        internal_secrets: internal_secrets(checker, typed),
    }
}

/// A URL without a final slash. Plain HTTP is for loopback alone: tokens travel there.
fn url(checker: &mut Checker<'_>, path: &str, typed: Option<&str>) -> Option<String> {
    let typed = typed?.trim_end_matches('/');
    let sound = typed.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        let near = rest.starts_with("[::1]") || host == "localhost" || host.starts_with("127.");
        let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"\\".contains(&byte));
        !rest.is_empty() && plain && (scheme == "https" || (scheme == "http" && near))
    });
    if !sound {
        checker.problem(path, "must be an https:// URL, or http:// to this machine");
    }
    Some(typed.to_owned())
}

/// The issuer; without one, the embedded one is on.
fn oidc(checker: &mut Checker<'_>, typed: &file::Oidc) -> Option<Oidc> {
    let file::Oidc { issuer, audience, client_id, scopes } = typed;
    if [issuer, audience, client_id, scopes].iter().all(|field| field.is_none()) {
        return None;
    }
    for (name, field) in [("issuer", issuer), ("audience", audience), ("client_id", client_id)] {
        if field.as_deref().is_none_or(str::is_empty) {
            checker.problem(format!("control.oidc.{name}"), "is missing");
        }
    }
    // Its tokens name it exactly so, with a final slash or without.
    url(checker, "control.oidc.issuer", issuer.as_deref());
    Some(Oidc {
        issuer: issuer.clone().unwrap_or_default(),
        audience: audience.clone().unwrap_or_default(),
        client_id: client_id.clone().unwrap_or_default(),
        scopes: scopes.clone().unwrap_or_else(|| SCOPES_DEFAULT.to_owned()),
    })
}

/// The hashes of partners' secrets.
fn internal_secrets(checker: &mut Checker<'_>, typed: &file::Control) -> Vec<InternalSecret> {
    let mut secrets = Vec::new();
    for (name, hash) in &typed.internal_secrets {
        match hash.strip_prefix(HASH_PREFIX).and_then(parse_hash) {
            Some(sha256) => secrets.push(InternalSecret { name: name.clone(), sha256 }),
            None => checker.problem(
                format!("control.internal_secrets.{name}"),
                "must be the hash that `tokenrouted internal-secret` prints, such as \"sha256:9f86…\"",
            ),
        }
    }
    secrets
}

/// 64 hexadecimal digits.
fn parse_hash(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, place) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(place..place + 2)?, 16).ok()?;
    }
    Some(hash)
}
