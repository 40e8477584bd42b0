//! Sockets, and the signals that end the server.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;

use crate::app::ServeError;
use crate::limit::Limit;
use crate::options::Options;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long answers under way may take when the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Sockets that accept connections.
pub(crate) struct Listeners(Vec<(TcpListener, SocketAddr)>);

impl Listeners {
    /// Where they listen, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|&(_, address)| address).collect()
    }
}

/// Listens on all addresses.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Listeners, ServeError> {
    let one = |&address: &SocketAddr| {
        let listener = listener(address).map_err(|source| ServeError::Listen { address, source })?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    addresses.iter().map(one).collect::<Result<_, ServeError>>().map(Listeners)
}

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are often asked for together, and each is to mean one family.
        socket.set_only_v6(true)?;
    }
    // A server that is started again must not wait until the system forgets the connections of the one before.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// The running HTTP server.
pub(crate) struct Server {
    handle: Handle<SocketAddr>,
    tasks: JoinSet<std::io::Result<()>>,
}

impl Server {
    /// Answers on all sockets.
    pub(crate) async fn start(
        listeners: Listeners,
        router: Router,
        options: &Options,
    ) -> Result<Self, ServeError> {
        let handle = Handle::new();
        let mut tasks = JoinSet::new();
        let limit = Limit::new(options.max_connections);
        let tls = match &options.tls {
            Some(files) => Some(
                RustlsConfig::from_pem_file(&files.certificate, &files.key)
                    .await
                    .map_err(|source| ServeError::Tls { files: files.clone(), source })?,
            ),
            None => None,
        };
        for (listener, _) in listeners.0 {
            let mut server = axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(limit.clone());
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let service = router.clone().into_make_service_with_connect_info::<SocketAddr>();
            match &tls {
                Some(tls) => {
                    let tls = RustlsAcceptor::new(tls.clone());
                    let server = server.map(|limit| tls.acceptor(limit));
                    tasks.spawn(server.serve(service));
                }
                None => {
                    tasks.spawn(server.serve(service));
                }
            }
        }
        Ok(Self { handle, tasks })
    }

    /// Accepts no connections any more and waits for the last answers.
    pub(crate) async fn end(mut self) {
        self.handle.graceful_shutdown(Some(LAST_ANSWERS));
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::error!("a listener failed: {e}"),
                Err(e) => tracing::error!("a listener failed: {e}"),
            }
        }
    }
}

/// Returns when the process is asked to end.
#[cfg(unix)]
pub(crate) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        // Without handlers, signals end the process at once, which the queue survives.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}

/// Returns when the process is asked to end.
#[cfg(not(unix))]
pub(crate) async fn told_to_stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
