//! Connections against real sockets: what is kept, shared, given up, and what it is called.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection as Served, SendResponse};
use http::{Request, Response};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::Failure;
use tokenroute_wire::meter::Reasoning;
use tokenroute_wire::request::PrefillForm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::{Connector, Exchange, Unused};
use crate::egress::{Egress, Network};
use crate::resolve::Resolver;
use crate::snapshot::{Deadlines, OnDisconnect, Provider, ProviderSettings};

const WITHIN: Duration = Duration::from_secs(5);
const CHAT: Endpoint = Endpoint::ChatCompletions;

/// A provider that waits a minute for everything but the connection.
pub(crate) fn settings((host, port): (&str, u16), http2: bool) -> ProviderSettings {
    let long = Duration::from_mins(1);
    let deadlines = Deadlines {
        connect: WITHIN,
        head: long,
        first_token: long,
        stall: long,
        total: long,
        drain: long,
        pool_idle: long,
    };
    ProviderSettings {
        name: Arc::from("test"),
        host: host.to_owned(),
        port,
        tls: false,
        path: "/v1".to_owned(),
        credential: None,
        stream_options: true,
        reasoning: Reasoning::default(),
        on_disconnect: OnDisconnect::Cancel,
        deadlines,
        http2,
        prefill: PrefillForm::default(),
        output_cap: crate::snapshot::OutputCap::default(),
        probe: None,
    }
}

fn provider_at(resolver: &Resolver, place: (&str, u16), http2: bool) -> Arc<Provider> {
    Arc::new(Provider::new(settings(place, http2), resolver))
}

fn provider(address: SocketAddr, http2: bool) -> Arc<Provider> {
    provider_at(&Resolver::default(), ("127.0.0.1", address.port()), http2)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn send(connector: &Connector, provider: &Arc<Provider>, pooled: bool) -> Exchange {
    let connection = connector.connect(provider, pooled, WITHIN).await.unwrap();
    connection.send(CHAT, vec![Bytes::from_static(b"{}")]).await.unwrap()
}

async fn finish(connector: &Connector, mut exchange: Exchange) {
    assert_eq!(exchange.head().await.unwrap().status, 200);
    while exchange.read().await.unwrap().is_some() {}
    assert!(exchange.is_done());
    connector.release(exchange).await;
}

/// HTTP/1.1: answers the first request on each connection whole and does as told with the second.
async fn second_answer(told: &'static [u8]) -> Result<(), Failure> {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(told).await.unwrap();
    });
    let (connector, provider) = (Connector::new(), provider(address, false));
    let first = send(&connector, &provider, true).await;
    finish(&connector, first).await;
    send(&connector, &provider, true).await.head().await.map(drop)
}

async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n{}") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn only_a_connection_that_closed_without_a_byte_of_an_answer_was_stale() {
    assert_eq!(second_answer(b"").await, Err(Failure::Stale));
    assert_eq!(second_answer(b"H").await, Err(Failure::Reset));
    assert_eq!(second_answer(b"HTTP/1.1 200 OK\r\nContent-").await, Err(Failure::Reset));
    let informed = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(second_answer(informed).await, Err(Failure::Reset));
}

#[tokio::test]
async fn a_new_connection_that_closes_was_reset() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            read_request(&mut listener.accept().await.unwrap().0).await;
        }
    });
    let (connector, provider) = (Connector::new(), provider(address, false));
    let failure = send(&connector, &provider, true).await.head().await.map(drop);
    assert_eq!(failure, Err(Failure::Reset));
}

type Asked = (Request<h2::RecvStream>, SendResponse<Bytes>, usize);

/// An HTTP/2 server on every connection that comes. Requests arrive at the test, with the number of
/// their connection; connections are told how many requests they have had before they say goodbye.
fn serve(
    listener: TcpListener,
    builder: h2::server::Builder,
    goodbye_after: usize,
) -> mpsc::Receiver<Asked> {
    let (asked, requests) = mpsc::channel(1024);
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            tokio::spawn(carry(connection, asked.clone(), (number, goodbye_after)));
        }
    });
    requests
}

async fn carry(
    mut connection: Served<TcpStream, Bytes>,
    asked: mpsc::Sender<Asked>,
    (number, goodbye_after): (usize, usize),
) {
    let mut count = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        count += 1;
        if count == goodbye_after {
            connection.graceful_shutdown();
        }
        if asked.send((request, respond, number)).await.is_err() {
            return;
        }
    }
}

fn respond(respond: &mut SendResponse<Bytes>) -> h2::SendStream<Bytes> {
    respond.send_response(Response::new(()), false).unwrap()
}

fn answer(mut to: SendResponse<Bytes>) {
    respond(&mut to).send_data(Bytes::from_static(b"{}"), true).unwrap();
}

#[tokio::test]
async fn exchanges_share_a_connection_up_to_what_the_provider_allows() {
    let (listener, address) = listen().await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(10);
    let mut requests = serve(listener, builder, usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    let first = send(&connector, &provider, true).await;
    answer(requests.recv().await.unwrap().1);
    finish(&connector, first).await;

    let mut exchanges = Vec::new();
    let mut on = [0; 3];
    for _ in 0..25 {
        exchanges.push(send(&connector, &provider, true).await);
        let (request, to, number) = requests.recv().await.unwrap();
        on[number] += 1;
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path(), "/v1/chat/completions");
        assert_eq!(request.uri().authority().unwrap().port_u16(), Some(address.port()));
        assert!(!request.headers().contains_key("host"));
        // Answered later, so that all of them are open at the same time.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            answer(to);
        });
    }
    // A new connection may be used beyond the limit until it has told its own.
    assert_eq!(on[0], 10, "{on:?}");
    assert_eq!(on.iter().sum::<usize>(), 25);
    for exchange in exchanges {
        finish(&connector, exchange).await;
    }
    // One that must be new is, although there is room.
    let fresh = send(&connector, &provider, false).await;
    let (_, to, number) = requests.recv().await.unwrap();
    answer(to);
    assert!(number >= 2);
    finish(&connector, fresh).await;
}

/// Sends so many bytes in frames of one size, as far as the other side takes them.
async fn pour(body: &mut h2::SendStream<Bytes>, bytes: usize, frame_bytes: usize) {
    let frame = Bytes::from(vec![b'x'; frame_bytes]);
    for _ in 0..bytes / frame_bytes {
        body.reserve_capacity(frame_bytes);
        while body.capacity() < frame_bytes {
            poll_fn(|context| body.poll_capacity(context)).await.unwrap().unwrap();
        }
        body.send_data(frame.clone(), false).unwrap();
    }
}

#[tokio::test]
async fn readers_that_stall_hold_back_nobody() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    // Every stream but one has a window full of small frames that nobody reads.
    let (mut stalled, mut pouring) = (Vec::new(), Vec::new());
    for _ in 0..99 {
        stalled.push(send(&connector, &provider, true).await);
        let (_, mut to, number) = requests.recv().await.unwrap();
        assert_eq!(number, 0);
        let mut body = respond(&mut to);
        pouring.push(tokio::spawn(async move {
            pour(&mut body, 128 * 1024, 64).await;
            body
        }));
    }
    let mut bodies = Vec::new();
    for poured in pouring {
        bodies.push(poured.await.unwrap());
    }
    let mut exchange = send(&connector, &provider, true).await;
    let (_, mut to, number) = requests.recv().await.unwrap();
    assert_eq!(number, 0);
    let mut body = respond(&mut to);
    assert_eq!(exchange.head().await.unwrap().status, 200);
    // Many times its window: it opens again as far as it is read.
    let bytes = 2 * 1024 * 1024;
    let poured = tokio::spawn(async move {
        pour(&mut body, bytes, 1024).await;
        body.send_data(Bytes::new(), true).unwrap();
    });
    let mut read = 0;
    while let Some(part) = exchange.read().await.unwrap() {
        read += part.len();
    }
    assert_eq!(read, bytes);
    assert!(exchange.is_done());
    poured.await.unwrap();
    for mut one in stalled {
        one.head().await.unwrap();
        assert!(one.read().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_was_not_begun_is_stale_and_what_was_is_not() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    for (reason, failure) in [
        (Reason::REFUSED_STREAM, Failure::Stale),
        (Reason::INTERNAL_ERROR, Failure::Reset),
        (Reason::CANCEL, Failure::Reset),
    ] {
        let mut sibling = send(&connector, &provider, true).await;
        let (_, to_sibling, _) = requests.recv().await.unwrap();
        let mut exchange = send(&connector, &provider, true).await;
        let (_, mut to, number) = requests.recv().await.unwrap();
        to.send_reset(reason);
        assert_eq!(exchange.head().await.map(drop), Err(failure), "{reason:?}");
        // The others on the connection go on.
        assert_eq!(number, 0);
        answer(to_sibling);
        sibling.head().await.unwrap();
        assert_eq!(sibling.read().await, Ok(Some(Bytes::from_static(b"{}"))));
        assert!(sibling.is_done());
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_an_answer_is_never_its_end() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    for (reason, early) in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR]
        .into_iter()
        .flat_map(|reason| [(reason, true), (reason, false)])
    {
        let mut exchange = send(&connector, &provider, true).await;
        let (_, mut to, _) = requests.recv().await.unwrap();
        let mut body = respond(&mut to);
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        exchange.head().await.unwrap();
        if early {
            body.send_reset(reason);
            // What comes behind it on the connection has come.
            let sibling = send(&connector, &provider, true).await;
            answer(requests.recv().await.unwrap().1);
            finish(&connector, sibling).await;
            let part = exchange.read().await;
            assert!(part == Ok(Some(Bytes::from_static(b"{"))) || part == Err(Failure::Cut));
        } else {
            assert_eq!(exchange.read().await, Ok(Some(Bytes::from_static(b"{"))));
            assert!(!exchange.is_done());
            body.send_reset(reason);
        }
        assert!(!exchange.is_done());
        assert_eq!(exchange.read().await, Err(Failure::Cut), "{reason:?} {early}");
        assert_eq!(exchange.read().await, Err(Failure::Cut));
        assert!(!exchange.is_done());
    }
}

#[tokio::test]
async fn a_connection_that_says_goodbye_ends_its_exchanges_and_takes_no_more() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), 2);
    let (connector, provider) = (Connector::new(), provider(address, true));
    let first = send(&connector, &provider, true).await;
    let (_, to_first, _) = requests.recv().await.unwrap();
    let second = send(&connector, &provider, true).await;
    let (_, to_second, number) = requests.recv().await.unwrap();
    assert_eq!(number, 0);
    // The goodbye arrives some time; nothing that is sent until then is lost without a word.
    let third = loop {
        let mut exchange = send(&connector, &provider, true).await;
        let (_, to, number) = tokio::select! {
            asked = requests.recv() => asked.unwrap(),
            head = exchange.head() => {
                assert_eq!(head.map(drop), Err(Failure::Stale));
                continue;
            }
        };
        answer(to);
        if number == 1 {
            break exchange;
        }
        finish(&connector, exchange).await;
    };
    finish(&connector, third).await;
    answer(to_first);
    answer(to_second);
    finish(&connector, first).await;
    finish(&connector, second).await;
}

#[tokio::test]
async fn an_exchange_that_is_dropped_is_cancelled_alone() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    let staying = send(&connector, &provider, true).await;
    let (_, to_staying, _) = requests.recv().await.unwrap();
    let leaving = send(&connector, &provider, true).await;
    let (_, mut to_leaving, _) = requests.recv().await.unwrap();
    drop(leaving);
    let reason = poll_fn(|context| to_leaving.poll_reset(context)).await;
    assert_eq!(reason.unwrap(), Reason::CANCEL);
    answer(to_staying);
    finish(&connector, staying).await;
    // Its place is free again, on the same connection.
    let next = send(&connector, &provider, true).await;
    let (_, to, number) = requests.recv().await.unwrap();
    assert_eq!(number, 0);
    answer(to);
    finish(&connector, next).await;
}

#[tokio::test]
async fn a_body_arrives_in_parts_and_ends() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    let connection = connector.connect(&provider, true, WITHIN).await.unwrap();
    let mut exchange = connection.begin(CHAT, Some(300_000)).await.unwrap();
    let upload = async {
        for _ in 0..3 {
            exchange.write(&Bytes::from(vec![b'a'; 100_000])).await;
        }
        exchange.finish().await;
        assert!(exchange.is_writable());
        exchange
    };
    let receive = async {
        let (request, to, _) = requests.recv().await.unwrap();
        assert_eq!(request.headers()["content-length"], "300000");
        let (mut body, mut bytes) = (request.into_body(), 0);
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            bytes += part.len();
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        answer(to);
        bytes
    };
    let (exchange, bytes) = tokio::join!(upload, receive);
    assert_eq!(bytes, 300_000);
    finish(&connector, exchange).await;
}

#[tokio::test]
async fn an_unpooled_connector_keeps_nothing() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::unpooled(), provider(address, true));
    for expected in 0..3 {
        let exchange = send(&connector, &provider, true).await;
        let (_, to, number) = requests.recv().await.unwrap();
        assert_eq!(number, expected);
        answer(to);
        finish(&connector, exchange).await;
    }
}

/// A provider at several addresses of 127.0.0.0/8, which can change.
fn provider_at_all(
    last_bytes: &Arc<Mutex<Vec<u8>>>,
    (port, http2): (u16, bool),
) -> (Resolver, Arc<Provider>) {
    let last_bytes = Arc::clone(last_bytes);
    let resolver = Resolver::new(Arc::new(move |_, port| {
        let all = last_bytes.lock().unwrap().clone();
        let all = all.into_iter().map(|last| SocketAddr::from(([127, 0, 0, last], port))).collect();
        Box::pin(std::future::ready(Ok(all)))
    }));
    resolver.allow(&Egress::new(vec![Network::parse("127.0.0.0/8").unwrap()]));
    let provider = provider_at(&resolver, ("provider.test", port), http2);
    (resolver, provider)
}

#[tokio::test]
async fn an_address_that_refuses_is_passed_over_and_remembered() {
    let (listener, address) = listen().await;
    let addresses = Arc::new(Mutex::new(vec![6, 5, 4, 3, 2, 1]));
    let (_, provider) = provider_at_all(&addresses, (address.port(), false));
    let connector = Connector::new();
    for _ in 0..2 {
        let connected = connector.connect(&provider, true, WITHIN).await;
        assert!(connected.is_ok());
        let (_, from) = listener.accept().await.unwrap();
        assert!(from.ip().is_loopback());
        assert_eq!(provider.host.addresses().await.unwrap().first(), 5);
    }
}

#[tokio::test]
async fn nobody_is_there_at_any_address() {
    let port = listen().await.1.port();
    let addresses = Arc::new(Mutex::new(vec![1, 2, 3, 4]));
    let (_, provider) = provider_at_all(&addresses, (port, false));
    let failed = Connector::new().connect(&provider, true, WITHIN).await;
    assert_eq!(failed.err(), Some(Failure::Connect));
}

/// An address that lets connections come and never takes one.
async fn black_hole(port: u16) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 9], port))).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let short = Duration::from_millis(100);
    while let Ok(stream) =
        tokio::time::timeout(short, TcpStream::connect(listener.local_addr().unwrap())).await
    {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn an_address_that_is_silent_costs_its_share_of_the_deadline() {
    let (_listener, address) = listen().await;
    let _hole = black_hole(address.port()).await;
    let addresses = Arc::new(Mutex::new(vec![9, 1]));
    let (_, provider) = provider_at_all(&addresses, (address.port(), false));
    let connector = Connector::new();
    let within = Duration::from_millis(600);
    assert!(connector.connect(&provider, true, within).await.is_ok());
    // The other one is tried first from then on.
    assert!(connector.connect(&provider, true, Duration::from_millis(200)).await.is_ok());
    *addresses.lock().unwrap() = vec![9];
    let (_, provider) = provider_at_all(&addresses, (address.port(), false));
    let failed = connector.connect(&provider, true, Duration::from_millis(50)).await;
    assert_eq!(failed.err(), Some(Failure::Connect));
}

#[tokio::test]
async fn an_idle_connection_to_any_address_is_used() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                loop {
                    read_request(&mut stream).await;
                    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    stream.write_all(whole).await.unwrap();
                }
            });
        }
    });
    let addresses = Arc::new(Mutex::new(vec![1, 2]));
    let (_, provider) = provider_at_all(&addresses, (address.port(), false));
    let connector = Connector::new();
    let first = send(&connector, &provider, true).await;
    finish(&connector, first).await;
    provider.host.addresses().await.unwrap().worked(1);
    let again = connector.connect(&provider, true, WITHIN).await.unwrap();
    assert!(matches!(again.wire, Unused::Http1(ref connection) if connection.reused));
}

#[tokio::test]
async fn a_connection_to_an_address_that_is_gone_takes_no_more() {
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let addresses = Arc::new(Mutex::new(vec![1]));
    let (_, provider) = provider_at_all(&addresses, (port, true));
    let connector = Connector::new();
    for (last, expected) in [(1, 0), (1, 0), (2, 1), (2, 1)] {
        *addresses.lock().unwrap() = vec![last];
        provider.host.ask_now().await;
        let exchange = send(&connector, &provider, true).await;
        let (_, to, number) = requests.recv().await.unwrap();
        assert_eq!(number, expected);
        answer(to);
        finish(&connector, exchange).await;
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_and_one_in_use_is_not() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let mut settings = settings(("127.0.0.1", address.port()), true);
    settings.deadlines.pool_idle = Duration::from_millis(200);
    let provider = Arc::new(Provider::new(settings, &Resolver::default()));
    let connector = Connector::new();
    let long = send(&connector, &provider, true).await;
    let (_, to_long, _) = requests.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    // It carries a long answer.
    let short = send(&connector, &provider, true).await;
    let (_, to, number) = requests.recv().await.unwrap();
    assert_eq!(number, 0);
    answer(to);
    finish(&connector, short).await;
    answer(to_long);
    finish(&connector, long).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let next = send(&connector, &provider, true).await;
    let (_, to, number) = requests.recv().await.unwrap();
    assert_eq!(number, 1);
    answer(to);
    finish(&connector, next).await;
}
