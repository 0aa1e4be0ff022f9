"""What must turn up nowhere: each in the forms that it could take, and the places where it is looked for."""

import base64
import collections
import hashlib
import pathlib
import re
import secrets
import urllib.parse

# A part of a secret so long is as bad as the whole.
PART = 12
# Of a key, no more than what listings show of it.
KEY_SHOWN = 10
KEY_LIKE = re.compile(rb"sk-tr-[0-9A-Za-z]{%d}" % (KEY_SHOWN - 6 + 1))


def made_up(name):
    """A text that nobody else would write, all letters and digits so that no writer has to quote it."""
    return f"canary{name}{secrets.token_hex(16)}"


def forms(text):
    """What a text may look like where it should not be, by the form's name."""
    data = text.encode()
    found = {
        "itself": {data},
        "reversed": {data[::-1]},
        "in hexadecimal": {data.hex().encode(), data.hex().upper().encode()},
        "in a URL": {urllib.parse.quote(text, safe="").encode(), "".join(f"%{byte:02X}" for byte in data).encode()},
        "its SHA-256": {hashlib.sha256(data).digest(), hashlib.sha256(data).hexdigest().encode()},
        "in base64": set(),
    }
    for shift in range(3):
        # What stands before it decides how it is cut into groups of three; the groups at both ends are shared.
        encoded = base64.b64encode(b"\0" * shift + data)
        inner = encoded[4 if shift else 0 : len(encoded) - 4]
        found["in base64"] |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    found["in a URL"] -= found["itself"]
    if len(data) > PART:
        found["a part of it"] = {data[at : at + PART] for at in range(len(data) - PART + 1)}
    return found


class Canaries:
    """The secrets of a run, by their class."""

    def __init__(self, **classes):
        self.forms = collections.defaultdict(list)
        for name, text in classes.items():
            self.add(name, text)

    def add(self, name, text):
        assert len(text) >= 8, f"{name} is too short to be looked for"
        self.forms[name].append(forms(text))

    def __getitem__(self, name):
        """The text of the first of a class."""
        return min(self.forms[name][0]["itself"]).decode()

    def found(self, data, besides=()):
        """The classes that turn up in some bytes and the forms that they have there, but for the classes `besides`."""
        data = data if isinstance(data, bytes) else data.encode()
        return {
            (name, form)
            for name, texts in self.forms.items()
            if name not in besides
            for text in texts
            for form, needles in text.items()
            if any(needle in data for needle in needles)
        }

    def hits(self, places, allowed):
        """Where they turn up though they are not `allowed` to. `allowed` has the classes that may be at places whose
        names begin so, each with its reason."""
        told = []
        for place, data in places.items():
            besides = {name for start, names, _ in allowed if place.startswith(start) for name in names}
            told += [(place, *one) for one in self.found(data, besides)]
        return sorted(told)


def files(folder):
    """The bytes of all files in a folder, by where they are."""
    paths = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {f"file {path.relative_to(folder)}": path.read_bytes() for path in paths}


def search_log(gateway, more=()):
    """What every gateway of every test is searched for when it stops: any key, the providers' credential, the words that
    most prompts of the tests are made of, and `more`."""
    needles = [gateway.credential, "Hello there", "Bearer ", *more]
    needles = [needle.encode() for needle in needles] + sorted(forms(gateway.credential)["in base64"])
    for path in (gateway.process.err_path, gateway.process.out_path):
        text = path.read_bytes()
        if path == gateway.process.out_path and gateway.first_key:
            # The first start shows it, in a request to try.
            text = text.replace(f"Bearer {gateway.first_key}".encode(), b"").replace(gateway.first_key.encode(), b"")
        found = [needle for needle in needles if needle in text] + KEY_LIKE.findall(text)
        assert not found, f"{path.name} shows {found}"
