//! What can go wrong with a media file.

/// Failure to read or write a media file.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The bytes are of no format that can be read.
    #[error("not a picture of a known format (PNG, JPEG, WEBP, GIF, BMP)")]
    UnknownFormat,
    /// The bytes break the rules of their format.
    #[error("broken {format} data: {reason}")]
    Broken {
        /// Name of the format.
        format: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// The picture is larger than the limits allow.
    #[error("picture of {width}x{height} pixels exceeds the limit: {limit}")]
    TooLarge {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The limit in words.
        limit: String,
    },
    /// What was to be written cannot be.
    #[error("cannot write {format}: {reason}")]
    Encode {
        /// Name of the format.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// A tensor of the wrong shape or a failed tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of media operations.
pub type Result<T, E = MediaError> = std::result::Result<T, E>;

impl MediaError {
    pub(crate) fn broken(format: &'static str, reason: impl ToString) -> Self {
        Self::Broken { format, reason: reason.to_string() }
    }

    pub(crate) fn encode(format: &'static str, reason: impl ToString) -> Self {
        Self::Encode { format, reason: reason.to_string() }
    }
}
