//! What happens to the queue.

use serde::Serialize;

/// A change of the queue, as listeners are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum QueueChange {
    /// A prompt has been queued.
    Queued {
        /// Its id.
        prompt_id: String,
    },
    /// A prompt has been started.
    Started {
        /// Its id.
        prompt_id: String,
    },
    /// A prompt has ended and is in the history.
    Finished {
        /// Its id.
        prompt_id: String,
    },
    /// The running prompt waits again.
    PutBack {
        /// Its id.
        prompt_id: String,
    },
    /// A waiting prompt has been dropped.
    Removed {
        /// Its id.
        prompt_id: String,
    },
    /// All waiting prompts have been dropped.
    Cleared,
    /// A waiting prompt has another place.
    Moved {
        /// Its id.
        prompt_id: String,
    },
    /// A waiting prompt has another graph or priority.
    Edited {
        /// Its id.
        prompt_id: String,
    },
    /// No prompt is started any more.
    Paused,
    /// Prompts are started again.
    Resumed,
    /// Prompts run in another order.
    Reordered,
}

impl QueueChange {
    /// The prompt that it is about, if it is about one.
    pub fn prompt_id(&self) -> Option<&str> {
        match self {
            Self::Queued { prompt_id }
            | Self::Started { prompt_id }
            | Self::Finished { prompt_id }
            | Self::PutBack { prompt_id }
            | Self::Removed { prompt_id }
            | Self::Moved { prompt_id }
            | Self::Edited { prompt_id } => Some(prompt_id),
            Self::Cleared | Self::Paused | Self::Resumed | Self::Reordered => None,
        }
    }
}
