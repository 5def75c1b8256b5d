"""Takes out secrets and personal data before anything immutable is written.

What is found, by these patterns and no others, is replaced by [REDACTED:kind]:
- private-key: PEM private key blocks, also cut off ones;
- secret: keys and tokens by their shape (sk-, AKIA, ghp_, xox, AIza, glpat-, hf_, npm_), JWTs,
  bearer tokens, passwords in URLs, and what stands after password=, api_key:, secret= and the
  like, or under such a key in JSON;
- e-mail: addresses;
- card: 13 to 19 digits that begin as a card's do and pass the Luhn check;
- phone: numbers that begin with + and a country code, and North American ones with separators.
Names, postal addresses, dates of birth, and phone numbers in other forms are not recognised.
"""

import json
import re
from collections import Counter
from typing import Any

__all__ = ("Redactor",)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{16,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{36}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r")"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)([A-Za-z0-9._~+/=-]{16,})")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]{1,256}):([^\s/@]{1,256})(?=@)")
_SECRET_NAME = (
    r"pass(?:word|wd|phrase)|pwd|secret|client[_-]?secret|api[_-]?key|private[_-]?key"
    r"|(?:access|auth|refresh|api|session|bearer)[_-]?token"
)
_ASSIGNED = re.compile(
    rf"(?i)((?:{_SECRET_NAME})[\"']?\s{{0,3}}[:=]\s{{0,3}})"
    r"(\"[^\"\n]{1,1000}\"|'[^'\n]{1,1000}'|(?![\[{]|(?:null|true|false)\b)[^\s,;\"'&}\]]{1,1000})"
)
_SECRET_KEY = re.compile(rf"(?i)(?:{_SECRET_NAME})$|(?:^|[_-])token$|^authorization$")
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]+@(?:[^\W_](?:[\w-]*)\.)+[^\W\d_]{2,}")
_CARD = re.compile(r"(?<!\d)[2-6](?:[ -]?\d){12,18}")
_CARD_START = re.compile(
    r"(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12,17}"
    r"|35\d{14,17}|6\d{11,18}|5[0678]\d{11,17})"
)
_PHONE = re.compile(
    r"(?<![\w+])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[ .-]\d{4}"
    r")(?!\w)"
)
_PHONE_DIGITS = range(8, 16)
_DEPTH_MAX = 4


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(digits: str) -> bool:
    return bool(_CARD_START.fullmatch(digits)) and _luhn(digits)


class Redactor:
    """Redacts values and counts what it took out, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def value(self, value: Any) -> Any:
        """Return a JSON value with every string in it redacted, keys too."""
        return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value, depth)
        if isinstance(value, list):
            return [self._value(item, depth) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._under(key, item, depth) for key, item in value.items()}
        if isinstance(value, int) and not isinstance(value, bool) and _is_card(str(abs(value))):
            return self._mark("card")
        return value

    def _under(self, key: str, item: Any, depth: int) -> Any:
        if isinstance(item, str) and item and _SECRET_KEY.search(key):
            return self._mark("secret")
        return self._value(item, depth)

    def _string(self, text: str, depth: int) -> str:
        """Redact a text; one that is JSON, as arguments of calls are, is redacted inside."""
        if text[:1] in ("{", "[") and depth < _DEPTH_MAX:
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                return self.text(text)
            before = self.counts.total()
            clean = self._value(inner, depth + 1)
            if self.counts.total() > before:
                return json.dumps(clean, ensure_ascii=False)
            # Of a key that is there twice only the last value was looked at.
        return self.text(text)

    def text(self, text: str) -> str:
        """Return a plain text redacted."""
        if "-----BEGIN" in text:
            text = _PRIVATE_KEY.sub(lambda _: self._mark("private-key"), text)
        text = _TOKEN.sub(lambda _: self._mark("secret"), text)
        text = _BEARER.sub(self._second, text)
        if "://" in text:
            text = _URL_PASSWORD.sub(lambda m: f"{m[1]}:{self._mark('secret')}", text)
        text = _ASSIGNED.sub(self._second, text)
        if "@" in text:
            text = _EMAIL.sub(lambda _: self._mark("e-mail"), text)
        return _PHONE.sub(self._phone, self._cards(text))

    def _mark(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"[REDACTED:{kind}]"

    def _second(self, match: re.Match[str]) -> str:
        quote = match[2][0] if match[2][0] in "\"'" else ""
        return f"{match[1]}{quote}{self._mark('secret')}{quote}"

    def _phone(self, match: re.Match[str]) -> str:
        digits = sum(char.isdigit() for char in match[0])
        return self._mark("phone") if digits in _PHONE_DIGITS else match[0]

    def _cards(self, text: str) -> str:
        """Replace card numbers, also one that other digits stand before or after."""
        kept, done, at = [], 0, 0
        while match := _CARD.search(text, at):
            end = self._card_end(text, match)
            if end is None:
                at = match.start() + 1
                while at < len(text) and text[at].isdigit():
                    at += 1
                continue
            kept += [text[done : match.start()], self._mark("card")]
            done = at = end
        return "".join([*kept, text[done:]]) if kept else text

    def _card_end(self, text: str, match: re.Match[str]) -> int | None:
        places = [at for at in range(match.start(), match.end()) if text[at].isdigit()]
        digits = "".join(text[at] for at in places)
        for count in range(len(places), 12, -1):
            end = places[count - 1] + 1
            whole = end == len(text) or not text[end].isdigit()
            if whole and _is_card(digits[:count]):
                return end
        return None
