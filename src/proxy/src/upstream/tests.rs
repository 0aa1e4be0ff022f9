//! Connections against real sockets: what is kept, shared, given up, and what it is called.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Connector, Exchange};
use crate::resolve::Resolver;
use crate::snapshot::{Deadlines, OnDisconnect, Provider, ProviderSettings};

const WITHIN: Duration = Duration::from_secs(5);
const CHAT: Endpoint = Endpoint::ChatCompletions;

fn provider_at(resolver: &Resolver, (host, port): (&str, u16), http2: bool) -> Arc<Provider> {
    let long = Duration::from_secs(60);
    let deadlines = Deadlines {
        connect: WITHIN,
        head: long,
        first_token: long,
        stall: long,
        total: long,
        drain: long,
        pool_idle: long,
    };
    let settings = ProviderSettings {
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
        probe: None,
    };
    Arc::new(Provider::new(settings, resolver))
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

#[tokio::test]
async fn a_reader_that_stalls_holds_back_nobody() {
    let (listener, address) = listen().await;
    let mut requests = serve(listener, h2::server::Builder::new(), usize::MAX);
    let (connector, provider) = (Connector::new(), provider(address, true));
    // Every stream but one has a reader that does not read, and a provider that sends small frames.
    let mut stalled = Vec::new();
    for _ in 0..99 {
        stalled.push(send(&connector, &provider, true).await);
        let (_, mut to, number) = requests.recv().await.unwrap();
        assert_eq!(number, 0);
        let mut body = respond(&mut to);
        let (full, mut filled) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            let event = Bytes::from(vec![b'x'; 64]);
            loop {
                body.reserve_capacity(event.len());
                while body.capacity() < event.len() {
                    let more = poll_fn(|context| body.poll_capacity(context));
                    if tokio::time::timeout(Duration::from_millis(50), more).await.is_err() {
                        drop(full.clone());
                        return full.send(()).await.map(|()| std::future::pending::<()>());
                    }
                }
                body.send_data(event.clone(), false).unwrap();
            }
        });
        stalled.last_mut().unwrap().head().await.unwrap();
        if stalled.len() % 33 == 0 {
            filled.recv().await.unwrap();
        }
    }
    let mut exchange = send(&connector, &provider, true).await;
    let (_, mut to, number) = requests.recv().await.unwrap();
    assert_eq!(number, 0);
    let mut body = respond(&mut to);
    assert_eq!(exchange.head().await.unwrap().status, 200);
    // Many times its window: it opens again as far as it is read.
    for _ in 0..64 {
        let part = Bytes::from(vec![b'y'; 32 * 1024]);
        let mut left = part.len();
        body.reserve_capacity(left);
        while body.capacity() < left {
            poll_fn(|context| body.poll_capacity(context)).await.unwrap().unwrap();
        }
        body.send_data(part, false).unwrap();
        while left > 0 {
            left -= exchange.read().await.unwrap().unwrap().len();
        }
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(exchange.read().await, Ok(None));
    assert!(exchange.is_done());
    for mut one in stalled {
        assert!(one.read().await.is_ok());
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
    let mut exchange = send(&connector, &provider, true).await;
    let (_, mut to, _) = requests.recv().await.unwrap();
    let mut body = respond(&mut to);
    body.send_data(Bytes::from_static(b"{"), false).unwrap();
    exchange.head().await.unwrap();
    assert_eq!(exchange.read().await, Ok(Some(Bytes::from_static(b"{"))));
    body.send_reset(Reason::NO_ERROR);
    assert_eq!(exchange.read().await, Err(Failure::Cut));
    assert!(!exchange.is_done());
    assert_eq!(exchange.read().await, Err(Failure::Cut));
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
