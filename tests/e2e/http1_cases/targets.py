"""Where a request goes: forms of targets, paths that can be read in two ways, methods."""

from http1_cases import CHAT, get, refused, served, text, whole

TARGET = "target_invalid"
NORMALISED = "A proxy in front may tidy it up and pass on something else; we take one spelling of each path."
UNREAD = "Nobody reads our queries, but a byte that must not stand in one has no business there."


def odd(name, target, **more):
    """A target that is not taken, for a request that would be fine otherwise."""
    return refused(f"target-{name}", get(target), TARGET, **more)


def path(name, target, **more):
    return odd(name, target, **({"stricter": NORMALISED} | more))


def nowhere(name, target):
    """A plain path that leads nowhere."""
    return refused(f"nowhere-{name}", get(target), "path_not_found", 404, kept=True, stricter="There is nothing.")


def method(name, target=CHAT):
    # A body that was not read ends its connection.
    kept = target != CHAT
    data = get(target, method=name) if kept else whole(line=f"{name} {target} HTTP/1.1")
    return refused(f"method-{name}-of-{target.rsplit('/', 1)[-1]}", data, "method_not_allowed", 405, kept=kept,
                   stricter="Each path has one method.")


CASES = [
    served("list", get(), reaches=False),
    served("list-with-query", get("/v1/models?limit=20&after=a%2Fb"), reaches=False),
    served("call-with-query", whole(line=f"POST {CHAT}?api-version=2026-01-01 HTTP/1.1")),
    served("model", get("/v1/models/box/echo"), reaches=False),
    served("model-encoded", get("/v1/models/box%2Fecho"), reaches=False),
    served("model-encoded-in-small-letters", get("/v1/models/box%2fecho"), reaches=False),
    served("model-encoded-letters", get("/v1/models/%62ox%2Fech%6F"), reaches=False),
    # Forms that are for proxies, tunnels and servers.
    odd("absolute", "http://gateway/v1/models", stricter="This is no forward proxy."),
    refused("target-absolute-of-another", get("http://other/v1/models"), "host_invalid"),
    odd("absolute-of-https", "https://gateway/v1/models", stricter="This is no forward proxy."),
    odd("absolute-of-a-user", "http://a@gateway/v1/models"),
    odd("asterisk", "*"),
    odd("authority", "gateway:80"),
    odd("without-slash", "v1/models"),
    odd("query-alone", "?x"),
    odd("empty-query-alone", "?"),
    odd("of-two-slashes", "//gateway/v1/models", stricter=NORMALISED),
    refused("connect", text("CONNECT gateway:80 HTTP/1.1", "Host: gateway:80"), TARGET),
    refused("options-of-all", get("*", method="OPTIONS"), TARGET, stricter="There is nothing to tell of the server."),
    refused("post-of-all", whole(line="POST * HTTP/1.1"), TARGET),
    # Dot segments, in any spelling.
    path("up", "/v1/../admin"),
    path("up-into-itself", "/v1/x/../models"),
    path("up-over-the-root", "/../v1/models"),
    path("up-at-the-end", "/v1/models/.."),
    path("here", "/v1/./models"),
    path("here-at-the-end", "/v1/models/."),
    path("up-encoded", "/v1/%2e%2e/admin"),
    path("up-encoded-in-capitals", "/v1/%2E%2E/admin"),
    path("up-half-encoded", "/v1/.%2e/admin"),
    path("up-encoded-twice", "/v1/%252e%252e/admin"),
    path("up-with-encoded-slash", "/v1/..%2fadmin"),
    path("up-with-parameter", "/v1/..;/admin"),
    path("up-with-backslash", "/v1/..\\admin"),
    path("up-in-a-model", "/v1/models/box/../echo"),
    path("up-in-an-encoded-model", "/v1/models/box%2f..%2fecho"),
    # Slashes, and what is taken for one.
    path("double-slash", "//v1/models"),
    path("double-slash-inside", "/v1//models"),
    path("double-slash-in-a-model", "/v1/models/box//echo"),
    path("double-slash-encoded", "/v1/models/box%2F%2Fecho"),
    path("slash-encoded", "/v1%2Fmodels"),
    path("slash-encoded-in-small-letters", "/v1%2fmodels"),
    path("slash-encoded-first", "/%2fv1/models"),
    path("backslash", "/v1\\models"),
    path("backslash-encoded", "/v1%5Cmodels"),
    path("semicolon", "/v1/models;x=y"),
    path("semicolon-encoded", "/v1/models%3Bx"),
    path("model-of-nothing", "/v1/models/"),
    # Bytes that have no place in a path.
    path("nul-encoded", "/v1/models%00"),
    path("newline-encoded", "/v1/models%0d%0ax:%20y"),
    path("space-encoded", "/v1/models%20"),
    path("delete-encoded", "/v1/models%7f"),
    path("percent-alone", "/v1/models%"),
    path("percent-and-words", "/v1/models%zz"),
    path("percent-encoded", "/v1/models%25"),
    path("not-utf-8", "/v1/models/%ff"),
    path("umlaut", "/v1/models/\xc3\xa4"),
    refused("target-not-utf-8-at-all", get("/v1/models/\xe4"), "head_malformed", stricter=NORMALISED),
    path("quote", '/v1/models"', piecewise="head_malformed"),
    refused("target-angles", get("/v1/models/<x>"), "head_malformed", stricter=NORMALISED),
    path("brace", "/v1/{models}"),
    path("caret", "/v1/mod^els"),
    odd("space", "/v1/models /x", piecewise="head_malformed"),
    odd("space-in-the-query", "/v1/models?a b", piecewise="head_malformed"),
    odd("space-at-the-end", "/v1/models ", piecewise="head_malformed", stricter="One space, it says there."),
    odd("space-encoded-in-the-query", "/v1/models?a%20b", stricter=UNREAD),
    odd("nul-encoded-in-the-query", "/v1/models?a=%00", stricter=UNREAD),
    odd("fragment", "/v1/models#x", stricter="A fragment never leaves its client."),
    odd("fragment-in-the-query", "/v1/models?x#y", stricter="A fragment never leaves its client."),
    odd("tab", "/v1/models\t", piecewise="head_malformed"),
    odd("nul", "/v1/mod\0els", piecewise="head_malformed"),
    refused("target-missing", text("GET HTTP/1.1", "Host: gateway"), "head_malformed"),
    refused("target-too-long", get("/v1/models/" + "m" * 9_000), "target_too_long", 414, kept=True,
            stricter="8 KiB are more than any name of a model."),
    # Paths that are somebody else's.
    nowhere("root", "/"),
    nowhere("version", "/v1"),
    nowhere("version-and-slash", "/v1/"),
    nowhere("call-and-slash", "/v1/chat/completions/"),
    nowhere("in-capitals", "/V1/models"),
    nowhere("encoded-letter", "/v1/%6dodels"),
    nowhere("health", "/healthz"),
    nowhere("readiness", "/readyz"),
    nowhere("metrics", "/metrics"),
    nowhere("metrics-and-query", "/metrics?x=/v1/models"),
    nowhere("admin", "/admin/targets"),
    nowhere("admin-and-version", "/v1/admin/targets"),
    path("admin-up", "/v1/models/../../admin/targets"),
    path("admin-double-slash", "//admin/targets"),
    path("metrics-encoded", "/%2e/metrics"),
    path("metrics-of-a-model", "/v1/models/..%2f..%2fmetrics"),
    refused("target-metrics-absolute", get("http://127.0.0.1:9901/metrics"), "host_invalid"),
    # Methods.
    *(method(name) for name in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "post", "Post")),
    *(method(name, "/v1/models") for name in ("POST", "HEAD", "DELETE", "PRI", "get", "M-SEARCH")),
    refused("method-of-odd-bytes", get(method="G@T"), "head_malformed"),
    refused("method-missing", b" /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n", "head_malformed"),
]
