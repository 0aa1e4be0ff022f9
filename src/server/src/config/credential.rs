//! Secrets from variables and files: read once, checked for what a header can carry, never shown.

use std::path::Path;

use secrecy::SecretString;

use super::read;

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// The secret in the variable's value. Errors are messages without any of it.
pub(super) fn from_value(name: &str, value: Option<String>) -> Result<SecretString, String> {
    // Who types the secret itself where its variable is to be named does not read it in a log.
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let shown = if name.bytes().all(plain) { name } else { "that it names" };
    match value {
        Some(value) if !value.is_empty() => {
            checked(&value).map_err(|why| format!("the variable {shown} {why}"))
        }
        Some(_) | None => Err(format!("the variable {shown} is not set: set it, or name another")),
    }
}

/// The secret in the file, without the line end that editors leave.
pub(super) fn from_file(path: &Path) -> Result<SecretString, String> {
    let bytes = read::file(path, SECRET_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| "is no text")
        .and_then(|text| checked(text.trim_end_matches(['\r', '\n'])));
    text.map_err(|why| format!("{} {why}", path.display()))
}

/// A secret that a header can carry as it stands.
fn checked(text: &str) -> Result<SecretString, &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > SECRET_BYTES_MAX {
        return Err("is too long to be a secret");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds spaces, line ends or characters that no secret may have");
    }
    Ok(SecretString::from(text))
}
