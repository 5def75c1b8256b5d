"""Reads files of JSON: lines or one document, plain or gzip, in constant memory.

Lines end at \\n only, because texts hold U+0085 and the like inside strings. A line that cannot be
read is given with its reason, and the next one follows.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from madlog.analytics.importing._errors import BadLine, UnreadableFile

__all__ = (
    "DOCUMENT_BYTES_MAX",
    "LINE_BYTES_MAX",
    "Line",
    "SourceFile",
    "document_objects",
    "parse",
)

LINE_BYTES_MAX = 64 * 1024 * 1024
# A single JSON document is parsed whole; over this it must come as JSON lines.
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


class Line(NamedTuple):
    """One object of the file: its line, its size, and its value or why there is none."""

    number: int
    size: int
    value: Any
    reason: str | None = None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadLine("an object names the same key twice, so one of its values would be lost")
    return made


def _not_json(name: str) -> NoReturn:
    raise BadLine(f"{name} is not a JSON number: write null in its place")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_json)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            f"byte {error.start + 1} is not UTF-8: convert the file to UTF-8 first"
        ) from None


def _refuse_nul(text: str, value: Any) -> Any:
    if "\\u0000" in text and any("\x00" in found for found in _strings(value)):
        raise BadLine("a string holds a NUL character, which no text can: remove it")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, BadLine):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON at column {error.colno}: {error.msg}"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply to be read"
    return "a number has too many digits to be read"


def parse(data: bytes) -> Any:
    """Return the JSON value of one line; raises BadLine."""
    try:
        text = _text(data).strip(" \t\r\n")
        value, end = _DECODER.raw_decode(text)
        if end != len(text):
            raise BadLine(f"broken JSON at column {end + 1}: a second value on the same line")
        return _refuse_nul(text, value)
    except (ValueError, RecursionError) as error:
        raise BadLine(_reason(error)) from None


class SourceFile:
    """A file to import, opened as often as it is read; raises UnreadableFile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.is_dir():
                raise UnreadableFile(f"{path} is a folder: name a file in it")
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self.compressed = file.read(2) == b"\x1f\x8b"
        except OSError as error:
            raise self._unreadable(error) from error
        # Over all passes: the file is read once for its hash and once for its lines.
        self.bytes_done = 0

    def _unreadable(self, error: OSError) -> UnreadableFile:
        if isinstance(error, UnreadableFile):
            return error
        return UnreadableFile(
            f"{self.path} cannot be read ({error.strerror or error}): "
            "check its name and that you may read it"
        )

    def sha256(self) -> Iterator[str]:
        """Yield "" while the raw bytes are being read and at last their SHA-256 in hex."""
        sha = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    sha.update(chunk)
                    self.bytes_done += len(chunk)
                    yield ""
        except OSError as error:
            raise self._unreadable(error) from error
        yield sha.hexdigest()

    def lines(self) -> Iterator[Line]:
        """Yield the object of each line that is not blank."""
        number, before = 0, self.bytes_done
        try:
            with self.path.open("rb") as raw, self._opened(raw) as file:
                for number, data in enumerate(_cut(file), start=1):
                    self.bytes_done = before + raw.tell()
                    if number == 1:
                        data = data.removeprefix(_BOM)
                    if len(data) > LINE_BYTES_MAX:
                        reason = f"longer than {LINE_BYTES_MAX // 2**20} MiB: split it"
                        yield Line(number, len(data), None, reason)
                    elif data.strip(_SPACE):
                        yield _line(number, data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"the compressed file is damaged or cut short from here on ({error})"
            yield Line(number + 1, 0, None, reason)
        except OSError as error:
            raise self._unreadable(error) from error

    def document(self) -> bytes | None:
        """Return the whole file if it is one JSON document, None if it is JSON lines.

        A file that begins with an array is a document; one that begins with an object is one if
        its first line alone is no JSON value and the whole is.
        """
        try:
            with self.path.open("rb") as raw, self._opened(raw) as file:
                head = next(_cut(file), b"").removeprefix(_BOM).strip(_SPACE)
                array = head.startswith(b"[")
                if not array and (not head.startswith(b"{") or _is_json(head)):
                    return None
            with self.path.open("rb") as raw, self._opened(raw) as file:
                data = file.read(DOCUMENT_BYTES_MAX + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) > DOCUMENT_BYTES_MAX:
            if not array:
                return None
            raise UnreadableFile(
                f"{self.path} is one JSON document of more than {DOCUMENT_BYTES_MAX // 2**20} MiB: "
                "write one object a line (jq -c '.[]' does that) and import that file"
            )
        data = data.removeprefix(_BOM)
        if not array and not _is_json(data):
            return None
        self.bytes_done += self.size
        return data

    def _opened(self, raw: IO[bytes]) -> IO[bytes]:
        return cast(IO[bytes], gzip.open(raw, "rb")) if self.compressed else raw


def _cut(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines cut at \\n; of one that is too long only its beginning."""
    while data := file.readline(LINE_BYTES_MAX + 1):
        yield data
        while len(data) > LINE_BYTES_MAX and not data.endswith(b"\n"):
            data = file.readline(LINE_BYTES_MAX + 1)


def _line(number: int, data: bytes) -> Line:
    try:
        return Line(number, len(data), parse(data))
    except BadLine as bad:
        return Line(number, len(data), None, str(bad))


def _is_json(data: bytes) -> bool:
    try:
        parse(data)
    except BadLine:
        return False
    return True


def document_objects(data: bytes) -> Iterable[Line]:
    """Yield the objects of one JSON document, an array's one by one, each at its first line."""
    try:
        text = _text(data)
    except BadLine as bad:
        yield Line(1, len(data), None, str(bad))
        return
    at, line = _skip(text, 0, 1)
    array = text.startswith("[", at)
    if array:
        at, line = _skip(text, at + 1, line)
        if text.startswith("]", at):
            return
    while True:
        try:
            value, end = _DECODER.raw_decode(text, at)
            yield _checked(line, text[at:end], value)
        except (ValueError, RecursionError, BadLine) as error:
            rest = "; the rest of the document cannot be read" if array else ""
            yield Line(line, len(text) - at, None, _reason(error) + rest)
            return
        at, line = _skip(text, end, line + text.count("\n", at, end))
        if not array:
            break
        if text.startswith("]", at):
            at, line = _skip(text, at + 1, line)
            break
        if not text.startswith(",", at):
            reason = "broken JSON: a comma or ] is missing; the rest cannot be read"
            yield Line(line, len(text) - at, None, reason)
            return
        at, line = _skip(text, at + 1, line)
    if at != len(text):
        yield Line(line, len(text) - at, None, "broken JSON: text after the document's end")


def _checked(number: int, text: str, value: Any) -> Line:
    try:
        return Line(number, len(text), _refuse_nul(text, value))
    except BadLine as bad:
        return Line(number, len(text), None, str(bad))


def _skip(text: str, at: int, line: int) -> tuple[int, int]:
    """Return the place after white space and the line that it is on."""
    while at < len(text) and text[at] in " \t\r\n":
        line += text[at] == "\n"
        at += 1
    return at, line
