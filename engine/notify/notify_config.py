"""`notify.toml` in the workspace: who is told that a run has ended.

[webhook]                       # for jobs made through the API
url = "https://example.com/hooks/finetop"
allow_hosts = ["127.0.0.1"]     # may be asked by http, and may have a private address

[mail]                          # for every run
host = "smtp.example.com"       # or host:port
from = "finetop@example.com"
to = ["me@example.com"]
user = "finetop"                # where the host wants one; its password lies in .finetop/smtp.password
"""

import base64
import contextlib
import os
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace

NAME = "notify.toml"
_SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    url: str
    allow_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MailConfig:
    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """None: nobody is told that way."""

    webhook: WebhookConfig | None = None
    mail: MailConfig | None = None


def read_notify_config(workspace: Workspace) -> NotifyConfig:
    """Raises InputError for what the file may not hold."""
    path = workspace.root / NAME
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return NotifyConfig()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(msg("{path} cannot be read: {error}", path=path, error=error)) from None
    if unknown := sorted(content.keys() - {"webhook", "mail"}):
        raise InputError(
            msg("{path}: there is no [{name}]", path=path, name=unknown[0]), "There are [webhook] and [mail]."
        )
    webhook = _group(path, content, "webhook", {"url", "allow_hosts"})
    mail = _group(path, content, "mail", {"host", "from", "to", "user"})
    return NotifyConfig(_webhook(path, webhook) if webhook else None, _mail(path, mail) if mail else None)


def _group(path: Path, content: dict[str, Any], name: str, keys: set[str]) -> dict[str, Any]:
    group = content.get(name, {})
    if not isinstance(group, dict):
        raise InputError(msg("{path}: {name} must be a table", path=path, name=name))
    if unknown := sorted(group.keys() - keys):
        raise InputError(
            msg("{path}: there is no {group}.{name}", path=path, group=name, name=unknown[0]),
            msg("There are {names}.", names=", ".join(sorted(keys))),
        )
    return group


def _webhook(path: Path, group: dict[str, Any]) -> WebhookConfig:
    url, allow_hosts = str(group.get("url", "")), frozenset(_texts(path, group, "allow_hosts", []))
    try:
        parts = urlsplit(url)
        is_whole = parts.hostname is not None and parts.port != 0 and parts.username is None
    except ValueError:
        is_whole = False
    if not is_whole or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in allow_hosts)):
        raise InputError(
            msg("{path}: webhook.url must be an https address", path=path),
            "http is for hosts that webhook.allow_hosts names.",
        )
    return WebhookConfig(url, allow_hosts)


def _mail(path: Path, group: dict[str, Any]) -> MailConfig:
    host, _, port = str(group.get("host", "")).partition(":")
    to, sender, user = _texts(path, group, "to", None), group.get("from"), group.get("user", "")
    is_port = not port or (port.isascii() and port.isdecimal() and 0 < int(port[:9]) < 65536)
    if not host or not is_port:
        raise InputError(msg("{path}: mail.host must be a host, or host:port", path=path))
    if not to or not all("@" in address and address.isprintable() for address in (*to, str(sender))):
        raise InputError(msg("{path}: mail.from and mail.to must be addresses", path=path))
    if not isinstance(user, str):
        raise InputError(msg("{path}: mail.user must be a text", path=path))
    return MailConfig(host, int(port or _SMTP_PORT), str(sender), tuple(to), user)


def _texts(path: Path, group: dict[str, Any], name: str, default: list[str] | None) -> list[str]:
    listed = group.get(name, default)
    texts = [listed] if isinstance(listed, str) else listed
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(msg("{path}: {name} must be a list of texts", path=path, name=name))
    return texts


def webhook_secret(workspace: Workspace) -> str:
    """By which deliveries are signed; made at first need, readable by its owner only."""
    path = workspace.private / "webhook.secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    return path.read_text("ascii").strip()


def smtp_password(workspace: Workspace) -> str:
    """Raises OSError where there is none."""
    return (workspace.private / "smtp.password").read_text("utf-8").strip()
