//! The bytes of a kubeconfig: how many, in which encoding, YAML or JSON.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::KubeconfigError;

/// Longest kubeconfig that is read, in bytes: a Secret holds no more.
pub const MAX_KUBECONFIG_LENGTH: usize = 1 << 20;

/// How many times base64 is taken off.
const MAX_LAYERS: usize = 2;
const BYTE_ORDER_MARK: char = '\u{feff}';
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The document in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Value, KubeconfigError> {
    if bytes.len() > MAX_KUBECONFIG_LENGTH {
        let bytes = bytes.len();
        return Err(KubeconfigError::TooLarge { bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| KubeconfigError::NotText)?;
    let mut text = Zeroizing::new(text.to_owned());
    for _ in 0..MAX_LAYERS {
        match without_base64(&text) {
            Some(inner) => text = inner,
            None => return parse(&text),
        }
    }
    if without_base64(&text).is_some() {
        return Err(KubeconfigError::TooManyLayers);
    }
    parse(&text)
}

/// The text that `text` is the base64 of: standard or URL-safe, with line ends anywhere, with or
/// without padding. No kubeconfig is in that alphabet itself: it has colons.
fn without_base64(text: &str) -> Option<Zeroizing<String>> {
    let characters = text.chars().filter(|c| !c.is_ascii_whitespace());
    let compact: Zeroizing<String> = Zeroizing::new(
        characters
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                c => c,
            })
            .collect(),
    );
    if compact.is_empty() {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(compact.as_bytes()).ok()?);
    let decoded = std::str::from_utf8(&decoded).ok()?;
    Some(Zeroizing::new(decoded.to_owned()))
}

fn parse(text: &str) -> Result<Value, KubeconfigError> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    if text.trim().is_empty() {
        return Err(KubeconfigError::Empty);
    }
    let value: Value = if text.trim_start().starts_with('{') {
        from_json(text).or_else(|error| from_yaml(text).map_err(|_| error))?
    } else {
        from_yaml(text)?
    };
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(KubeconfigError::NotAMapping),
    }
}

fn from_json(text: &str) -> Result<Value, KubeconfigError> {
    serde_json::from_str(text).map_err(|error| KubeconfigError::Syntax {
        line: u64::try_from(error.line()).unwrap_or_default(),
        column: u64::try_from(error.column()).unwrap_or_default(),
    })
}

/// Errors of the parser quote the text, which may be secret; of them only the place is told.
fn from_yaml(text: &str) -> Result<Value, KubeconfigError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        KubeconfigError::Syntax {
            line: place.map_or(0, |it| it.line()),
            column: place.map_or(0, |it| it.column()),
        }
    })
}
