"""A server that answers what a test has written down, and remembers what it was asked."""

import http.server
import json
import threading
import urllib.parse


class Answer:
    """A status and a body; JSON unless `content_type` says otherwise."""

    def __init__(self, status=200, body=None, content_type="application/json", fields=()):
        self.status, self.fields = status, dict(fields)
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        self.body = body.encode() if isinstance(body, str) else body
        self.fields.setdefault("content-type", content_type)


def refusal(status, reason, message="no, and here is what to do", kind="some_error", param=None):
    """An error as the management API answers it."""
    error = {"message": message, "type": kind, "code": status, "param": param}
    return Answer(status, {"error": error | {"metadata": {"reason": reason}}})


class Seen:
    """A request that arrived."""

    def __init__(self, method, path, fields, body):
        self.method, self.path, self.fields, self.body = method, path, fields, body

    @property
    def bearer(self):
        return (self.fields.get("authorization") or "").removeprefix("Bearer ")

    def json(self):
        return json.loads(self.body)

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), strict_parsing=True))


class Scripted:
    """A running server. `answers` maps a method and a path to an answer, to a list of answers of which the last one
    stays, or to a function of the request."""

    def __init__(self, answers=None):
        self.answers, self.seen = answers or {}, []
        self._lock = threading.Lock()
        self._held = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _serve(self):
                length = int(self.headers.get("content-length") or 0)
                seen = Seen(self.command, self.path, self.headers, self.rfile.read(length))
                answer = owner._answer(seen)
                if answer is None:
                    # Says nothing until the test is over.
                    owner._held.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.fields.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _serve

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _answer(self, seen):
        with self._lock:
            self.seen.append(seen)
            answer = self.answers.get(f"{seen.method} {seen.path}", refusal(404, "not_found"))
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            return answer(seen) if callable(answer) else answer

    def asked(self, what):
        """The requests with this method and path."""
        with self._lock:
            return [seen for seen in self.seen if f"{seen.method} {seen.path}" == what]

    def stop(self):
        self._held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def hang(_seen):
    """Never answers."""
    return None
