//! How often codes are asked for and logins are tried: counted in SQL, for all nodes together.

use std::net::IpAddr;
use std::time::Duration;

use tokenroute_domain::time::Timestamp;

use crate::Parts;
use crate::app::Problem;

/// Minutes that are counted together.
const WINDOW_MINUTES: u64 = 15;
/// Devices of one address, and of all, that ask to be let in during a window.
const DEVICES_OF_ADDRESS: u64 = 60;
const DEVICES: u64 = 600;
/// Logins that one address, and that all try, during a window. Behind a proxy of one's own all are one address.
const LOGINS_OF_ADDRESS: u64 = 60;
const LOGINS: u64 = 600;
/// Tries of one login's password from one address, and from all. More from all, so that whoever knows a
/// login does not lock its owner out at once.
const TRIES_OF_LOGIN_HERE: u64 = 10;
const TRIES_OF_LOGIN: u64 = 60;

/// The number of the window that `now` is in.
pub(crate) fn window(now: Timestamp) -> u64 {
    now.seconds() / 60 / WINDOW_MINUTES
}

/// Counts a device that asks to be let in; refuses it if there are too many.
pub(crate) async fn count_device(parts: &Parts, address: IpAddr) -> Result<(), Problem> {
    let address = near(address);
    let counted =
        [("devices".to_owned(), DEVICES), (format!("devices of {address}"), DEVICES_OF_ADDRESS)];
    count(parts, &counted).await
}

/// Counts a try of a login's password; refuses it if there are too many. A try counts before it is known
/// whether it is right, so that many at once do not slip through.
pub(crate) async fn count_login(
    parts: &Parts,
    address: IpAddr,
    login: Option<&str>,
) -> Result<(), Problem> {
    let address = near(address);
    let mut counted =
        vec![("logins".to_owned(), LOGINS), (format!("logins of {address}"), LOGINS_OF_ADDRESS)];
    if let Some(login) = login {
        counted.push((format!("login {login} of {address}"), TRIES_OF_LOGIN_HERE));
        counted.push((format!("login {login}"), TRIES_OF_LOGIN));
    }
    count(parts, &counted).await
}

/// Counts in order. What is refused by one is not counted by those after it: an address that has had its
/// share makes no more rows, and takes nothing of a login's.
async fn count(parts: &Parts, counted: &[(String, u64)]) -> Result<(), Problem> {
    let now = (parts.now)();
    let window = window(now);
    for (what, most) in counted {
        if parts.database.count_try(what, window).await? > *most {
            let next = window.saturating_add(1).saturating_mul(WINDOW_MINUTES).saturating_mul(60);
            let retry_after = Duration::from_secs(next.saturating_sub(now.seconds()));
            tracing::warn!("logins or codes are tried too often");
            return Err(Problem::TooMany { retry_after });
        }
    }
    Ok(())
}

/// An address, or of IPv6 the network, of which one machine has as many as it likes.
fn near(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_is_one_address() {
        for (address, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(near(address.parse().unwrap()), counted);
        }
    }

    #[test]
    fn a_window_is_a_quarter_of_an_hour() {
        assert_eq!(window(Timestamp(899_999_999)), 0);
        assert_eq!(window(Timestamp(900_000_000)), 1);
    }
}
