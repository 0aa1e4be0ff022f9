"""Where a body ends: lengths, codings, chunks."""

from http1_cases import BODY, LAST, chunk, chunked, get, post, refused, served, whole

AMBIGUOUS = "framing_ambiguous"
SIZE = len(BODY)
HALVES = chunk(BODY[:20]) + chunk(BODY[20:])
OLD = "POST /v1/chat/completions HTTP/1.0"
CASE = "Names of codings may be in any case, but nobody who means well writes another one."
REPEATED = "One length said twice is one too many: who reads only the last, or the first, is one change away."


def length(name, *values, **more):
    return refused(f"length-{name}", post(*(f"Content-Length: {value}" for value in values)), AMBIGUOUS, **more)


def coding(name, *fields, **more):
    return refused(f"coding-{name}", post(*fields, body=chunk() + LAST), AMBIGUOUS, **more)


def bad_chunk(name, body, *, line_end=False, **more):
    """A body that is none. Chunks are looked at before JSON."""
    stricter = "The standard has CRLF there; what is not agreed on is not guessed at." if line_end else None
    return refused(f"chunk-{name}", chunked(body), "bad_request", **({"stricter": stricter} | more))


CASES = [
    served("length", whole()),
    served("length-with-tabs", post(f"Content-Length:\t {SIZE} \t")),
    served("length-with-zeros", post(f"Content-Length: 000{SIZE}")),
    served("chunks", chunked(chunk() + LAST)),
    served("chunks-two", chunked(HALVES + LAST)),
    served("chunks-extension", chunked(chunk(size=b"%x;name=value" % SIZE) + LAST)),
    served("chunks-extension-quoted", chunked(chunk(size=b'%x;a="b c"' % SIZE) + b"0;x\r\n\r\n")),
    served("chunks-trailer", chunked(chunk() + b"0\r\nx-trailer: authorization\r\n\r\n")),
    served("chunks-size-in-capitals", chunked(chunk(size=b"%X" % SIZE) + LAST)),
    served("chunks-size-with-zeros", chunked(chunk(size=b"000%x" % SIZE) + LAST)),
    served("no-body", get(), reaches=False),
    served("old-version", whole(line=OLD), kept=False),
    served("old-version-kept", whole("Connection: keep-alive", line=OLD)),
    # A length and a coding, or two of either.
    refused("length-and-coding", chunked(chunk() + LAST, "Content-Length: 5"), AMBIGUOUS,
            stricter="RFC 9112 lets the coding win; whoever sends both has something to hide."),
    refused("coding-and-length", post("Content-Length: 5", "Transfer-Encoding: chunked", body=chunk() + LAST),
            AMBIGUOUS, stricter="As above: the order changes nothing."),
    length("twice", SIZE, SIZE, stricter=REPEATED),
    length("twice-and-other", SIZE, SIZE + 1),
    length("list", f"{SIZE}, {SIZE}", stricter=REPEATED),
    length("list-of-two", f"{SIZE}, {SIZE + 1}"),
    length("plus", f"+{SIZE}"),
    length("minus", f"-{SIZE}"),
    length("hexadecimal", f"0x{SIZE:x}"),
    length("float", f"{SIZE}.0"),
    length("exponent", "1e2"),
    length("words", "many"),
    length("spaced", "1 2"),
    length("empty", ""),
    length("quoted", f'"{SIZE}"'),
    length("of-64-bits", "18446744073709551616"),
    length("of-20-digits", "99999999999999999999"),
    length("comma-alone", f"{SIZE},"),
    # Codings that are not this one.
    coding("gzip-chunked", "Transfer-Encoding: gzip, chunked"),
    coding("identity-chunked", "Transfer-Encoding: identity, chunked"),
    coding("two-lines", "Transfer-Encoding: x", "Transfer-Encoding: chunked"),
    coding("two-lines-reversed", "Transfer-Encoding: chunked", "Transfer-Encoding: x"),
    coding("twice", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    coding("twice-in-a-list", "Transfer-Encoding: chunked, chunked"),
    coding("identity", "Transfer-Encoding: identity"),
    coding("gzip", "Transfer-Encoding: gzip"),
    coding("unknown", "Transfer-Encoding: x"),
    coding("not-the-last", "Transfer-Encoding: chunked, gzip"),
    coding("empty", "Transfer-Encoding:"),
    coding("quoted", 'Transfer-Encoding: "chunked"'),
    coding("with-parameter", "Transfer-Encoding: chunked;q=1"),
    coding("almost", "Transfer-Encoding: xchunked"),
    coding("comma", "Transfer-Encoding: ,chunked"),
    coding("in-capitals", "Transfer-Encoding: CHUNKED", stricter=CASE),
    coding("in-mixed-case", "Transfer-Encoding: Chunked", stricter=CASE),
    refused("coding-vertical-tab", post("Transfer-Encoding: \x0bchunked", body=chunk() + LAST), "head_malformed"),
    refused("coding-spaced-name", post("Transfer-Encoding : chunked", body=chunk() + LAST), "head_malformed"),
    refused("coding-folded", post("Transfer-Encoding:\r\n chunked", body=chunk() + LAST), "head_malformed",
            stricter="Folding is obsolete since 2014; a server may refuse it (RFC 9112, section 5.2)."),
    refused("coding-old-version", chunked(chunk() + LAST, line=OLD), AMBIGUOUS),
    # Chunks that are none.
    bad_chunk("extension-with-lf", b"%x;a\n" % SIZE + BODY + b"\r\n" + LAST, line_end=True),
    bad_chunk("extension-with-lf-alone", b"3;a\n", line_end=True),
    bad_chunk("extension-with-cr", chunk(size=b"%x;a\rb" % SIZE) + LAST, line_end=True),
    bad_chunk("extension-with-nul", chunk(size=b"%x;\0" % SIZE) + LAST, line_end=True),
    bad_chunk("extension-too-long", chunk(size=b"%x;%s" % (SIZE, b"a" * 1100)) + LAST,
              stricter="Nobody uses extensions; 1 KiB of them is more than enough."),
    bad_chunk("size-with-lf", chunk(end=b"\n") + LAST, line_end=True),
    bad_chunk("size-with-space", chunk(size=b"%x " % SIZE) + LAST, line_end=True),
    bad_chunk("size-after-space", chunk(size=b" %x" % SIZE) + LAST),
    bad_chunk("size-with-0x", chunk(size=b"0x%x" % SIZE) + LAST),
    bad_chunk("size-with-plus", chunk(size=b"+%x" % SIZE) + LAST),
    bad_chunk("size-with-minus", chunk(size=b"-%x" % SIZE) + LAST),
    bad_chunk("size-empty", chunk(size=b"") + LAST),
    bad_chunk("size-of-words", chunk(size=b"xyz") + LAST),
    bad_chunk("size-of-64-bits", chunk(size=b"ffffffffffffffff") + LAST),
    bad_chunk("size-over-64-bits", chunk(size=b"10000000000000001") + LAST),
    bad_chunk("data-too-long", b"4\r\n" + BODY + b"\r\n" + LAST),
    bad_chunk("data-ends-with-lf", b"%x\r\n%s\n" % (SIZE, BODY) + LAST, line_end=True),
    bad_chunk("data-without-end", b"%x\r\n%s" % (SIZE, BODY) + LAST),
    bad_chunk("last-with-lf", chunk() + b"0\n\n", line_end=True),
    bad_chunk("last-with-one-lf", chunk() + b"0\r\n\n", line_end=True),
    bad_chunk("trailer-with-lf", chunk() + b"0\r\nx: y\n\r\n", line_end=True),
    bad_chunk("trailer-with-nul", chunk() + b"0\r\nx: \0\r\n\r\n", line_end=True),
]
