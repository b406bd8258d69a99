//! When a token ends, as it says itself.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;

/// The claim that is looked at.
#[derive(Deserialize)]
struct Claims {
    exp: i64,
}

/// The claim `exp` of a JWT (RFC 7519 §4.1.4), without a look at the signature: the API server
/// decides, this is for people to know beforehand.
pub(super) fn expiry(token: &str) -> Option<Timestamp> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else {
        return None;
    };
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Timestamp::from_second(claims.exp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let end = expiry(&token(r#"{"exp":1800000000,"aud":["x"]}"#));
        assert_eq!(end, Timestamp::from_second(1_800_000_000).ok());
    }

    #[test]
    fn of_what_says_nothing_nothing_is_known() {
        for text in [
            "opaque",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            &token("{}"),
            &token(r#"{"exp":"soon"}"#),
            &token(r#"{"exp":1e300}"#),
            &token(r#"{"exp":9223372036854775807}"#),
        ] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }
}
