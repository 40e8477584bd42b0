//! The forms of messages.

use axum::extract::ws::Message;
use bytes::Bytes;
use lattice_graph::{PreviewImage, ProgressEntry};
use serde_json::{Value as Json, json};

use super::outbox::{Kind, Outgoing};
use crate::logs::LogLine;

/// Types of binary messages.
const PREVIEW: u32 = 1;
const TEXT: u32 = 3;
const PREVIEW_WITH_METADATA: u32 = 4;

/// `{"type": ..., "data": ...}`.
pub(super) fn message(kind: &str, data: &Json) -> Outgoing {
    let text = json!({ "type": kind, "data": data }).to_string();
    Outgoing { message: Message::Text(text.into()), kind: Kind::Event }
}

fn exec_info(remaining: usize) -> Json {
    json!({ "exec_info": { "queue_remaining": remaining } })
}

/// The queue has changed.
pub(crate) fn status(remaining: usize) -> Outgoing {
    let status = message("status", &json!({ "status": exec_info(remaining) }));
    Outgoing { kind: Kind::Status, ..status }
}

/// The first message on a connection.
pub(crate) fn status_with_sid(remaining: usize, sid: &str) -> Outgoing {
    message("status", &json!({ "status": exec_info(remaining), "sid": sid }))
}

/// Where the client's prompt is, to one that connects while it runs.
pub(crate) fn executing_now(display_node: &str) -> Outgoing {
    message("executing", &json!({ "node": display_node }))
}

/// The prompt is over and in the history.
pub(super) fn over(prompt_id: &str) -> Outgoing {
    let over = message("executing", &json!({ "node": null, "prompt_id": prompt_id }));
    Outgoing { kind: Kind::End, ..over }
}

/// What the server can do.
pub(crate) fn feature_flags(features: &Json) -> Outgoing {
    message("feature_flags", features)
}

/// New lines of the log.
pub(crate) fn logs(lines: &[LogLine]) -> Outgoing {
    message("logs", &json!({ "entries": lines, "size": null }))
}

fn binary(head: &[u8], payload: &[u8]) -> Outgoing {
    let bytes = Bytes::from([head, payload].concat());
    Outgoing { message: Message::Binary(bytes), kind: Kind::Event }
}

fn with_length(kind: u32, head: &[u8]) -> Vec<u8> {
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), head].concat()
}

/// A text to show on a node.
pub(super) fn text(node: &str, text: &str) -> Outgoing {
    binary(&with_length(TEXT, node.as_bytes()), text.as_bytes())
}

/// A preview for clients that know only its format.
pub(super) fn preview(image: &PreviewImage) -> Outgoing {
    let format: u32 = if image.mime == "image/png" { 2 } else { 1 };
    binary(&[PREVIEW.to_be_bytes(), format.to_be_bytes()].concat(), &image.data)
}

/// A preview that tells its node.
pub(super) fn preview_with_metadata(
    image: &PreviewImage,
    entry: &ProgressEntry,
    prompt_id: &str,
) -> Outgoing {
    let metadata = json!({
        "node_id": entry.node_id,
        "prompt_id": prompt_id,
        "display_node_id": entry.display_node_id,
        "parent_node_id": entry.parent_node_id,
        "real_node_id": entry.real_node_id,
        "image_type": image.mime,
    });
    binary(&with_length(PREVIEW_WITH_METADATA, metadata.to_string().as_bytes()), &image.data)
}

/// Metadata and picture of what [`preview_with_metadata`] makes.
pub(crate) fn read_preview(message: &[u8]) -> Option<(Json, &[u8])> {
    let number = |at: usize| Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?));
    if number(0)? != PREVIEW_WITH_METADATA {
        return None;
    }
    let (metadata, picture) = message.get(8..)?.split_at_checked(number(4)? as usize)?;
    Some((serde_json::from_slice(metadata).ok()?, picture))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(outgoing: Outgoing) -> Vec<u8> {
        outgoing.message.into_data().to_vec()
    }

    #[test]
    fn binary_heads() {
        assert_eq!(
            bytes(text("2", "width: 24")),
            [&[0, 0, 0, 3, 0, 0, 0, 1, b'2'][..], b"width: 24"].concat()
        );
        let jpeg = PreviewImage { mime: "image/jpeg", data: [0xff, 0xd8].into() };
        assert_eq!(bytes(preview(&jpeg)), [0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xd8]);
        let png = PreviewImage { mime: "image/png", data: [0x89].into() };
        assert_eq!(bytes(preview(&png)), [0, 0, 0, 1, 0, 0, 0, 2, 0x89]);
        let entry = ProgressEntry {
            value: 1.0,
            max: 2.0,
            state: "running",
            node_id: "2".into(),
            display_node_id: "2".into(),
            parent_node_id: None,
            real_node_id: "2".into(),
        };
        let got = bytes(preview_with_metadata(&jpeg, &entry, "p"));
        assert_eq!(got[..4], [0, 0, 0, 4]);
        let (metadata, picture) = read_preview(&got).unwrap();
        assert_eq!(metadata["image_type"], "image/jpeg");
        assert_eq!(picture, [0xff, 0xd8]);
        for broken in [&got[..3], &got[..9], &[0, 0, 0, 4, 255, 255, 255, 255, 0][..], &[0, 0, 0, 1]] {
            assert!(read_preview(broken).is_none());
        }
    }
}
