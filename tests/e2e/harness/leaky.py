"""A provider that gives away whatever it was told: keys in errors, its customer's identity, the request in the answer."""

import contextlib
import http.server
import json
import socketserver
import threading


def event(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def sse(*payloads):
    return b"".join(b"data: %s\n\n" % (one if isinstance(one, bytes) else json.dumps(one).encode()) for one in payloads)


class Handler(http.server.BaseHTTPRequestHandler):
    """What the path begins with says how it fails."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.leaky.requests.append((self.path, str(self.headers), body))
        self.way = self.path.split("/")[1]
        # Whoever broke off is no matter of ours.
        with contextlib.suppress(OSError):
            self.answer(body)

    def answer(self, body):
        leaky, credential = self.server.leaky, self.headers.get("authorization", "")
        secret = f"Incorrect API key provided: {credential.removeprefix('Bearer ')}. Yours was {credential}"
        error = {"error": {"message": secret, "type": "invalid_request_error", "code": "invalid_api_key", "param": credential}}
        said = [event({"role": "assistant", "content": ""}), event({"content": leaky.said})]
        if self.way.startswith("status-"):
            status = int(self.way.removeprefix("status-"))
            return self.send(status, json.dumps(error).encode())
        if self.way.startswith("redirect-"):
            return self.send(int(self.way.removeprefix("redirect-")), b"", location=leaky.elsewhere)
        table = {
            "text-error": (500, f"panic: {secret} {body!r}".encode(), "text/plain"),
            "error-in-200": (200, json.dumps(error).encode(), "application/json"),
            "malformed": (200, b"<html>" + secret.encode() + body, "text/html"),
            "half-json": (200, b'{"choices":[{"message":{"content":"' + leaky.said.encode(), "application/json"),
            "error-event": (200, sse(*said, error), "text/event-stream"),
            "error-event-first": (200, sse(error), "text/event-stream"),
            "garbage": (200, sse(*said, secret.encode()), "text/event-stream"),
            "broken-off": (200, sse(*said), "text/event-stream"),
            "stream": (200, sse(*said, event({}, "stop"), b"[DONE]"), "text/event-stream"),
            "whole": (200, json.dumps(
                {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": leaky.said}, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode(), "application/json"),
        }
        status, text, kind = table[self.way]
        self.send(status, text, kind)

    def send(self, status, text, kind="application/json", location=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.send_header("openai-organization", self.server.leaky.organisation)
        self.send_header("set-cookie", f"session={self.server.leaky.organisation}")
        self.send_header("x-request-id", self.server.leaky.organisation)
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(text)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class Leaky:
    """A running one. It says `said`, and is `organisation`'s."""

    def __init__(self, said, organisation, elsewhere=None):
        self.said, self.organisation, self.elsewhere = said, organisation, elsewhere
        self.requests = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.leaky = self
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def base_url(self, way):
        return f"http://127.0.0.1:{self.server.server_port}/{way}/v1"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)
