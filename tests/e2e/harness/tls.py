"""TLS before a provider that speaks none, and a certificate that a gateway can be told to trust."""

import asyncio
import contextlib
import ssl
import subprocess
import threading

from harness import ports, programs


def make_certificate(folder):
    """A certificate for localhost and its key, in two files. It is its own authority."""
    key, certificate = folder / "provider.key", folder / "provider.pem"
    subprocess.run(
        [programs.find_on_path("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    return certificate, key


class Front:
    """Ends TLS and passes everything on to the port behind the protocol that was agreed on.

    `behind` says which protocols there are, the first preferred: `{"h2": port, "http/1.1": port}`. The ones that were
    chosen are in `chosen`, a connection each.
    """

    def __init__(self, certificate, behind):
        self.behind, self.chosen, self.open = behind, [], []
        self.port = ports.free()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.context.set_alpn_protocols(list(behind))
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.context))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    @property
    def base_url(self):
        return f"https://localhost:{self.port}/v1"

    def learn(self, protocol, port):
        """Another protocol, preferred from now on; connections that there are end."""
        self.behind = {protocol: port} | self.behind
        self.context.set_alpn_protocols(list(self.behind))
        for writer in self.open:
            self.loop.call_soon_threadsafe(writer.close)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    async def _serve(self, reader, writer):
        protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "http/1.1"
        self.chosen.append(protocol)
        self.open.append(writer)
        there, to = await asyncio.open_connection("127.0.0.1", self.behind[protocol])
        await asyncio.gather(_pump(reader, to), _pump(there, writer))


async def _pump(reader, writer):
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
