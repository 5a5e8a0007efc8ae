"""Those who are told: an HTTP and an SMTP server of a few lines, on the loopback."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebhookReceiver:
    port: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """The next ones; then 204."""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextlib.contextmanager
def webhook_receiver(port: int = 0) -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        receiver.port = server.server_address[1]
        yield from _running(server, receiver)


@dataclass
class MailReceiver:
    port: int = 0
    refusing: bool = False
    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    """Whom each was for, and what it says."""


@contextlib.contextmanager
def mail_receiver() -> Iterator[MailReceiver]:
    receiver = MailReceiver()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            to: list[str] = []
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                verb = line.split()[0].upper() if line.split() else b""
                answer = b"250 ok"
                if verb == b"RCPT":
                    to.append(line.partition(b"<")[2].partition(b">")[0].decode())
                    answer = b"451 later" if receiver.refusing else answer
                elif verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    while (line := self.rfile.readline()) != b".\r\n":
                        lines.append(line[1:] if line.startswith(b"..") else line)
                    receiver.mails.append((to, message_from_bytes(b"".join(lines), policy=default)))
                elif verb == b"QUIT":
                    answer = b"221 bye"
                self.wfile.write(answer + b"\r\n")
                if verb == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        yield from _running(server, receiver)


def _running(server: socketserver.BaseServer, receiver):
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
