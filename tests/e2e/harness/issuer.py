"""Issuers of tokens: a static one whose tokens say whatever a test likes, the real `oidc-provider`, and how a
person logs in to them and to the gateway's own."""

import base64
import hashlib
import hmac
import http.cookiejar
import http.server
import json
import re
import threading
import time
import urllib.parse
import urllib.request

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from harness import management, ports, programs
from harness.process import Process
from harness.waiting import until

AUDIENCE = "https://api.gateway.test"
CLIENT = "tokenroute-cli"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# Who is set up first, where the gateway's own issuer is.
LOGIN, PASSWORD = "ann", "correct horse battery"
# Pages between a code and the end of a login.
PAGES_MAX = 10


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Key:
    """One key of an issuer: EC by default, or RSA."""

    def __init__(self, kid, alg="ES256"):
        self.kid, self.alg = kid, alg
        if alg.startswith("ES"):
            self.private = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(65537, 2048)

    def jwk(self):
        public = self.private.public_key().public_numbers()
        common = {"kid": self.kid, "use": "sig", "alg": self.alg}
        if self.alg.startswith("ES"):
            x, y = (encode(one.to_bytes(32, "big")) for one in (public.x, public.y))
            return common | {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        return common | {"kty": "RSA", "n": number(public.n), "e": number(public.e)}

    def public_pem(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message):
        if self.alg.startswith("ES"):
            r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self.alg == "PS256":
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            return self.private.sign(message, salted, hashes.SHA256())
        return self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())


def compact(header, claims, sign):
    """A token of these parts, signed by a function."""
    message = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{message}.{encode(sign(message.encode()))}"


class Issuer:
    """A static issuer. What it publishes can be changed while it runs; what is fetched is counted by path."""

    def __init__(self, port=None):
        self.port = port or ports.free()
        self.url = f"http://127.0.0.1:{self.port}"
        self.keys = [Key("first")]
        self.metadata = {
            "issuer": self.url, "jwks_uri": f"{self.url}/jwks", "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device", "userinfo_endpoint": f"{self.url}/userinfo",
        }
        self.userinfo, self.fetched, self.override = {}, [], {}
        self.server = None

    def start(self):
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.fetched.append(self.path)
                status, body, more = issuer.page(self.path)
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def page(self, path):
        if path in self.override:
            return self.override[path]
        pages = {
            "/.well-known/openid-configuration": self.metadata,
            "/jwks": {"keys": [key.jwk() for key in self.keys]},
            "/userinfo": self.userinfo,
        }
        return (200, json.dumps(pages[path]).encode(), {}) if path in pages else (404, b"", {})

    def count(self, path):
        return self.fetched.count(path)

    def section(self, **more):
        """The part of a gateway's configuration that believes it."""
        fields = {"issuer": self.url, "audience": AUDIENCE, "client_id": CLIENT} | more
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
        return f"[control.oidc]\n{lines}\n"

    def claims(self, sub="ann", **more):
        """What a good token says; `None` takes a claim away."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + 300} | more
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, sub="ann", key=None, head=None, **claims):
        """A token, good if nothing else is said."""
        key = key or self.keys[0]
        header = {"alg": key.alg, "typ": "at+jwt", "kid": key.kid} | (head or {})
        header = {name: value for name, value in header.items() if value is not None}
        return compact(header, self.claims(sub, **claims), key.sign)

    def token_with_secret(self, secret):
        """A token whose "secret" is something that everybody knows."""
        header = {"alg": "HS256", "typ": "at+jwt", "kid": self.keys[0].kid}
        return compact(header, self.claims(), lambda message: hmac.digest(secret, message, hashlib.sha256))


class OidcProvider:
    """The real `oidc-provider`, in a process of its own."""

    def __init__(self, folder):
        self.port = ports.free()
        self.url = f"http://127.0.0.1:{self.port}"
        script = programs.ROOT / "tests" / "e2e" / "harness" / "oidc_provider.mjs"
        command = [programs.find_on_path("node"), script, str(self.port), AUDIENCE, CLIENT]
        self.process = Process("oidc-provider", command, folder)
        self.process.await_ready(self.is_ready, "oidc-provider is ready")

    def is_ready(self):
        return "listening" in self.process.out()

    def stop(self):
        self.process.stop()

    section = Issuer.section

    def approve(self, device, login="ann", approves=True):
        """A person in a browser: from the page with the code to the end, as the forms say."""
        browser = Browser()
        page = browser.open(device["verification_uri_complete"])
        for _ in range(PAGES_MAX):
            form = form_of(page)
            if form is None:
                return page
            action, fields = form
            action = urllib.parse.urljoin(browser.url, action)
            if not approves and "confirm" in fields:
                del fields["confirm"]
                return browser.open(action, fields | {"abort": "yes"})
            if "login" in fields:
                fields |= {"login": login, "password": "any"}
            page = browser.open(action, fields)
        raise AssertionError(f"no end after {PAGES_MAX} pages: {page}")


class Browser:
    """As much of one as a login needs: cookies and redirects."""

    def __init__(self):
        jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        self.url = None

    def open(self, url, fields=None):
        data = None if fields is None else urllib.parse.urlencode(fields).encode()
        try:
            with self.opener.open(url, data, timeout=10) as answer:
                self.url = answer.url
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            self.url = error.url
            return error.read().decode()


def form_of(page):
    """Where a page's form goes and what it would send, before a person types; `None` without a form."""
    form = re.search(r"<form[^>]*action=\"([^\"]+)\"[^>]*>(.*?)</form>", page, re.DOTALL)
    if not form:
        return None
    fields = {}
    for field in re.findall(r"<input[^>]*>", form[2]):
        name, value = re.search(r"name=\"([^\"]*)\"", field), re.search(r"value=\"([^\"]*)\"", field)
        if name:
            fields[name[1]] = value[1] if value else ""
    return form[1], fields


# The protocol, as any client speaks it to any issuer.


def post(url, **fields):
    """Status and JSON of a form posted to an issuer."""
    data = urllib.parse.urlencode(fields).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def discover(gateway):
    """What the gateway says of where to log in."""
    answer = management.ask(gateway, "/api/v1/auth/discovery")
    assert answer.status == 200, answer.body
    return answer.json()


def begin(found):
    """A device code."""
    status, device = post(
        found["device_authorization_endpoint"],
        client_id=found["client_id"], scope=found["scopes"], resource=found["resource"],
    )
    assert status == 200, device
    return device


def poll(found, device):
    """What the token endpoint says of a device code."""
    return post(
        found["token_endpoint"],
        client_id=found["client_id"], grant_type=DEVICE_GRANT, device_code=device["device_code"],
    )


def refresh(found, token):
    """What the token endpoint says of a refresh token."""
    return post(
        found["token_endpoint"], client_id=found["client_id"], grant_type="refresh_token", refresh_token=token,
    )


# The gateway's own issuer.

LINK = re.compile(r"http://\S+(/login/setup\?token=\S+)")


def setup_path(text):
    """Where a printed set-up link leads."""
    found = LINK.search(text)
    assert found, f"no link in {text!r}"
    return found[1]


def set_up(gateway, login=LOGIN, password=PASSWORD, path=None):
    """Makes a local user with a link: the one that the gateway printed at its start, if no other is named."""
    path = path or setup_path(gateway.process.out())
    done = management.post_form(gateway, path, login=login, password=password)
    assert done.status == 200, done.body


def decide(gateway, device, login=LOGIN, password=PASSWORD, decision="approve"):
    """What the approval page says to a person."""
    return management.post_form(
        gateway, "/login/device", user_code=device["user_code"], login=login, password=password, decision=decision,
    )


def login(gateway, name=LOGIN, password=PASSWORD):
    """Tokens of a local user, by the device flow."""
    found = discover(gateway)
    device = begin(found)
    done = decide(gateway, device, name, password)
    assert done.status == 200, done.body
    status, tokens = poll(found, device)
    assert status == 200, tokens
    return tokens


def await_tokens(found, device):
    """Tokens for a device that is approved already, of an issuer that takes its time."""

    def ask():
        status, answer = poll(found, device)
        if status == 200:
            return answer
        assert answer["error"] in ("authorization_pending", "slow_down"), answer
        time.sleep(device.get("interval", 5))
        return None

    return until(ask, "the device is let in", 30)
