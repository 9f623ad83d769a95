"""FastWorker: plain requests in a loop of its own, all others in GatewayWorker's, which decides what they are.

Stock gunicorn spends a quarter of a call's CPU time on its request and answer objects, an environ that is built piece by
piece and two sends. A connection goes over to the stock loop with the first request that is not plain, and stays there.
SEKISHO_FAST_HTTP=false leaves all of them to it.
"""

from typing import Any

import gevent
from gunicorn import util

from gateway.server.plain import PlainRequest, constants, is_suited, plain_request
from gateway.server.reply import READABLE, SEND_ON, Reply, SizedInput
from gateway.server.turns import give_way
from gateway.server.worker import SKIP_BYTES, GatewayWorker, linger, log_fault
from gateway.upstream.receiver import GeventReceiver


class FastWorker(GatewayWorker):
    def handle(self, listener: Any, client: Any, addr: Any, early: bytes = b"") -> None:
        rest: bytes | None = early
        if isinstance(addr, tuple) and is_suited(self.cfg):
            client.setblocking(True)
            self.bound(client)
            rest = self._serve(client, addr, constants(self.cfg, listener.getsockname()))
        if rest is None:
            util.close(client)
        else:
            super().handle(listener, client, addr, rest)

    def _serve(self, client: Any, addr: Any, shared: dict[str, Any]) -> bytes | None:
        """Answer plain requests. Returns what was read of one that is not; None: the connection is to be closed."""
        receiver = GeventReceiver(client)
        shared = shared | {"REMOTE_ADDR": addr[0], "REMOTE_PORT": str(addr[1]), "gunicorn.socket": client}
        shared[READABLE] = receiver.readable
        keepalive_s, fields_max = self.cfg.keepalive, self.cfg.limit_request_fields  # two functions of gunicorn's, each time
        rest = b""
        try:
            while True:
                if rest:
                    give_way()  # whoever sends its requests all at once is not the only one to be served
                elif not (rest := receiver.receive(keepalive_s)):
                    return None
                request = plain_request(rest, shared, fields_max=fields_max)
                if request is None:
                    return rest
                left = self._answer(client, request, rest)
                if left is None:
                    return None
                rest = left
        except (OSError, gevent.GreenletExit):  # its time is over, or the client has gone
            return None
        except Exception as error:  # noqa: BLE001 - the edge of a connection, as in gunicorn's own loop
            self.handle_error(None, client, addr, error)
            return None
        finally:
            receiver.close()

    def _answer(self, client: Any, request: PlainRequest, data: bytes) -> bytes | None:
        """Answer the request that `data` begins with. Returns what stands behind it; None: the connection is to be closed."""
        environ, end = request.environ, request.head_bytes + request.body_bytes
        body = environ["wsgi.input"] = SizedInput(client, data[request.head_bytes : end], request.body_bytes)
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        reply = Reply(client)
        environ[SEND_ON] = reply.send_on
        answer: Any = self.wsgi(environ, reply.start_response)
        try:
            in_doubt = environ.get("sekisho.close_connection") or body.unread_bytes > SKIP_BYTES
            reply.keeps_connection = self.alive and not in_doubt
            reply.send(answer)
        except OSError:
            raise
        except Exception as error:
            if not reply.has_begun:
                raise
            log_fault(error)  # a second head would corrupt the answer: cut instead
            return None
        finally:
            if hasattr(answer, "close"):
                answer.close()
        if not reply.keeps_connection:
            if body.unread_bytes:
                linger(client)
            return None
        if body.unread_bytes:
            with gevent.Timeout(self.cfg.keepalive, TimeoutError):
                body.read(body.unread_bytes)
        if reply.is_refusal:
            self.turnstile.pass_through()
        return data[end:]
