"""Laws of conversation text: parse partitions it, and reads back what build wrote."""

from hypothesis import given
from hypothesis import strategies as st

from madlog.schemas import NAME_PATTERN
from madlog.schemas.text import (
    SHORTHAND,
    Code,
    Command,
    Link,
    Prefix,
    Segment,
    build,
    code_of,
    escape,
    parse,
    unescape,
)

# Pieces that mean something, so that arbitrary texts meet the rules and not only letters.
PIECES = [
    "@", "#", "`", "```", "\\", "\n", " ", "/", "./", "~/", "://", "https://", "|", "||", "=", ":",
    "SQL:", "EXECUTE: ", "COMMAND", "OK", "fyi", "FAIL", "@a", "#t", "a", "B", "_", "-", ".", ",",
    "?", "(", ")", '"', "'", "é", "\r", "\u2028", "1",
]  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXTS = st.text(CHARACTERS) | st.lists(st.sampled_from(PIECES)).map("".join)
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
TAGS = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)
WORDS = st.from_regex(r"[A-Z][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda word: word not in SHORTHAND and len(word) > 5 and word[-1] != "."
)
ARGS = st.lists(TEXTS, max_size=4).map(tuple)
OPTIONS = st.lists(st.tuples(WORDS, TEXTS), min_size=1, max_size=4).map(tuple)
PREFIXES: st.SearchStrategy[Prefix] = st.sampled_from(["EXECUTE", "COMMAND"])
LINKS = st.sampled_from(
    ["https://x.org/a?b=1#c", "s3://b/k", "/etc/hosts", "./a.txt", "../b", "~/c/d", "/a.b"]
).map(Link)
LANGUAGES = st.none() | st.sampled_from(["python", "sql", "c++", "c#", "objective-c"])
CODES = st.builds(Code, TEXTS, LANGUAGES)


@st.composite
def prefixed(draw: st.DrawFn) -> Command:
    if draw(st.booleans()):
        statement = draw(TEXTS.map(lambda text: text.replace("\n", " ").strip()).filter(bool))
        return Command("sql", (statement,), (), "SQL")
    if draw(st.booleans()):
        return Command(draw(WORDS), draw(ARGS), (), draw(PREFIXES))
    return Command(draw(WORDS), (), draw(OPTIONS), draw(PREFIXES))


BARE = st.builds(Command, WORDS, ARGS) | st.builds(Command, WORDS, st.just(()), OPTIONS)
SEGMENTS: st.SearchStrategy[list[Segment]] = st.lists(
    st.one_of(TEXTS, CODES, LINKS, prefixed()), max_size=6
)


@given(TEXTS)
def test_the_parts_are_the_text(text: str) -> None:
    parts = parse(text).parts
    assert "".join(part.text or "" for part in parts) == text
    assert all(part.text for part in parts)


@given(TEXTS)
def test_parsing_what_a_turn_says_again_changes_nothing(text: str) -> None:
    parsed = parse(text)
    assert parse("".join(part.text or "" for part in parsed.parts)) == parsed


@given(TEXTS)
def test_escaped_text_says_nothing_but_itself(text: str) -> None:
    parsed = parse("prose: " + escape(text))
    assert (parsed.mentions, parsed.tags, parsed.commands, parsed.links) == ((), (), (), ())
    assert {part.content_class for part in parsed.parts} == {"prose"}
    assert unescape(escape(text)) == text


@given(SEGMENTS, st.lists(NAMES, unique=True), st.lists(TAGS, unique=True))
def test_a_built_text_reads_back(
    segments: list[Segment], mentions: list[str], tags: list[str]
) -> None:
    parsed = parse(build(segments, mentions=mentions, tags=tags))
    assert parsed.mentions == tuple(mentions)
    assert parsed.tags == tuple(tags)
    assert parsed.shorthand is None
    assert parsed.commands == tuple(s for s in segments if isinstance(s, Command))
    assert parsed.links == tuple(s.uri for s in segments if isinstance(s, Link))
    codes = [
        (code_of(part), part.language)
        for part in parsed.parts
        if part.content_class == "deterministic" and (part.text or "").lstrip().startswith("`")
    ]
    assert codes == [(s.text, s.language) for s in segments if isinstance(s, Code)]
    prose = unescape("".join(p.text or "" for p in parsed.parts if p.content_class == "prose"))
    place = 0
    for segment in (s for s in segments if isinstance(s, str)):
        place = prose.index(segment, place) + len(segment)


@given(BARE, NAMES, st.lists(TAGS, unique=True))
def test_a_bare_command_reads_back(command: Command, name: str, tags: list[str]) -> None:
    parsed = parse(build([command], mentions=[name], tags=tags))
    assert (parsed.command, parsed.mentions, parsed.tags) == (command, (name,), tuple(tags))
    assert [part.content_class for part in parsed.parts] == ["deterministic"]


@given(st.sampled_from(sorted(SHORTHAND)), st.lists(NAMES, unique=True, max_size=5))
def test_shorthand_reads_back(word: str, mentions: list[str]) -> None:
    parsed = parse(build(shorthand=word, mentions=mentions))
    assert (parsed.shorthand, parsed.mentions) == (word, tuple(mentions))
