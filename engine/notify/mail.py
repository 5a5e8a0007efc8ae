"""One mail, by the SMTP host of the settings."""

import smtplib
import ssl
import time
from email.message import EmailMessage
from email.utils import formatdate

from engine.base.messages import msg
from engine.notify.notify_config import MailConfig
from engine.notify.webhook import DeliveryFailed

_SECONDS = 20.0
_TLS_PORT = 465


def send_mail(config: MailConfig, password: str, delivery_id: str, subject: str, text: str) -> None:
    """Encrypted where the host can, always where a password is sent. Raises DeliveryFailed."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, config.sender, ", ".join(config.to)
    mail["Message-ID"] = f"<{delivery_id}@{config.sender.rpartition('@')[2].rstrip('>')}>"
    mail["Date"] = formatdate(time.time())
    mail.set_content(text)
    context = ssl.create_default_context()
    try:
        if config.port == _TLS_PORT:
            host: smtplib.SMTP = smtplib.SMTP_SSL(config.host, config.port, timeout=_SECONDS, context=context)
        else:
            host = smtplib.SMTP(config.host, config.port, timeout=_SECONDS)
        with host:
            host.ehlo()
            if config.port != _TLS_PORT and (host.has_extn("starttls") or config.user):
                host.starttls(context=context)
                host.ehlo()
            if config.user:
                host.login(config.user, password)
            host.send_message(mail)
    except (OSError, smtplib.SMTPException) as error:
        raise DeliveryFailed(msg("{host}: {error}", host=config.host, error=error)) from None
