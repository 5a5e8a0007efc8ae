"""Personal data and secrets in a text: numbers proved by their checksums, keys by the form their issuers give them.

Checksums are python-stdnum's and phone numbers are judged by phonenumbers (Google's metadata), so that an order number
of eleven digits is no phone and an article number is no card. Names and addresses are not looked for: that needs a
language model of its own, and guesses wrongly too often to act on.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Match(NamedTuple):
    kind: str
    """'secrets', 'identity' or 'contacts'."""
    what: str
    shown: str
    """The thing found, masked."""


Rule = tuple[str, re.Pattern, Callable[[str], bool]]
"""(what it finds, where it may stand, whether it is one)"""

_SECRETS = {
    "private key": r"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----",
    "AWS access key": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "GitLab token": r"\bglpat-[\w-]{20,}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "API key (OpenAI, Anthropic or alike)": r"\bsk-(?:ant-|proj-|or-v1-|svcacct-)?[A-Za-z0-9_-]{20,}",
    "Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "Slack webhook": r"hooks\.slack\.com/services/T\w+/B\w+/\w{20,}",
    "Google API key": r"\bAIza[\w-]{35}(?![\w-])",
    "Stripe key": r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "PyPI token": r"\bpypi-[\w-]{50,}",
    "SendGrid key": r"\bSG\.[\w-]{22}\.[\w-]{43}",
    "Telegram bot token": r"\b\d{8,10}:AA[\w-]{33}\b",
    "Alibaba Cloud access key": r"\bLTAI[A-Za-z0-9]{12,20}\b",
    "Tencent Cloud secret id": r"\bAKID[A-Za-z0-9]{32}\b",
    "JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:(?!\$|\{|<|\*|%|x{3})[^\s:/@]{3,64}@[\w.-]+",
    "secret in an assignment": (
        r"(?i:\b(?:api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret))"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?=[\w+/=.-]{0,60}\d)(?=[\w+/=.-]{0,60}[A-Za-z])[\w+/=.-]{20,}"
    ),
}
_SECRET_RULES = [(name, re.compile(pattern), bool) for name, pattern in _SECRETS.items()]
# Cheap to look for, and every rule's text holds one of them.
_SECRET_SIGN = re.compile(
    r"PRIVATE KEY|AKIA|ASIA|AKID|LTAI|AIza|gh[pousr]_|github_pat|glpat-|hf_|sk-|[rs]k_|xox[abeoprs]-|hooks\.slack|npm_|"
    r"pypi-|SG\.|:AA|eyJ|://|(?i:[_-]?key|token|secret)[\"']?\s{0,3}[:=]"
)
_EMAIL = re.compile(
    r"(?<![\w.+-])(?<!//)[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,12}(?![\w-])", re.ASCII
)
_EXAMPLE_DOMAINS = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|(?:\w+\.)?(?:test|invalid|example))$", re.I)
"""Reserved for examples by RFC 2606 and 6761."""
_DIGITS = re.compile(r"\d{4}|\d[\d \-./()\u00a0]{6}|[A-Z]{6}\d")
"""Cheap to look for; no number below is without one of these."""
_ONLY_DIGITS = re.compile(r"\D+")
_CARD = re.compile(r"(?<![\d.,-])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){3}|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\d-])")
# Leading digits and lengths in use (ISO/IEC 7812): Visa, Mastercard, American Express, Discover, JCB, UnionPay, Diners.
_ISSUED = re.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
    r"6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|3(?:0[0-5]|[68]\d)\d{11}"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+|00)[1-9]\d{0,2}(?:[ \-./]?\(?\d{1,5}\)?){2,6}(?![\w-])"
    r"|(?<![\d.+-])1[3-9]\d(?:[ -]?\d{4}){2}(?![\d.-])"
    r"|(?<![\d.+-])0\d{2,3}[- ]\d{7,8}(?![\d.-])"
    r"|(?<![\w.+-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w-])"
)


def find_pii(text: str) -> Iterator[Match]:
    """Everything personal in a text; it is reported once for each place it stands in."""
    taken: list[tuple[int, int]] = []
    if _SECRET_SIGN.search(text):
        yield from _taken(taken, "secrets", text, _SECRET_RULES)
    if "@" in text:
        yield from _taken(taken, "contacts", text, (("e-mail address", _EMAIL, _is_address),))
    if _DIGITS.search(text):
        yield from _taken(taken, "identity", text, _IDENTITY)
        yield from _taken(taken, "contacts", text, (("phone number", _PHONE, _is_phone),))


def _taken(taken: list[tuple[int, int]], kind: str, text: str, rules: Iterable[Rule]) -> Iterator[Match]:
    """What the rules find where nothing was found before: the password in an address is no e-mail address."""
    for what, rule, proof in rules:
        for match in rule.finditer(text):
            free = not any(start < match.end() and match.start() < end for start, end in taken)
            if free and proof(match[0]):
                taken.append(match.span())
                yield Match(kind, what, _masked(match[0]))


def _is_address(text: str) -> bool:
    return not _EXAMPLE_DOMAINS.search(text)


def _masked(text: str) -> str:
    """Enough to find it by, not enough to use it."""
    text = " ".join(text.split())
    kept = min(6, len(text) // 4)
    tail = text[-2:] if len(text) > 12 else ""
    return f"{text[:kept]}…{tail}"


def _by_stdnum(module: str) -> Callable[[str], bool]:
    def proof(text: str) -> bool:
        from importlib import import_module

        return import_module(f"stdnum.{module}").is_valid(text)

    return proof


def _is_card(text: str) -> bool:
    digits = _ONLY_DIGITS.sub("", text)
    if not _ISSUED.fullmatch(digits) or len(set(digits)) < 4:
        return False
    from stdnum import luhn

    return luhn.is_valid(digits)


def _is_ssn(text: str) -> bool:
    # 078-05-1120 was printed on a sample card in 1938 and is an example ever since.
    return text != "078-05-1120" and _by_stdnum("us.ssn")(text)


def _is_phone(text: str) -> bool:
    import phonenumbers  # 60 ms, wanted only where something looks like a number

    digits = _ONLY_DIGITS.sub("", text)
    if len(set(digits)) < 4:
        return False
    if text.startswith("00"):
        text = f"+{text[2:]}"
    region = None if text.startswith("+") else ("CN" if digits[0] in "01" else "US")
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


# Numbers that a checksum alone does not tell from others of their length (one in ten or eleven would pass) are taken
# only in the way they are written on the document.
_IDENTITY: tuple[Rule, ...] = (
    (
        "Chinese identity number",
        re.compile(r"(?<![\dA-Za-z])[1-9]\d{5}(?:19|20)\d{9}[\dXx](?![\dA-Za-z])"),
        _by_stdnum("cn.ric"),
    ),
    (
        "Chinese unified social credit code",
        re.compile(r"(?<![\dA-Za-z])[19][1-59]\d{6}(?=[0-9A-HJ-NPQRTUWXY]*[A-Z])[0-9A-HJ-NPQRTUWXY]{10}(?![\dA-Za-z])"),
        _by_stdnum("cn.uscc"),
    ),
    ("IBAN", _IBAN, _by_stdnum("iban")),
    ("payment card number", _CARD, _is_card),
    ("US social security number", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _is_ssn),
    ("Spanish identity number", re.compile(r"(?<![\w-])[XYZ\d]\d{7}-?[A-Z](?![\w-])"), _by_stdnum("es.nie")),
    ("Spanish identity number", re.compile(r"(?<![\w-])\d{8}-?[A-Z](?![\w-])"), _by_stdnum("es.dni")),
    (
        "Italian tax code",
        re.compile(r"(?<!\w)[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z](?!\w)"),
        _by_stdnum("it.codicefiscale"),
    ),
    (
        "French social security number",
        re.compile(r"(?<![\d.])[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d(?![\d.])"),
        _by_stdnum("fr.nir"),
    ),
    ("Brazilian CPF", re.compile(r"(?<![\d.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)"), _by_stdnum("br.cpf")),
    ("Indian Aadhaar number", re.compile(r"(?<![\d-])[2-9]\d{3} \d{4} \d{4}(?![\d -])"), _by_stdnum("in_.aadhaar")),
    ("Indian PAN", re.compile(r"(?<!\w)[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z](?!\w)"), _by_stdnum("in_.pan")),
    ("Korean resident number", re.compile(r"(?<![\d-])\d{6}-[1-4]\d{6}(?![\d-])"), _by_stdnum("kr.rrn")),
    ("Finnish identity code", re.compile(r"(?<![\w-])\d{6}[-+A]\d{3}[\dA-Y](?![\w-])"), _by_stdnum("fi.hetu")),
)
