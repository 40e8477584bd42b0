//! What clients say.

use serde_json::Value as Json;

/// A message of a client that is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// `feature_flags`: what the client can do.
    Features(Features),
    /// Anything else, which asks for nothing.
    Other,
}

/// What a client can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Takes previews that tell their node.
    pub preview_metadata: bool,
}

impl ClientMessage {
    /// `None` if the text is no JSON. Features that are none of those known, or of another type, count as lacking.
    pub fn parse(text: &str) -> Option<Self> {
        let message: Json = serde_json::from_str(text).ok()?;
        if message.get("type").and_then(Json::as_str) != Some("feature_flags") {
            return Some(Self::Other);
        }
        let flag = |name: &str| message.get("data").and_then(|data| data.get(name)).and_then(Json::as_bool);
        Some(Self::Features(Features {
            preview_metadata: flag("supports_preview_metadata").unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_feature_flags_mean_something() {
        let features = |preview_metadata| Some(ClientMessage::Features(Features { preview_metadata }));
        for (text, want) in [
            (r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#, features(true)),
            (r#"{"type": "feature_flags", "data": {"supports_preview_metadata": "yes"}}"#, features(false)),
            (r#"{"type": "feature_flags", "data": [1]}"#, features(false)),
            (r#"{"type": "feature_flags"}"#, features(false)),
            (r#"{"type": 3, "data": {}}"#, Some(ClientMessage::Other)),
            ("[]", Some(ClientMessage::Other)),
            ("", None),
            ("{", None),
        ] {
            assert_eq!(ClientMessage::parse(text), want, "{text}");
        }
    }
}
