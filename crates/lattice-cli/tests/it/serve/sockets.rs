//! WebSocket clients that mean harm or nonsense: none stops the server or makes it panic.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::client::{Server, eventually};

/// Operation codes of frames.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The last frame of a message.
const FIN: u8 = 0x80;

/// A frame has a mask.
const MASKED: u8 = 0x80;

/// In place of a length: it follows.
const TWO_BYTES: u8 = 0x7e;
const EIGHT_BYTES: u8 = 0x7f;

/// The server's limit for messages of clients.
const LARGEST: usize = 1 << 20;

/// Opens a connection and sends the head of a handshake.
fn handshake(server: &Server, target: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let host = &server.address;
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    // A server that refuses what has come so far may hang up.
    let _ = stream.write_all(head.as_bytes());
    stream
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A socket that the server has accepted, past its first message.
fn open(server: &Server) -> TcpStream {
    let mut stream = handshake(server, "/ws?clientId=evil", UPGRADE);
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&got).contains("\"sid\":\"evil\"}") {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..length]);
    }
    stream
}

/// A frame as clients send it: masked, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, payload.len() as u64)[..], &[0; 4], payload].concat()
}

/// The head of a masked frame of some length.
fn head(first: u8, length: u64) -> Vec<u8> {
    match length {
        0..126 => vec![first, MASKED | length as u8],
        126..65536 => [&[first, MASKED | TWO_BYTES][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, MASKED | EIGHT_BYTES][..], &length.to_be_bytes()].concat(),
    }
}

/// What the server may do about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It hangs up.
    Closed,
    /// It takes no notice.
    Ignored,
}

/// What has become of a connection. One that is taken no notice of still answers to a ping.
fn fate(stream: &mut TcpStream) -> Fate {
    let _ = stream.write_all(&frame(FIN | PING, b"still there?"));
    let mut got = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Fate::Closed,
            Ok(length) => got.extend_from_slice(&buffer[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return Fate::Closed;
            }
            Err(e) => panic!("the server neither answers nor hangs up: {e}"),
        }
        if got.windows(12).any(|window| window == b"still there?") {
            return Fate::Ignored;
        }
    }
}

/// The server works as ever.
fn well(server: &Server) {
    assert_eq!(server.get("/prompt").status, 200);
    let mut socket = server.socket("friend");
    assert_eq!(socket.next_json()["data"]["sid"], "friend");
    let id = server.queue(&json!({"client_id": "friend", "prompt": {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 7}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }}));
    socket.until_over(&id);
}

#[test]
fn broken_frames_end_a_connection_and_odd_messages_are_ignored() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let text = |text: &str| frame(FIN | TEXT, text.as_bytes());
    let deep = "[".repeat(LARGEST - 1);
    let nested = format!("{{\"type\":\"feature_flags\",\"data\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let random: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let fragments =
        |piece: &[u8], times: usize| [frame(TEXT, piece), frame(CONTINUATION, piece).repeat(times)].concat();
    let cases: Vec<(&str, Vec<u8>, Fate)> = vec![
        // Messages that make no sense.
        ("nothing", text(""), Fate::Ignored),
        ("no JSON", text("hello"), Fate::Ignored),
        ("half of JSON", text("{\"type\": \"feature_flags\", \"data\": {"), Fate::Ignored),
        ("a number", text("1e999"), Fate::Ignored),
        ("null", text("null"), Fate::Ignored),
        ("a list", text("[{\"type\": \"feature_flags\"}]"), Fate::Ignored),
        ("a NUL", text("\0"), Fate::Ignored),
        ("deep", text(&deep), Fate::Ignored),
        ("nested", text(&nested), Fate::Ignored),
        ("unknown type", text("{\"type\": \"execute\", \"data\": {\"command\": \"rm\"}}"), Fate::Ignored),
        ("type of another type", text("{\"type\": {\"type\": 1}, \"data\": []}"), Fate::Ignored),
        (
            "features of another type",
            text("{\"type\": \"feature_flags\", \"data\": [1, 2, {\"supports_preview_metadata\": \"yes\"}]}"),
            Fate::Ignored,
        ),
        ("features without data", text("{\"type\": \"feature_flags\"}"), Fate::Ignored),
        ("features twice", text("{\"type\": \"feature_flags\", \"data\": {}}").repeat(1000), Fate::Ignored),
        (
            "doubled keys",
            text("{\"type\": 1, \"type\": \"feature_flags\", \"data\": {}, \"data\": 5}"),
            Fate::Ignored,
        ),
        ("lone surrogate", text("{\"type\": \"\\ud800\"}"), Fate::Ignored),
        ("huge string", text(&format!("{{\"type\": \"{}\"}}", "x".repeat(LARGEST - 100))), Fate::Ignored),
        ("empty binary", frame(FIN | BINARY, b""), Fate::Ignored),
        ("binary garbage", frame(FIN | BINARY, &random), Fate::Ignored),
        ("binary preview", frame(FIN | BINARY, &[0, 0, 0, 4, 255, 255, 255, 255, 0]), Fate::Ignored),
        ("many small messages", text("x").repeat(20_000), Fate::Ignored),
        ("fragments", fragments(b"x", 1000), Fate::Ignored),
        ("empty fragments", fragments(b"", 50_000), Fate::Ignored),
        (
            "pings between fragments",
            [frame(TEXT, b"x"), frame(FIN | PING, b"p"), frame(FIN, b"y")].concat(),
            Fate::Ignored,
        ),
        ("pings", frame(FIN | PING, &[7; 125]).repeat(20_000), Fate::Ignored),
        ("pongs", frame(FIN | PONG, &[7; 125]).repeat(20_000), Fate::Ignored),
        // Frames that are none, or too many.
        ("invalid UTF-8", frame(FIN | TEXT, &[b'a', 0xff, 0xc0]), Fate::Closed),
        ("half a character", [frame(TEXT, &[0xe2, 0x82]), frame(FIN, b"x")].concat(), Fate::Closed),
        ("not masked", vec![FIN | TEXT, 2, b'h', b'i'], Fate::Closed),
        ("reserved bits", frame(FIN | 0x70 | TEXT, b"x"), Fate::Closed),
        ("reserved operation", frame(FIN | 3, b"x"), Fate::Closed),
        ("reserved control", frame(FIN | 15, b"x"), Fate::Closed),
        ("long ping", frame(FIN | PING, &[0; 126]), Fate::Closed),
        ("fragmented ping", frame(PING, b"x"), Fate::Closed),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"x"), Fate::Closed),
        ("text within text", [frame(TEXT, b"x"), frame(TEXT, b"y")].concat(), Fate::Closed),
        ("too large", frame(FIN | TEXT, &vec![b' '; LARGEST + 1]), Fate::Closed),
        ("said to be too large", head(FIN | BINARY, 1 << 40), Fate::Closed),
        ("said to be larger than anything", head(FIN | BINARY, u64::MAX), Fate::Closed),
        ("too large in pieces", fragments(&[b' '; 1000], LARGEST / 1000 + 1), Fate::Closed),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10), Fate::Closed),
        ("garbage", random.repeat(20), Fate::Closed),
        ("goodbye", frame(FIN | CLOSE, &1000u16.to_be_bytes()), Fate::Closed),
        ("goodbye without a reason", frame(FIN | CLOSE, b""), Fate::Closed),
        ("goodbye of one byte", frame(FIN | CLOSE, b"x"), Fate::Closed),
        ("goodbye of no known kind", frame(FIN | CLOSE, &9u16.to_be_bytes()), Fate::Closed),
        ("goodbye with broken text", frame(FIN | CLOSE, &[3, 232, 0xff]), Fate::Closed),
        ("goodbye and more", [frame(FIN | CLOSE, b""), text("x").repeat(1000)].concat(), Fate::Closed),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expected) in &cases {
        let mut stream = open(&server);
        // A server that hangs up does not read the rest.
        let _ = stream.write_all(bytes);
        let got = fate(&mut stream);
        if got != *expected {
            wrong.push(format!("{name}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    well(&server);
}

#[test]
fn handshakes_that_are_none_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue"]);
    let long = format!("/ws?clientId={}", "x".repeat(600));
    let longer = format!("/ws?clientId={}", "x".repeat(1 << 20));
    let large = format!("{UPGRADE}X-Filler: {}\r\n", "x".repeat(1 << 20));
    let many = format!("{UPGRADE}{}", "X-Filler: x\r\n".repeat(10_000));
    let without =
        |line: &str| UPGRADE.split_inclusive("\r\n").filter(|l| !l.starts_with(line)).collect::<String>();
    for (target, more) in [
        ("/ws", String::new()),
        ("/ws", without("Connection")),
        ("/ws", without("Upgrade")),
        ("/ws", without("Sec-WebSocket-Key")),
        ("/ws", without("Sec-WebSocket-Version")),
        ("/ws", UPGRADE.replace("13", "8")),
        ("/ws", UPGRADE.replace("websocket", "h2c")),
        ("/ws", format!("{UPGRADE}Origin: http://evil.example\r\n")),
        (&long, UPGRADE.into()),
        (&longer, UPGRADE.into()),
        ("/ws", large),
        ("/ws", many),
        ("/ws?clientId=a&clientId=b", UPGRADE.into()),
    ] {
        let mut stream = handshake(&server, target, &more);
        let mut head = [0; 12];
        let shown = format!("{} {}", &target[..target.len().min(40)], &more[..more.len().min(200)]);
        // The connection may be cut while the head is still being sent.
        if stream.read_exact(&mut head).is_ok() {
            assert!(head.starts_with(b"HTTP/1.1 4"), "{shown}: {}", String::from_utf8_lossy(&head));
        }
    }
    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], &[0; 10_000], b"\r\n\r\n\r\n"] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    well(&server);
}

#[test]
fn clients_that_wait_or_crowd_keep_nobody_out() {
    let base = tempfile::tempdir().unwrap();
    let server = Server::start(base.path(), &["--memory-queue", "--max-connections", "100"]);
    // Heads that never end, and sockets that are opened and left.
    let half: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(b"GET /ws?clientId=slow HTTP/1.1\r\nHost: 127").unwrap();
            stream
        })
        .collect();
    let silent: Vec<TcpStream> = (0..40).map(|_| open(&server)).collect();
    well(&server);
    // A message whose rest never comes.
    let mut stuck = open(&server);
    stuck.write_all(&head(FIN | TEXT, 1000)).unwrap();
    well(&server);
    // More than there may be: those beyond are closed at once.
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let closed = crowd.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        match (&mut &**stream).read(&mut [0]) {
            Ok(length) => length == 0,
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        }
    });
    assert!(closed.count() >= 100, "the number of connections is limited");
    drop((half, silent, stuck, crowd));
    // Their places are free again.
    eventually(|| {
        let mut stream = TcpStream::connect(&server.address).ok()?;
        stream
            .write_all(format!("GET /prompt HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).as_bytes())
            .ok()?;
        stream.read_exact(&mut [0; 12]).ok()
    });
    well(&server);
}
