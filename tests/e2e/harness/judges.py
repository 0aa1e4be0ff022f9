"""nginx and HAProxy from Debian as reverse proxies in front of the provider: what they make of a request."""

from harness import ports, programs, raw
from harness.process import Process
from harness.waiting import until

# What only an answer from behind a judge carries.
PASSED = "x-passed"
# How long a judge waits for the rest of a request, and we for its answer.
JUDGE_SECONDS, ANSWER_SECONDS = 1, 4

NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_header_timeout {seconds}s;
    client_body_timeout {seconds}s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{provider};
            proxy_http_version 1.1;
            # Empty, and so not sent, for what nginx says itself.
            add_header {passed} $upstream_status always;
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client {seconds}s
    timeout http-request {seconds}s
    timeout server 10s
frontend clients
    bind 127.0.0.1:{port}
    default_backend provider
backend provider
    # For what comes from a server alone, and not for what HAProxy says itself.
    http-response set-header {passed} yes
    server box 127.0.0.1:{provider}
"""


def last_head(connection):
    """The head of the answer, after those that only announce it."""
    answer = connection.read_head()
    while answer.status < 200:
        answer = connection.read_head()
    return answer


class Judge:
    """One of them, running."""

    def __init__(self, name, folder, provider):
        folder.mkdir()
        self.name, self.address = name, ("127.0.0.1", ports.free())
        text = {"nginx": NGINX, "haproxy": HAPROXY}[name]
        config = folder / f"{name}.conf"
        config.write_text(text.format(folder=folder, port=self.address[1], provider=provider.port,
                                      passed=PASSED, seconds=JUDGE_SECONDS))
        program = programs.find_on_path(name)
        command = {"nginx": [program, "-p", folder, "-e", "stderr", "-c", config],
                   "haproxy": [program, "-db", "-f", config]}[name]
        self.process = Process(name, command, folder)
        self.process.await_ready(self.listens, f"{name} listens")

    def listens(self):
        try:
            return raw.Connection(self.address).close() is None
        except OSError:
            return False

    def passes(self, data):
        """Whether it lets a request through to the provider."""
        with raw.Connection(self.address, timeout=ANSWER_SECONDS) as connection:
            try:
                connection.send(data)
                return last_head(connection).header(PASSED) is not None
            except (EOFError, ConnectionError, TimeoutError):
                return False

    def stop(self):
        self.process.stop()
        until(lambda: not self.process.alive(), f"{self.name} ends")
