"""One delivery of a webhook, signed as Standard Webhooks has it (https://www.standardwebhooks.com), which is what
`client.webhooks.unwrap` of OpenAI's client checks.

Redirects are not followed. A host with a private address is refused, as seen on the connected socket, unless it is
named in `allow_hosts`; proxies of the environment are not used.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import threading
import time
from urllib.parse import urlsplit

from engine.base.messages import msg
from engine.notify.notify_config import WebhookConfig

_CONNECT_SECONDS = 10.0
_ALL_SECONDS = 20.0
"""For the whole delivery, however slowly the answer comes."""


class DeliveryFailed(Exception):
    """Why; `is_final`: there is no use in trying again."""

    def __init__(self, why: str, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


def signature(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 over id, time and body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def deliver(config: WebhookConfig, secret: str, delivery_id: str, body: bytes) -> None:
    """Raises DeliveryFailed unless the receiver has answered 2xx."""
    now = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": "finetop",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, delivery_id, now, body),
    }
    parts = urlsplit(config.url)
    host = parts.hostname or ""
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, parts.port, timeout=_CONNECT_SECONDS)
    try:
        connection.connect()
        if host not in config.allow_hosts:
            _refuse_private(connection.sock)
        ending = threading.Timer(_ALL_SECONDS, _hang_up, [connection.sock])
        ending.start()
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        finally:
            ending.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeliveryFailed(msg("{host}: {error}", host=host, error=str(error) or type(error).__name__)) from None
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise DeliveryFailed(msg("{host} answered {status}", host=host, status=status), is_final=status == 410)


def _refuse_private(connected: socket.socket) -> None:
    address = ipaddress.ip_address(connected.getpeername()[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if not address.is_global:
        raise DeliveryFailed(
            msg("{address} is a private address: webhook.allow_hosts does not name its host", address=address)
        )


def _hang_up(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
