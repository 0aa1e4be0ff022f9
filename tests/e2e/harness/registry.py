"""A static npm registry on this machine: nothing but the packages of one folder."""

import base64
import hashlib
import json
import tarfile

from harness.scripted import Answer, Scripted


def description(path):
    with tarfile.open(path) as archive:
        return json.load(archive.extractfile("package/package.json"))


def serve(folder):
    """A running registry of the packages in `folder`."""
    registry = Scripted()
    for path in sorted(folder.glob("*.tgz")):
        package, data = description(path), path.read_bytes()
        tarball = f"/tarballs/{path.name}"
        sums = {
            "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}",
        }
        version = package["version"]
        listed = {
            "name": package["name"], "dist-tags": {"latest": version},
            "versions": {version: package | {"dist": sums | {"tarball": registry.url + tarball}}},
        }
        registry.answers[f"GET {tarball}"] = Answer(200, data, content_type="application/octet-stream")
        registry.answers[f"GET /{package['name'].replace('/', '%2f')}"] = Answer(200, listed)
    return registry
