//! Errors in the shape of OpenAI's API.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use crate::files::{FileError, PictureError};
use crate::http::reply::{Failure, RETRY_AFTER};
use crate::store::StoreError;
use crate::template::TemplateError;

/// A refusal or a failure.
#[derive(Debug)]
pub(in crate::http) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    /// The request makes no sense, because of one of its fields.
    pub(super) fn refused(message: impl Into<String>, param: Option<&str>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            message: message.into(),
            param: param.map(str::to_owned),
            code: None,
        }
    }

    /// A word for programs.
    pub(super) fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The picture cannot be made, and the request is not to blame.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// The server takes no requests now.
    pub(super) fn stopping() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::failed("The server is stopping.") }
    }

    /// Something that the client need not know failed.
    pub(super) fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("{reason}");
        Self::failed("The server had an error while processing your request.")
    }

    /// The client shows no key that allows this.
    pub(in crate::http) fn key(status: StatusCode, message: &str) -> Self {
        let kind = "authentication_error";
        let code = Some("invalid_api_key");
        Self { status, kind, message: message.to_owned(), param: None, code }
    }

    /// As it is told.
    pub(super) fn document(&self) -> Json {
        json!({
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        let document = json!({ "error": self.document() }).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], document).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<TemplateError> for ApiError {
    fn from(e: TemplateError) -> Self {
        match e {
            TemplateError::Unknown(name) => Self {
                status: StatusCode::NOT_FOUND,
                ..Self::refused(format!("The model '{name}' does not exist."), Some("model"))
                    .coded("model_not_found")
            },
            TemplateError::Broken { .. } => Self::failed(e.to_string()).coded("broken_template"),
            TemplateError::File(e) => e.into(),
        }
    }
}

impl From<FileError> for ApiError {
    fn from(e: FileError) -> Self {
        Self::internal(e)
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        Self::internal(e)
    }
}

impl From<PictureError> for ApiError {
    fn from(e: PictureError) -> Self {
        Self::internal(e)
    }
}

/// What other routes refuse.
impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, message) = match failure {
            Failure::Status(status) => (status, status.canonical_reason().unwrap_or_default().to_owned()),
            Failure::Text(status, text) => (status, text),
            Failure::Json(status, document) => {
                let message = document["error"]["message"].as_str().unwrap_or_default().to_owned();
                (status, message)
            }
            Failure::Stopping => return Self::stopping(),
        };
        if status.is_server_error() {
            return Self { status, ..Self::failed(message) };
        }
        Self { status, ..Self::refused(message, None) }
    }
}
