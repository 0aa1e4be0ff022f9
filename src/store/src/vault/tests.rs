//! What was sealed opens where it belongs and nowhere else.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const HERE: Place<'static> = Place {
    table: "credentials",
    row: "crd_1",
    provider: "openai",
    origin: "https://api.openai.com:443",
};
const FIRST: &str = "1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
const SECOND: &str = "2 ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff\n";

fn vault(text: &str) -> Vault {
    Vault::parse(text).unwrap()
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn sealed(vault: &Vault) -> Vec<u8> {
    vault.seal(&HERE, &secret("canary-credential"), [7; NONCE_BYTES]).unwrap()
}

fn opened(vault: &Vault, place: &Place<'_>, sealed: &[u8]) -> Result<String, Locked> {
    vault.unseal(place, sealed).map(|secret| secret.expose_secret().to_owned())
}

#[test]
fn it_opens_in_its_own_place_alone() {
    let vault = vault(FIRST);
    let sealed = sealed(&vault);
    assert_eq!(opened(&vault, &HERE, &sealed).unwrap(), "canary-credential");
    for elsewhere in [
        Place { table: "webhooks", ..HERE },
        Place { row: "crd_2", ..HERE },
        Place { provider: "openai2", ..HERE },
        Place { origin: "https://evil.example:443", ..HERE },
        Place { origin: "http://api.openai.com:443", ..HERE },
        // The same letters, cut at another place.
        Place { table: "credentialsc", row: "rd_1", ..HERE },
        Place { row: "crd_1o", provider: "penai", ..HERE },
    ] {
        assert_eq!(opened(&vault, &elsewhere, &sealed), Err(Locked::Foreign), "{elsewhere:?}");
    }
}

#[test]
fn two_rows_cannot_be_exchanged() {
    let vault = vault(FIRST);
    let there = Place { row: "crd_2", ..HERE };
    let one = vault.seal(&HERE, &secret("one"), [1; NONCE_BYTES]).unwrap();
    let two = vault.seal(&there, &secret("two"), [2; NONCE_BYTES]).unwrap();
    assert_eq!(opened(&vault, &HERE, &two), Err(Locked::Foreign));
    assert_eq!(opened(&vault, &there, &one), Err(Locked::Foreign));
    assert_eq!(opened(&vault, &there, &two).unwrap(), "two");
}

#[test]
fn a_newer_key_seals_and_the_older_one_still_opens() {
    let (before, between, after) =
        (vault(FIRST), vault(&(FIRST.to_owned() + SECOND)), vault(SECOND));
    let old = sealed(&before);
    assert!(!before.is_old(&old) && between.is_old(&old));
    let secret = between.unseal(&HERE, &old).unwrap();
    let new = between.seal(&HERE, &secret, [8; NONCE_BYTES]).unwrap();
    assert!(!between.is_old(&new));
    assert_eq!(opened(&after, &HERE, &new).unwrap(), "canary-credential");
    assert_eq!(opened(&after, &HERE, &old), Err(Locked::NoKey(1)));
    // One version of a key does not pass for another.
    let mut renamed = old;
    renamed[..2].copy_from_slice(&2_u16.to_be_bytes());
    assert_eq!(opened(&between, &HERE, &renamed), Err(Locked::Foreign));
    let same_key = vault(&SECOND.replace("2 ", "3 "));
    renamed = new;
    renamed[..2].copy_from_slice(&3_u16.to_be_bytes());
    assert_eq!(opened(&same_key, &HERE, &renamed), Err(Locked::Foreign));
}

#[test]
fn any_change_and_any_cut_is_noticed() {
    let vault = vault(FIRST);
    let whole = sealed(&vault);
    for length in 0..whole.len() {
        assert!(opened(&vault, &HERE, &whole[..length]).is_err(), "{length} bytes");
    }
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&vault, &HERE, &changed).is_err(), "bit {bit}");
    }
    assert!(opened(&vault, &HERE, &[whole.as_slice(), b"x"].concat()).is_err());
    let long = secret(&"x".repeat(SECRET_BYTES_MAX + 1));
    assert_eq!(vault.seal(&HERE, &long, [0; NONCE_BYTES]), Err(Locked::TooLong));
}

#[test]
fn files_of_keys_are_the_owners_alone_and_read_strictly() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("vault");
    assert!(matches!(Vault::open(&path), Err(BadKeys::Unreadable(_))));
    let chance = Zeroizing::new(std::array::from_fn(|place| u8::try_from(place).unwrap()));
    Vault::create(&path, &chance).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), FIRST);
    assert!(Vault::create(&path, &chance).is_err(), "one that is there stays");
    assert!(opened(&Vault::open(&path).unwrap(), &HERE, &sealed(&vault(FIRST))).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Vault::open(&path), Err(BadKeys::Open)));
    let key = FIRST.trim_end().split_once(' ').unwrap().1;
    let shorter = key.get(1..).unwrap();
    for odd in [
        String::new(),
        "\n".to_owned(),
        key.to_owned(),
        format!("0 {key}"),
        format!("65536 {key}"),
        format!("1 {shorter}"),
        format!("1 {key}0"),
        format!("1  {key}"),
        format!("1 +{shorter}"),
        format!("1 {}", "0".repeat(KEY_DIGITS)),
        format!("{FIRST}1 {key}"),
        format!("{FIRST}\n2 {key}"),
        (1..=KEYS_MAX + 1).fold(String::new(), |text, version| format!("{text}{version} {key}\n")),
    ] {
        assert!(Vault::parse(&odd).is_none(), "{odd}");
    }
}

#[test]
fn nothing_shows_a_key_or_a_secret() {
    let vault = vault(FIRST);
    let shown = format!("{vault:?} {:?}", vault.unseal(&HERE, &sealed(&vault)));
    assert!(
        !shown.contains("0102") && !shown.contains("canary") && !shown.contains("[0, 1"),
        "{shown}"
    );
    let sealed = sealed(&vault);
    assert!(
        !sealed.windows(6).any(|window| b"canary-credential".windows(6).any(|part| part == window))
    );
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_there_and_not_elsewhere(
        text in "\\PC{0,200}", parts: [String; 4], others: [String; 4], nonce: [u8; NONCE_BYTES],
    ) {
        let vault = vault(FIRST);
        let at = |parts: &[String; 4], vault: &Vault, sealed: &[u8]| {
            let [table, row, provider, origin] = parts;
            opened(vault, &Place { table, row, provider, origin }, sealed)
        };
        let [table, row, provider, origin] = &parts;
        let sealed = vault.seal(&Place { table, row, provider, origin }, &secret(&text), nonce).unwrap();
        prop_assert_eq!(at(&parts, &vault, &sealed), Ok(text));
        if parts != others {
            prop_assert_eq!(at(&others, &vault, &sealed), Err(Locked::Foreign));
        }
    }

    #[test]
    fn junk_never_opens(junk: Vec<u8>) {
        prop_assert!(vault(FIRST).unseal(&HERE, &junk).is_err());
    }
}
