//! A limit to the number of connections.

use std::future::{Ready, ready};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files that the program needs beside connections.
const OTHER_FILES: usize = 256;

/// Takes connections up to a number; those beyond are closed at once.
#[derive(Clone, Debug)]
pub(crate) struct Limit(Arc<Semaphore>);

impl Limit {
    /// At most so many connections, and no more than the system lets the process have files.
    pub(crate) fn new(wanted: usize) -> Self {
        let files = raise_file_limit(wanted.saturating_add(OTHER_FILES));
        let possible = files.saturating_sub(OTHER_FILES).max(64);
        if possible < wanted {
            tracing::warn!(
                "the system allows {files} open files, so at most {possible} connections are taken"
            );
        }
        Self(Arc::new(Semaphore::new(wanted.min(possible).min(Semaphore::MAX_PERMITS))))
    }
}

/// Asks the system for so many files; returns how many there can be.
#[cfg(unix)]
fn raise_file_limit(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    if now.current.is_some_and(|current| current < wanted) {
        let raised = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        // What is not granted shows in the limit that is read next.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: now.maximum });
    }
    let granted = getrlimit(Resource::Nofile).current;
    granted.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn raise_file_limit(_wanted: usize) -> usize {
    usize::MAX
}

impl<S> Accept<TcpStream, S> for Limit {
    type Stream = Counted;
    type Service = S;
    type Future = Ready<Result<(Counted, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(permit) = self.0.clone().try_acquire_owned() else {
            tracing::warn!("refused a connection: there are too many");
            return ready(Err(Error::new(ErrorKind::QuotaExceeded, "too many connections")));
        };
        // Events are small and must not wait for more of them.
        ready(stream.set_nodelay(true).map(|()| (Counted { stream, _permit: permit }, service)))
    }
}

/// A connection that counts as long as it is open.
#[derive(Debug)]
pub(crate) struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
