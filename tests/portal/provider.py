"""An OpenID Connect provider on a real socket: says of everybody what the test put into `claims`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

CLIENT = "sekisho"
SECRET = "a secret of the client, long enough for HS256"


class Provider(ThreadingHTTPServer):
    claims: dict[str, Any]

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def app(self) -> dict[str, Any]:
        """As portal.settings.env.oidc_providers() would have read it."""
        said = {"server_url": self.issuer, "vouches_for_addresses": False}
        return {"provider_id": "corp", "name": "Corp", "client_id": CLIENT, "secret": SECRET, "settings": said}


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        issuer = self.server.issuer
        if self.path.startswith("/.well-known/"):
            places = {f"{name}_endpoint": f"{issuer}/{name}" for name in ("authorization", "token", "userinfo")}
            self._answer({"issuer": issuer, "jwks_uri": f"{issuer}/keys", **places})
        else:
            self._answer(self.server.claims)

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        if sent.get("code") != ["the code"] or "code_verifier" not in sent:
            self.send_error(400)
            return
        claims = {"iss": self.server.issuer, "aud": CLIENT, "exp": 2**33, "iat": 0, **self.server.claims}
        id_token = jwt.encode(claims, SECRET, algorithm="HS256")
        self._answer({"access_token": "a token", "token_type": "Bearer", "id_token": id_token})

    def _answer(self, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def running() -> Iterator[Provider]:
    server = Provider(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def state_of(address: str) -> str:
    """What the portal sent along, and wants back."""
    return parse_qs(urlsplit(address).query)["state"][0]
