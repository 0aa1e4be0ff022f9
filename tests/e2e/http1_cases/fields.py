"""What else a head says: lines, hosts, versions, upgrades, expectations, and fields that are for others."""

from http1_cases import BODY, KEY, get, post, refused, served, text, whole

HOST = "host_invalid"
MALFORMED = "head_malformed"
BARE = "RFC 9112 lets a server take LF for CRLF; two readers that differ in it see two different requests."
NAMES = "A host is a name or an address. What looks like a piece of a URL has fooled routers before."
AUTH = f"Authorization: Bearer {KEY.decode()}"


def host(name, *lines, **more):
    return refused(f"host-{name}", text("GET /v1/models HTTP/1.1", AUTH, *lines), HOST, **more)


def odd_host(name, value, **more):
    return host(name, f"Host: {value}", **({"stricter": NAMES} | more))


def line(name, data, **more):
    return refused(f"line-{name}", data, MALFORMED, **more)


CASES = [
    # Hosts.
    served("host-with-port", get(host="Host: gateway:8080"), reaches=False),
    served("host-of-version-4", get(host="Host: 127.0.0.1"), reaches=False),
    served("host-of-version-6", get(host="Host: [::1]:8080"), reaches=False),
    served("host-of-a-container", get(host="Host: my_edge:8080"), reaches=False),
    served("host-in-capitals", get(host="HOST: GATEWAY"), reaches=False),
    host("missing"),
    host("empty", "Host:"),
    host("twice", "Host: a", "Host: b"),
    host("twice-the-same", "Host: a", "Host: a"),
    host("missing-in-the-old-version", stricter=None),
    odd_host("and-query", "gateway/?x="),
    odd_host("and-path", "gateway/v1/models"),
    odd_host("and-fragment", "gateway#"),
    odd_host("and-question", "gateway?"),
    odd_host("of-a-user", "admin@gateway"),
    odd_host("with-space", "gate way"),
    odd_host("with-comma", "gateway, other"),
    odd_host("with-backslash", "gateway\\x"),
    odd_host("with-percent", "gateway%2f"),
    odd_host("with-umlaut", "gatew\xe4y"),
    odd_host("with-semicolon", "gateway;x"),
    odd_host("with-quote", '"gateway"'),
    odd_host("with-tab", "gate\tway"),
    # Lines.
    line("all-with-lf", whole().replace(b"\r\n", b"\n"), stricter=BARE),
    line("first-with-lf", get().replace(b"1.1\r\n", b"1.1\n"), stricter=BARE),
    line("field-with-lf", get("/v1/models", "x: y").replace(b"x: y\r\n", b"x: y\n"), stricter=BARE),
    line("last-with-lf", get()[:-2] + b"\n", stricter=BARE),
    line("cr-alone", get("/v1/models", "x: y\rz")),
    line("cr-twice", get("/v1/models", "x: y\r")),
    line("folded", get("/v1/models", "x: y\r\n z"), stricter="Obsolete; a server may refuse it (RFC 9112, 5.2)."),
    line("folded-with-tab", get("/v1/models", "x: y\r\n\tz"), stricter="Obsolete, as above."),
    line("folded-first", b"GET /v1/models HTTP/1.1\r\n x: y\r\nHost: gateway\r\n\r\n"),
    line("space-before-colon", get("/v1/models", "x : y")),
    line("tab-before-colon", get("/v1/models", "x\t: y")),
    line("space-in-a-name", get("/v1/models", "x y: z")),
    line("without-colon", get("/v1/models", "x")),
    line("without-name", get("/v1/models", ": y")),
    line("umlaut-in-a-name", get("/v1/models", "\xe4: y")),
    line("nul-in-a-name", get("/v1/models", "x\0: y")),
    line("nul-in-a-value", get("/v1/models", "x: y\0z")),
    line("bell-in-a-value", get("/v1/models", "x: \x07"), stricter="A control byte has no meaning in a value."),
    line("delete-in-a-value", get("/v1/models", "x: \x7f"), stricter="A control byte has no meaning in a value."),
    line("parentheses-in-a-name", get("/v1/models", "x(y): z")),
    served("line-empty-before", b"\r\n" + get(), reaches=False),
    line("two-empty-before", b"\r\n\r\n" + get(), stricter="One empty line is overlooked, as asked for; not two."),
    line("lf-before", b"\n" + get(), stricter=BARE),
    served("line-with-umlaut", get("/v1/models", "x: \xe4"), reaches=False),
    served("line-without-value", get("/v1/models", "x:"), reaches=False),
    # Versions.
    line("version-missing", text("GET /v1/models", "Host: gateway")),
    line("version-0.9", b"GET /v1/models\r\n"),
    line("version-2.0", get(version="HTTP/2.0")),
    line("version-1.2", get(version="HTTP/1.2"), stricter="There is no HTTP/1.2."),
    line("version-in-small-letters", get(version="http/1.1")),
    line("version-of-another", get(version="ICAP/1.0")),
    line("version-and-more", get(version="HTTP/1.1 x")),
    refused("version-after-two-spaces", get(version=" HTTP/1.1"), "target_invalid", stricter="One space, it says there.",
            piecewise=MALFORMED),
    line("http-2-unasked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    line("tls", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\r\n\r\n"),
    line("response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    # Sizes.
    refused("fields-too-many", get("/v1/models", *(f"x-{number}: y" for number in range(110))), "head_too_large", 431,
            kept=True, stricter="100 are enough."),
    refused("fields-far-too-many", get("/v1/models", *(f"x-{number}: y" for number in range(300))), "head_too_large",
            431, stricter="100 are enough."),
    refused("fields-too-long", get("/v1/models", "x: " + "y" * 66_000), "head_too_large", 431, kept=True),
    # What would change what the connection is.
    served("upgrade-to-websocket", get("/v1/models", "Connection: Upgrade", "Upgrade: websocket"), reaches=False),
    served("upgrade-to-http-2", whole("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA")),
    served("upgrade-to-tls", whole("Connection: Upgrade", "Upgrade: TLS/1.2")),
    served("expect", whole("Expect: 100-continue")),
    served("expect-in-capitals", whole("Expect: 100-CONTINUE")),
    refused("expect-other", whole("Expect: 200-ok"), "expectation_failed", 417,
            stricter="What nobody does is better said at once (RFC 9110, section 10.1.1)."),
    served("connection-close", get("/v1/models", "Connection: close"), kept=False, reaches=False),
    # Fields that are nominated, doubled or almost those that count.
    served("nominated", whole("Connection: authorization, host, content-length, x-request-id")),
    served("nominated-often", whole("Connection: " + ", ".join(f"x-{number}" for number in range(30)))),
    served("almost-a-length", whole("Content_Length: 5", "X-Content-Length: 5")),
    served("almost-a-coding", whole("Transfer_Encoding: chunked", "TE: trailers, chunked")),
    served("almost-a-key", whole("x_api_key: other", "x-api-key: other", "api-key: other")),
    served("forwarded", whole("X-Forwarded-Host: other", "X-Original-URL: /admin", "X-HTTP-Method-Override: DELETE")),
    refused("key-twice", whole("Authorization: Bearer other"), "key_ambiguous",
            stricter="Which of two keys pays is not for us to guess."),
    refused("key-missing", text("GET /v1/models HTTP/1.1", "Host: gateway"), "key_missing", 401, kept=True,
            stricter="They ask for none."),
    refused("key-of-another-scheme", text("GET /v1/models HTTP/1.1", "Host: gateway", "Authorization: Basic eDp5"),
            "key_unknown", 401, kept=True, stricter="They ask for none."),
    refused("compressed", whole("Content-Encoding: gzip"), "unsupported_media", 415, kept=False,
            stricter="What is compressed is not scanned."),
    # Two requests in one piece: the second is not served, and does no harm.
    served("pipelined", whole() + get(), kept=False),
    served("length-too-short-by-a-request", post(f"Content-Length: {len(BODY)}", body=BODY + whole()), kept=False),
]
