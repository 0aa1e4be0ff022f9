"""A gateway's management API and its issuer, scripted: the contract's shapes, exactly."""

from harness.scripted import Answer

KEY = "sk-tr-0123456789abcdefghijABCDEFGHIJ0123456789abcdefABC"
KEY_ID = "key_01ARZ3NDEKTSV4RRFFQ69G5FAV"

BALANCE = {"balance_usd": "5.00", "currency": "USD"}
ME = {
    "id": "user_01ARZ3NDEKTSV4RRFFQ69G5FAV", "display_name": "Ada", "email": "ada@example.com",
    "logto_sub": "ada-sub", "balance_usd": "5.00", "status": "active", "role": "user",
}
LISTED = {
    "id": KEY_ID, "name": "ci", "key_prefix": "sk-tr-0123", "status": "active", "balance_usd": "5.00",
    "ceiling_usd": None, "created_at": "2026-11-21T20:00:00Z", "expires_at": None, "models": None,
    "providers": None, "limits": {},
}
CREATED = LISTED | {"raw": KEY}
USAGE = {
    "range_days": 7, "total_requests": 3, "total_tokens_in": 120, "total_tokens_out": 45,
    "total_cost_usd": "0.18",
}
MODELS = [
    {
        "id": "openai/gpt-4o-mini", "context_tokens": 128_000, "output_tokens_max": 16_384,
        "pricing": {"input": "0.15", "input_cache_read": "0.075", "output": "0.60"},
    },
    {"id": "acme/free", "context_tokens": None, "output_tokens_max": None, "pricing": None},
]
TOPUP = {
    "checkout_url": "https://pay.example.com/c/cs_1", "session_id": "cs_1", "amount_usd": "5",
    "expires_at": 4_102_444_800,
}
CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}],
}
STREAM = 'data: {"id":"1","choices":[{"index":0,"delta":{"content":"OK"}}]}\n\ndata: [DONE]\n\n'


def tokens(name="first", expires_in=3600):
    return {
        "access_token": f"access-{name}", "refresh_token": f"refresh-{name}", "token_type": "Bearer",
        "expires_in": expires_in, "scope": "openid offline_access",
    }


def discovery(url):
    return {
        "issuer": url, "client_id": "tokenroute-cli", "device_authorization_endpoint": f"{url}/device",
        "token_endpoint": f"{url}/token", "scopes": "openid offline_access", "resource": "https://api.example.com",
        "inference_base_url": f"{url}/v1",
    }


def device(url, expires_in=60, interval=1):
    return {
        "device_code": "device-code", "user_code": "WDJB-MJHT", "verification_uri": f"{url}/activate",
        "verification_uri_complete": f"{url}/activate?user_code=WDJB-MJHT",
        "expires_in": expires_in, "interval": interval,
    }


def chat(seen):
    """One answer, or one stream."""
    if seen.json().get("stream"):
        return Answer(200, STREAM, content_type="text/event-stream; charset=utf-8")
    return Answer(200, CHAT)


def answers(url):
    """All that a gateway answers when all is well."""
    return {
        "GET /api/v1/auth/discovery": Answer(200, discovery(url)),
        "POST /device": Answer(200, device(url)),
        "POST /token": Answer(200, tokens()),
        "GET /api/v1/me": Answer(200, ME),
        "GET /api/v1/balance": Answer(200, BALANCE),
        "GET /api/v1/usage?days=7": Answer(200, USAGE),
        "GET /api/v1/usage?days=30": Answer(200, USAGE | {"range_days": 30}),
        "GET /api/v1/models": Answer(200, {"data": MODELS}),
        "POST /api/v1/topup": Answer(200, TOPUP),
        "GET /api/v1/me/keys": Answer(200, {"data": [LISTED], "next_cursor": None}),
        "POST /api/v1/me/keys": Answer(201, CREATED),
        f"DELETE /api/v1/me/keys/{KEY_ID}": Answer(200, LISTED | {"status": "revoked"}),
        f"POST /api/v1/me/keys/{KEY_ID}/rotate": Answer(201, CREATED),
        "GET /v1/models": Answer(200, {"object": "list", "data": [{"id": one["id"]} for one in MODELS]}),
        "POST /v1/chat/completions": chat,
    }
