r"""Conversation text: what a turn's words name, order, quote, point at.

- `@name` addresses (names as NAME_PATTERN, any case), `#tag` labels (a letter first, so `#1` is
  none). Neither counts inside code, links, commands' arguments, e-mail addresses or numbers.
- `EXECUTE:`, `SQL:`, `COMMAND:` at the start of a line make that line a command; so do a whole
  text `@name verb args`, and `VERB || KEY=VALUE || KEY=VALUE`.
- Fenced and inline code is deterministic; links and paths that begin with `/`, `./`, `../` or
  `~/` are fixed, by reference. A word of SHORTHAND alone is deterministic.
- A backslash takes the next character's meaning away; before the first word of a text it says
  that the text is prose, whatever it looks like.

The parts of a parsed text are an exact partition of it: joined they are the text.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from madlog.schemas._text_command import (
    PREFIXES,
    SHORTHAND,
    Command,
    Prefix,
    read_command,
    write_command,
)
from madlog.schemas.errors import InvalidEvent
from madlog.schemas.events import NAME_PATTERN, Part

__all__ = (
    "SHORTHAND",
    "Code",
    "Command",
    "Link",
    "Parsed",
    "Prefix",
    "Segment",
    "build",
    "code_of",
    "escape",
    "parse",
    "unescape",
)

# Longer texts are never one clean command or shorthand; this bounds the look-ahead.
_COMMAND_MAX = 4096

_EDGE = r"(?<![\w/.~+@%-])"
_PATH_START = r"(?:~|\.{1,2})?/"
_NAME = r"[A-Za-z][A-Za-z0-9-]{0,62}+"
_TAG = r"[A-Za-z][A-Za-z0-9_-]{0,62}+"
_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<escape>\\.)",
            r"^ {0,3}(?P<fence>`{3,}+)(?P<info>[^`\n]*+)$",
            rf"^(?P<lead>[^\S\n]*+(?:[@#]{_TAG}[,:]?[^\S\n]++)*+)"
            rf"(?P<prefix>{'|'.join(PREFIXES)}):(?P<line>[^\n]*+\n?)",
            r"(?P<ticks>`++)",
            rf"{_EDGE}(?P<url>[A-Za-z][A-Za-z0-9+.-]{{0,30}}+://[^\s<>\"`\\]++)",
            rf"{_EDGE}(?P<path>{_PATH_START}[\w.+@%,=-]++(?:/[\w.+@%,=-]*+)*+)",
            rf"(?<![\w@#+%/-])@(?P<name>{_NAME})(?![\w@]|\.\w)",
            rf"(?<![\w#@&/])#(?P<tag>{_TAG})(?![\w#@])",
        )
    ),
    re.MULTILINE,
)
# Each token has one of these in it.
_SIGNS = ("@", "#", "`", "/", "\\", *(f"{prefix}:" for prefix in PREFIXES))
_LEAD = re.compile(rf"\s*+(?:@({_NAME})|#({_TAG}))(?:[,:]?\s++|\Z)")
_MARK = re.compile(rf"(?:@({_NAME})|#({_TAG}))[,:.!]?")
_LANGUAGE = re.compile(r"[\w+#.-]+")
_ESCAPES = re.compile(
    rf"[\\@#`|]|{_EDGE}{_PATH_START}|" + "|".join(f"(?<={prefix}):" for prefix in PREFIXES)
)
_ESCAPED = re.compile(r"\\([\\@#`|/.~:])")
_PROSE_MARK = re.compile(r"\A(\s*)\\(?=[A-Za-z])")
_CLOSERS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code to write into a text."""

    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to write into a text: a URL or an explicit file path."""

    uri: str


Segment = str | Code | Link | Command


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text says; names and tags are in lower case, each once, in order of appearance."""

    parts: tuple[Part, ...] = ()
    mentions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    links: tuple[str, ...] = ()
    shorthand: str | None = None

    @property
    def command(self) -> Command | None:
        """The text's command, None where there is none or where there are several."""
        return self.commands[0] if len(self.commands) == 1 else None


class _Reader:
    """One pass over one text, collecting what it says."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[Part] = []
        self.mentions: dict[str, None] = {}
        self.tags: dict[str, None] = {}
        self.commands: list[Command] = []
        self.links: list[str] = []
        self.shorthand: str | None = None
        self._done = 0
        self._ticks: dict[int, list[int]] | None = None

    def parsed(self) -> Parsed:
        return Parsed(
            tuple(self.parts),
            tuple(self.mentions),
            tuple(self.tags),
            tuple(self.commands),
            tuple(self.links),
            self.shorthand,
        )

    def _part(
        self,
        content_class: Literal["deterministic", "fixed"],
        start: int,
        end: int,
        *,
        language: str | None = None,
        uri: str | None = None,
    ) -> int:
        self._prose(start)
        piece = self.text[start:end]
        self.parts.append(Part(content_class=content_class, text=piece, language=language, uri=uri))
        self._done = end
        return end

    def _prose(self, end: int) -> None:
        if end > self._done:
            self.parts.append(Part(content_class="prose", text=self.text[self._done : end]))
            self._done = end

    def mark(self, name: str | None, tag: str | None) -> None:
        if name:
            self.mentions[name.lower()] = None
        elif tag:
            self.tags[tag.lower()] = None

    def whole(self) -> bool:
        """Read the text as one command or shorthand; False where it is neither."""
        if len(self.text) > _COMMAND_MAX:
            return False
        self.shorthand, alone = _shorthand(self.text)
        if alone:
            for word in self.text.split():
                if match := _MARK.fullmatch(word):
                    self.mark(match[1], match[2])
            self._part("deterministic", 0, len(self.text))
            return True
        line = self.text.rstrip()
        if "\n" in line or not (line.lstrip().startswith("@") or "||" in line):
            return False
        return self._clean_command(line)

    def _clean_command(self, line: str) -> bool:
        position, marks = 0, []
        while match := _LEAD.match(line, position):
            marks.append((match[1], match[2]))
            position = match.end()
        if sum(name is not None for name, _ in marks) > 1:
            return False
        words = line[position:]
        # Tags may follow as well as lead; they are labels, not arguments.
        while (match := re.search(rf"\s#({_TAG})\Z", words)) and "||" not in words:
            marks.append((None, match[1]))
            words = words[: match.start()].rstrip()
        addressed = any(name for name, _ in marks)
        command = read_command(words, None, addressed=addressed)
        if command is None:
            return False
        for name, tag in marks:
            self.mark(name, tag)
        self.commands.append(command)
        self.links.extend(arg for arg in command.args if _is_link(arg))
        self._part("deterministic", 0, len(self.text))
        return True

    def scan(self) -> None:
        """Read the text token by token."""
        position = 0
        # Most messages have no token at all; to see that is far faster than to search.
        if not any(sign in self.text for sign in _SIGNS):
            position = len(self.text)
        while match := _TOKEN.search(self.text, position):
            position = self._token(match)
        self._prose(len(self.text))

    def _token(self, match: re.Match[str]) -> int:
        kind = match.lastgroup
        if kind == "name" or kind == "tag":
            self.mark(match["name"], match["tag"])
        elif kind == "info":
            return self._fence(match)
        elif kind == "line":
            return self._prefixed(match)
        elif kind == "ticks":
            return self._inline(match)
        elif kind == "url" or kind == "path":
            return self._link(match.start(), match[0], is_path=kind == "path")
        return match.end()

    def _fence(self, match: re.Match[str]) -> int:
        # As in Markdown, a fence that is never closed runs to the end.
        closing = re.compile(rf"^ {{0,3}}`{{{len(match['fence'])},}}+[ \t\r]*+$\n?", re.MULTILINE)
        closed = closing.search(self.text, match.end())
        end = closed.end() if closed else len(self.text)
        language = _LANGUAGE.match(match["info"].strip())
        return self._part(
            "deterministic",
            match.start(),
            end,
            language=language[0].lower() if language else None,
        )

    def _prefixed(self, match: re.Match[str]) -> int:
        prefix = cast(Prefix, match["prefix"])
        command = read_command(match["line"], prefix, addressed=False)
        position = match.start("lead")
        while lead := _LEAD.match(self.text, position, match.end("lead")):
            self.mark(lead[1], lead[2])
            position = lead.end()
        if command is None:
            return match.end()
        self.commands.append(command)
        return self._part("deterministic", match.start(), match.end(), language=prefix.lower())

    def _inline(self, match: re.Match[str]) -> int:
        if self._ticks is None:
            self._ticks = {}
            for run in re.finditer(r"`+", self.text):
                self._ticks.setdefault(len(run[0]), []).append(run.start())
        size = len(match[0])
        starts = self._ticks.get(size, [])
        index = bisect_left(starts, match.end())
        if index == len(starts) or self.text.find("\n", match.end(), starts[index]) >= 0:
            return match.end()
        return self._part("deterministic", match.start(), starts[index] + size)

    def _link(self, start: int, raw: str, *, is_path: bool) -> int:
        link = _trimmed(raw)
        if not (_is_path(link) if is_path else not link.endswith("://")):
            return start + len(raw)
        self.links.append(link)
        return self._part("fixed", start, start + len(link), uri=link)


def _trimmed(link: str) -> str:
    """Drop the punctuation of the sentence around a link; brackets that it opened stay."""
    surplus = {
        closer: link.count(closer) - link.count(opener) for closer, opener in _CLOSERS.items()
    }
    end = len(link)
    while end and (link[end - 1] in ".,;:!?'*_|" or surplus.get(link[end - 1], 0) > 0):
        if link[end - 1] in surplus:
            surplus[link[end - 1]] -= 1
        end -= 1
    return link[:end]


def _is_path(path: str) -> bool:
    """Tell whether a path is meant: `/s` and a lone `/` are not, `/etc/hosts` and `./a` are."""
    if path[0] != "/":
        return not path.endswith(("./", "~/")) and "/" in path
    return "/" in path[1:-1] or "." in path[2:]


def _is_link(text: str) -> bool:
    match = _TOKEN.match(text)
    if not match or match.end() != len(text) or match.lastgroup not in ("url", "path"):
        return False
    if _trimmed(text) != text:
        return False
    return _is_path(text) if match.lastgroup == "path" else not text.endswith("://")


def _shorthand(text: str) -> tuple[str | None, bool]:
    """Return the shorthand that a text is or begins with, and whether it is all it says."""
    words = [word for word in text.split() if not _MARK.fullmatch(word)]
    if not words:
        return None, False
    if len(words) == 1:
        word = words[0].rstrip(".!").upper()
        return (word, True) if word in SHORTHAND else (None, False)
    # These two introduce what they are about: "FYI the disk is full".
    word = words[0].rstrip(":,")
    return (word, False) if word in ("FYI", "FAIL") else (None, False)


def parse(text: str) -> Parsed:
    """Return what a text says; raises InvalidEvent for NUL and for lone surrogates."""
    if "\x00" in text:
        raise InvalidEvent(
            f"the text has a NUL character at index {text.index(chr(0))}: send bytes as a blob"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(
                f"the text is no Unicode text at index {error.start}: decode it as UTF-8 first"
            ) from error
    reader = _Reader(text)
    if not reader.whole():
        reader.scan()
    return reader.parsed()


def code_of(part: Part) -> str:
    """Return the code of a part that `parse` found in fences or ticks, without these."""
    text = part.text or ""
    match = _TOKEN.match(text)
    if match and match.lastgroup == "ticks":
        return text[match.end() : len(text) - match.end()]
    if not match or match.lastgroup != "info":
        return text
    body, closed = text[match.end() + 1 :], text.rstrip("\n").endswith(match["fence"])
    return re.sub(r"(\A|\n) {0,3}`+[ \t\r]*\n?\Z", "", body) if closed else body


def escape(text: str) -> str:
    """Return text that `parse` reads as plain prose, whatever stands in it."""
    return _ESCAPES.sub(lambda match: "\\" + match[0], text)


def unescape(text: str) -> str:
    """Return prose as it is to be read: without the backslashes that `escape` wrote."""
    return _ESCAPED.sub(r"\1", _PROSE_MARK.sub(r"\1", text))


def build(
    segments: Sequence[Segment] = (),
    *,
    mentions: Sequence[str] = (),
    tags: Sequence[str] = (),
    shorthand: str | None = None,
) -> str:
    """Return a text that says just this: `parse` reads it back. Raises InvalidEvent.

    A plain string is prose. Commands without a prefix stand alone; mentions and tags lead such
    a command and follow everything else.
    """
    marks = [_checked(f"@{name.lower()}", rf"@{NAME_PATTERN[1:-1]}") for name in mentions]
    marks += [_checked(f"#{tag.lower()}", rf"#{_TAG}") for tag in tags]
    if shorthand is not None:
        if segments or shorthand not in SHORTHAND:
            raise InvalidEvent(
                f"{shorthand[:80]!r} is no shorthand that stands alone: use one of "
                f"{', '.join(sorted(SHORTHAND))} and no other segment"
            )
        return " ".join([shorthand, *marks])
    bare = [part for part in segments if isinstance(part, Command) and not part.prefix]
    if bare:
        if len(segments) > 1:
            raise InvalidEvent(
                f"the command {bare[0].verb[:80]!r} stands beside other text: give it a prefix, "
                f"one of {', '.join(PREFIXES)}"
            )
        return " ".join([*marks, write_command(bare[0], addressed=len(set(mentions)) == 1)])
    text = _body(segments)
    if marks:
        text += ("" if not text or text[-1].isspace() else " ") + " ".join(marks)
    if _shorthand(text)[0]:
        text = re.sub(r"\A(\s*)", r"\1\\", text)
    return text


def _checked(mark: str, pattern: str) -> str:
    if not re.fullmatch(pattern, mark):
        raise InvalidEvent(
            f"{mark[:80]!r} cannot stand in a text: names and tags begin with a letter and have "
            "at most 63 letters, digits and hyphens"
        )
    return mark


def _body(segments: Sequence[Segment]) -> str:
    prose, written = "", ""
    for segment in segments:
        if isinstance(segment, str):
            # Joined before escaping: "SQL" and ":" are plain alone and a prefix together.
            prose += segment
            continue
        written, prose = _joined(written, escape(prose)), ""
        if isinstance(segment, Command):
            line = f"{write_command(segment, addressed=False)}\n"
            written = _on_new_line(written) + line
        elif isinstance(segment, Link):
            if not _is_link(segment.uri):
                raise InvalidEvent(
                    f"{segment.uri[:80]!r} cannot be linked in a text: give a URL without spaces "
                    "or a path that begins with /, ./, ../ or ~/"
                )
            written = _joined(written, segment.uri)
        elif segment.language or not segment.text or set("`\n") & set(segment.text):
            written = _on_new_line(written) + _fenced(segment)
        else:
            written = _joined(written, f"`{segment.text}`")
    return _joined(written, escape(prose))


def _joined(written: str, more: str) -> str:
    close = written and more and not written[-1].isspace() and not more[0].isspace()
    return f"{written} {more}" if close else written + more


def _on_new_line(written: str) -> str:
    return written if not written or written.endswith("\n") else written + "\n"


def _fenced(code: Code) -> str:
    language = code.language or ""
    if language and not (_LANGUAGE.fullmatch(language) and language == language.lower()):
        raise InvalidEvent(
            f"{language[:80]!r} is no language of a code block: use one word in lower case"
        )
    longest = max((len(run) for run in re.findall(r"`+", code.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.text}\n{fence}\n"
