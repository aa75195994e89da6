"""Takes secrets out of text, by value: raw, percent-encoded and in the pieces libraries print them in."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHOWN = "[redacted]"
USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@")


class Redactor:
    """Replaces every known secret, and any user name and password in a URL.

    Args:
        secrets: the plain values; empty ones are ignored.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Replace these as well; those known before stay secret."""
        self._known |= {spelling for secret in secrets if secret for spelling in _spellings(secret)}
        ordered = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None

    def clean(self, text: str) -> str:
        """Return `text` without secrets."""
        without_userinfo = USERINFO.sub(rf"\g<scheme>{SHOWN}@", text)
        return self._pattern.sub(SHOWN, without_userinfo) if self._pattern else without_userinfo


def _spellings(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1], encoded}
