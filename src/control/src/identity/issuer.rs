//! The embedded issuer: OpenID metadata, keys and tokens of our own, for who has no identity provider. It is
//! there only while the settings name no other, and keeps nothing but rows of SQL.

pub(crate) mod password;
pub(crate) mod signing;
pub(crate) mod tries;

use std::time::Duration;

use crate::Parts;

/// What users of the embedded issuer are known under. No external one is called so, for theirs are URLs;
/// and it stays when the address under which this plane is found becomes another.
pub(crate) const NAME: &str = "embedded";
/// Where a device code is asked for.
pub(crate) const DEVICE_PATH: &str = "/oauth/device_authorization";
/// Where it becomes a token.
pub(crate) const TOKEN_PATH: &str = "/oauth/token";
/// Where a token is given back.
pub(crate) const REVOKE_PATH: &str = "/oauth/revoke";
/// Where the keys are.
pub(crate) const KEYS_PATH: &str = "/oauth/jwks";
/// Where a person approves a device.
pub(crate) const APPROVAL_PATH: &str = "/login/device";
/// Where a person makes itself a user.
pub(crate) const SETUP_PATH: &str = "/login/setup";

/// How often rows that are over are looked for.
const PURGE_PAUSE: Duration = Duration::from_mins(10);
/// How long they are kept after their time: longer than any token lives.
const PURGE_KEEP: Duration = Duration::from_hours(24);

/// Forgets what is over, now and then, for as long as it is polled.
pub(crate) async fn purge(parts: Parts) {
    loop {
        let now = (parts.now)();
        let window = tries::window(now).saturating_sub(1);
        if let Err(error) = parts.database.purge_issuer((window, now), PURGE_KEEP).await {
            tracing::warn!(%error, "codes and tokens that are over cannot be forgotten");
        }
        tokio::time::sleep(PURGE_PAUSE).await;
    }
}
