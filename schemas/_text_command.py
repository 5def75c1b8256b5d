"""Commands inside a text: their grammar, reading and writing them."""

import re
from dataclasses import dataclass
from typing import Literal

from madlog.schemas.errors import InvalidEvent

__all__ = ("PREFIXES", "SHORTHAND", "Command", "Prefix", "read_command", "write_command")

Prefix = Literal["EXECUTE", "SQL", "COMMAND"]
PREFIXES: tuple[Prefix, ...] = ("EXECUTE", "SQL", "COMMAND")

SHORTHAND = frozenset({"HRU?", "OK", "ACK", "BRB", "IDK", "FYI", "TBD", "FAIL"})

# Words of sentences: "@dewey please import the file" asks, "@dewey import FILE" commands.
# fmt: off
_SENTENCE_WORDS = frozenset({
    "a", "an", "the", "please", "is", "are", "was", "were", "be", "been", "am", "can", "could",
    "would", "will", "shall", "should", "may", "might", "must", "do", "does", "did", "has",
    "have", "had", "you", "your", "i", "me", "my", "we", "us", "our", "he", "she", "they", "them",
    "it", "its", "this", "that", "these", "those", "what", "when", "where", "which", "who",
    "whom", "whose", "why", "how", "and", "or", "but", "if", "because", "so", "not", "no", "yes",
    "hi", "hello", "hey", "thanks", "thank", "sorry", "just", "also", "still", "already", "let's",
    "lets",
})
# fmt: on
_ARGS_MAX = 64
_VERB = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*+")
_UPPER_VERB = re.compile(r"[A-Z][A-Z0-9_.-]*+")
_QUOTED = r'"((?:[^"\\\n]|\\[^\n])*+)"'
_TOKEN = re.compile(rf'\s*+(?:{_QUOTED}(?=\s|\Z)|([^\s"]++))(?=\s|\Z)')
_PAIR = re.compile(rf'\s*+\|\|\s*+([A-Za-z][A-Za-z0-9_.-]*+)=(?:{_QUOTED}|([^|"\n]*+))')
_SAFE_ARG = re.compile(r"[A-Za-z0-9_./:=+%~-]*[A-Za-z0-9_/=+%~-]", re.ASCII)
_SAFE_VALUE = re.compile(r"[A-Za-z0-9_./:=+%~-]*", re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Command:
    """A command in a text: a verb with arguments, or (double-bar form) with named options.

    `prefix` is EXECUTE, SQL (verb "sql", the statement as its one argument) or COMMAND.
    """

    verb: str
    args: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    prefix: Prefix | None = None


def _unquote(text: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _is_safe_arg(arg: str) -> bool:
    return bool(_SAFE_ARG.fullmatch(arg)) and arg.lower() not in _SENTENCE_WORDS


def _read_options(text: str, position: int) -> tuple[tuple[str, str], ...] | None:
    """Read `|| KEY=VALUE` from `position` to the end, None if something else stands there."""
    pairs = []
    while match := _PAIR.match(text, position):
        raw = match[3]
        pairs.append((match[1], _unquote(match[2]) if raw is None else raw.strip()))
        position = match.end()
    return tuple(pairs) if pairs and not text[position:].strip() else None


def _read_compact(text: str, verb: re.Pattern[str]) -> Command | None:
    start = len(text) - len(text.lstrip())
    head = verb.match(text, start)
    options = _read_options(text, head.end()) if head else None
    return Command(head[0], (), options) if head and options else None


def _tokens(text: str) -> list[tuple[str, bool]] | None:
    """Split into (token, was it quoted), None where a quote is left open."""
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match:
            return None
        quoted = match[1] is not None
        found.append((_unquote(match[1]) if quoted else match[2], quoted))
        position = match.end()
    return found


def _is_plain(token: str) -> bool:
    """Tell whether an unquoted token can stand in a command: sentences have other ones."""
    return (
        token[0] not in "@\\("
        and token[-1] not in ",.?!;"
        and "'" not in token
        and "`" not in token
        and token.lower() not in _SENTENCE_WORDS
    )


def read_command(text: str, prefix: Prefix | None, *, addressed: bool) -> Command | None:
    """Read one line's command, after any leading mentions and prefix; None if it is prose.

    Without a prefix the line must be clean: `addressed` to one name, no word of sentences.
    """
    if prefix == "SQL":
        statement = text.strip()
        return Command("sql", (statement,), (), "SQL") if statement else None
    compact = _read_compact(text, _VERB if prefix or addressed else _UPPER_VERB)
    if compact:
        return Command(compact.verb, (), compact.options, prefix)
    tokens = _tokens(text)
    if prefix:
        words = [token for token, _ in tokens] if tokens is not None else text.split()
        return Command(words[0], tuple(words[1:]), (), prefix) if words else None
    if not addressed or not tokens or len(tokens) > _ARGS_MAX:
        return None
    if not all(quoted or _is_plain(token) for token, quoted in tokens):
        return None
    verb, quoted = tokens[0]
    if quoted or not _VERB.fullmatch(verb) or verb.upper() in SHORTHAND:
        return None
    return Command(verb, tuple(token for token, _ in tokens[1:]))


def write_command(command: Command, *, addressed: bool) -> str:
    """Write a command so that `read_command` reads it back; raises InvalidEvent if none does."""
    if command.prefix == "SQL":
        line = command.args[0] if len(command.args) == 1 else ""
    elif command.options:
        pairs = [
            f"{key}={value if _SAFE_VALUE.fullmatch(value) else _quote(value)}"
            for key, value in command.options
        ]
        line = " || ".join([command.verb, *pairs])
    else:
        args = [arg if _is_safe_arg(arg) else _quote(arg) for arg in command.args]
        line = " ".join([command.verb, *args])
    if "\n" in line or read_command(line, command.prefix, addressed=addressed) != command:
        raise InvalidEvent(
            f"the command {command.verb[:80]!r} cannot be written as one line of text: a verb is "
            "one word, options and arguments exclude each other, SQL takes one line, and without "
            "a prefix it is addressed to exactly one name"
        )
    return f"{command.prefix}: {line}" if command.prefix else line
