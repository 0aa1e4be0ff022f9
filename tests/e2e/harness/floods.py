"""Floods of HTTP/2: what is sent, and the code that the connection ends with. h2 bounds some of them; the rest is bounded by
what a client may ask for beside its requests."""

import json

import hpack

from harness.frames import continuation, data, header, ping, priority, reset, settings, window, wire
from harness.gateway import chat

# Codes of RFC 9113, section 7.
PROTOCOL, CALM = 1, 11
# Frames of each: far more than a client is allowed, and little enough to send in a second.
MANY = 100_000
BODY = json.dumps(chat("box/echo")).encode()


def bearer(gateway):
    return "authorization", f"Bearer {gateway.key}"


def rapid_reset(connection, gateway):
    head = connection.head(bearer(gateway))
    return b"".join(wire(connection.open(stream, head), data(stream, BODY, True), reset(stream)) for stream in range(1, 20_000, 2))


def reset_at_once(connection, gateway):
    head = connection.head(bearer(gateway))
    return b"".join(wire(connection.open(stream, head), reset(stream)) for stream in range(1, 20_000, 2))


def made_you_reset(*more):
    """Has the server reset streams: what breaks the rules comes behind a request that lacks its end."""

    def make(connection, gateway):
        head = connection.head(bearer(gateway))
        return b"".join(wire(connection.open(stream, head), data(stream, BODY[:-1]), *(part(stream) for part in more))
                        for stream in range(1, 20_000, 2))

    return make


def opened(*rest):
    """A stream, and what follows."""

    def make(connection, gateway):
        return wire(connection.open(1, connection.head(bearer(gateway))), *rest)

    return make


def unfinished(block, count):
    """A head that does not end."""

    def make(connection, gateway):
        return wire(connection.open(1, connection.head(bearer(gateway)), whole=False)) + wire(continuation(1, block)) * count

    return make


BIG_FIELD = hpack.Encoder().encode([("x-a", "b" * 10_000)], huffman=False)
FLOODS = {
    "rapid-reset": (rapid_reset, CALM),
    "reset-at-once": (reset_at_once, CALM),
    "made-you-reset-window-zero": (made_you_reset(lambda stream: window(stream, 0)), PROTOCOL),
    "made-you-reset-window-overflow": (made_you_reset(lambda stream: window(stream, 0x7FFFFFFF)), CALM),
    "made-you-reset-own-dependency": (made_you_reset(lambda stream: priority(stream, stream)), CALM),
    "made-you-reset-trailers-open": (made_you_reset(lambda stream: header(1, 1, 4, stream) + b"\x82"), CALM),
    "made-you-reset-data-after-end": (made_you_reset(lambda stream: data(stream, b"}", True), lambda stream: data(stream, b"x")), PROTOCOL),
    "continuation-empty": (unfinished(b"", MANY), CALM),
    "continuation-fields": (unfinished(BIG_FIELD, 200), CALM),
    "ping": (lambda *_: wire(ping()) * MANY, CALM),
    "settings": (lambda *_: wire(settings(initial_window_size=1_000), settings(initial_window_size=65_535)) * (MANY // 2), CALM),
    "settings-empty": (lambda *_: wire(settings()) * MANY, CALM),
    "settings-acknowledged-again": (lambda *_: header(0, 4, 1, 0) * MANY, PROTOCOL),
    "priority": (lambda *_: wire(priority(3, 1)) * MANY, CALM),
    "window-update": (lambda *_: window(0, 1) * MANY, CALM),
    "window-update-stream": (opened(window(1, 1) * MANY), CALM),
    "unknown-frames": (lambda *_: (header(8, 0xBB, 0, 0) + bytes(8)) * MANY, CALM),
    "data-empty": (opened(wire(data(1)) * MANY), CALM),
    "data-padding": (opened((header(9, 0, 8, 1) + b"\x08" + bytes(8)) * MANY), CALM),
    "data-crumbs": (opened(wire(data(1, b" ")) * MANY), CALM),
    "reset-again": (opened(wire(reset(1)) * MANY), CALM),
}
