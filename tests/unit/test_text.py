import pytest

from madlog.schemas import InvalidEvent
from madlog.schemas.text import (
    SHORTHAND,
    Code,
    Command,
    Link,
    build,
    code_of,
    escape,
    parse,
    unescape,
)


def classes(text: str) -> list[tuple[str, str | None]]:
    return [(part.content_class, part.text) for part in parse(text).parts]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("hello @Dewey, is @fiedler-2 there?", ("dewey", "fiedler-2")),
        ("(@a) @b: @c. @A again", ("a", "b", "c")),
        ("write to bob@example.com or b.o+b@x.org", ()),
        ('"joe doe"@example.com and @example.com', ()),
        ("@ alone, @1, @@twice, @under_score, medium.com/@user", ()),
        (r"\@escaped and \\@not-escaped", ("not-escaped",)),
        ("`@inline` @out", ("out",)),
        ("```\n@fenced\n```\n@out", ("out",)),
        ("```\n@never closed, so all of it is code", ()),
        ("https://x.org/@path?to=@you ./a/@b.txt", ()),
        ("@" + "a" * 63, ("a" * 63,)),
        ("@" + "a" * 64, ()),
    ],
)
def test_mentions_are_names_and_nothing_that_looks_like_them(
    text: str, mentions: tuple[str, ...]
) -> None:
    assert parse(text).mentions == mentions


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("done #Review, #ack.", ("review", "ack")),
        ("#1 and #123 and 5# and $5 and C# and ##twice", ()),
        ("it costs $5 #deal", ("deal",)),
        (r"\#escaped", ()),
        ("`#code` https://x.org/p#section page.html#part &#x27;", ()),
        ("#a_b-c", ("a_b-c",)),
    ],
)
def test_tags_begin_with_a_letter_and_stand_alone(text: str, tags: tuple[str, ...]) -> None:
    assert parse(text).tags == tags


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("@Dewey import ./a.csv", Command("import", ("./a.csv",))),
        ("@dewey, import a@b.com #now", Command("import", ("a@b.com",))),
        ('@dewey say "it\'s the end"', Command("say", ("it's the end",))),
        ("EXECUTE: restart web", Command("restart", ("web",), (), "EXECUTE")),
        ("SQL: select '@x' from a", Command("sql", ("select '@x' from a",), (), "SQL")),
        ("@dewey #now COMMAND: stop", Command("stop", (), (), "COMMAND")),
        (
            "RESTART || HOST=a || NOTE=two words",
            Command("RESTART", (), (("HOST", "a"), ("NOTE", "two words"))),
        ),
        ("@dewey sync || to=x", Command("sync", (), (("to", "x"),))),
        (
            'COMMAND: put || KEY="a || b"',
            Command("put", (), (("KEY", "a || b"),), "COMMAND"),
        ),
    ],
)
def test_commands_are_read_from_their_forms(text: str, command: Command) -> None:
    parsed = parse(text)
    assert parsed.command == command
    assert {part.content_class for part in parsed.parts} == {"deterministic"}


@pytest.mark.parametrize(
    "text",
    [
        "@dewey please import the file",
        "@dewey can you import it?",
        "@dewey import ./a for @bob",
        "@dewey import ./a.\nAnd then rest.",
        r"@dewey \import ./a",
        '@dewey import "never closed',
        "x || y = z is how C says it",
        "see SQL: in the manual",
        r"\SQL: select 1",
        "SQL:",
        "execute: no",
        "@dewey",
    ],
)
def test_sentences_are_no_commands(text: str) -> None:
    parsed = parse(text)
    assert parsed.commands == ()
    assert {part.content_class for part in parsed.parts} <= {"prose", "fixed"}


def test_several_commands_are_all_listed_and_none_is_the_command() -> None:
    parsed = parse("EXECUTE: stop web\nEXECUTE: start web\n")
    assert [command.verb for command in parsed.commands] == ["stop", "start"]
    assert parsed.command is None


def test_a_prefix_takes_its_line_only_and_names_the_language() -> None:
    parsed = parse("SQL: select 1\nthanks @bob")
    assert parsed.parts[0].language == "sql"
    assert classes("SQL: select 1\nthanks @bob") == [
        ("deterministic", "SQL: select 1\n"),
        ("prose", "thanks @bob"),
    ]
    assert parsed.mentions == ("bob",)


@pytest.mark.parametrize("word", sorted(SHORTHAND))
def test_shorthand_alone_is_deterministic(word: str) -> None:
    for text in (word, word.lower(), f"@dewey {word}", f"{word} #ack"):
        parsed = parse(text)
        assert parsed.shorthand == word
        assert [part.content_class for part in parsed.parts] == ["deterministic"]


def test_fyi_introduces_prose_and_other_words_do_not() -> None:
    assert parse("FYI the disk is full").shorthand == "FYI"
    assert classes("FYI the disk is full")[0][0] == "prose"
    assert parse("OK so what happened").shorthand is None
    assert parse("OK?").shorthand is None
    assert parse(r"\OK").shorthand is None


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://x.org/a_(b)?c=1#d).", ("https://x.org/a_(b)?c=1#d",)),
        ("[docs](https://x.org/a), <s3://b/k>", ("https://x.org/a", "s3://b/k")),
        ("in /etc/hosts, ./a.txt, ../b and ~/c.", ("/etc/hosts", "./a.txt", "../b", "~/c")),
        ("and/or 5/10 w/o /s / https:// 1/2 </div> // ...", ()),
        (r"\https://x.org \/etc/hosts https:\//x.org", ()),
        ("`https://x.org` here", ()),
    ],
)
def test_links_are_fixed_parts_by_reference(text: str, links: tuple[str, ...]) -> None:
    parsed = parse(text)
    assert parsed.links == links
    fixed = [part for part in parsed.parts if part.content_class == "fixed"]
    assert tuple(part.uri for part in fixed) == tuple(part.text for part in fixed) == links


@pytest.mark.parametrize(
    ("text", "language", "code"),
    [
        ("a `x = 1` b", None, "x = 1"),
        ("a ``x ` y`` b", None, "x ` y"),
        ("```python\nprint(1)\n```\n", "python", "print(1)"),
        ("````\n```\n````", None, "```"),
        ("```Py title\n\n```", "py", ""),
        ("```sh\nnever closed", "sh", "never closed"),
        ("```\n```", None, ""),
    ],
)
def test_code_is_deterministic_with_its_language(
    text: str, language: str | None, code: str
) -> None:
    part = next(part for part in parse(text).parts if part.content_class == "deterministic")
    assert (part.language, code_of(part)) == (language, code)


def test_inline_code_ends_on_its_line() -> None:
    assert [kind for kind, _ in classes("a ` tick\n@bob and ` another")] == ["prose"]
    assert parse("a ` tick\n@bob and ` another").mentions == ("bob",)


def test_an_empty_text_says_nothing() -> None:
    assert parse("") == parse("").__class__()
    assert build() == ""


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_what_no_event_can_hold_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InvalidEvent, match="index 1"):
        parse(text)


def test_escaped_prose_is_prose_and_reads_as_it_was() -> None:
    text = "SQL: @a #b `c` https://x.org /etc/hosts \\ a || B=c bob@x.org"
    assert classes(escape(text)) == [("prose", escape(text))]
    assert unescape(escape(text)) == text


def test_build_writes_readable_text() -> None:
    assert build([Command("import", ("./a.csv",))], mentions=["Dewey"]) == "@dewey import ./a.csv"
    assert build(shorthand="OK", mentions=["dewey"], tags=["ack"]) == "OK @dewey #ack"
    text = build(["Look at", Link("./a.py"), "and", Code("x"), Code("y = 1", "python")])
    assert text == "Look at ./a.py and `x`\n```python\ny = 1\n```\n"


@pytest.mark.parametrize(
    "segments",
    [
        ["beside", Command("import", ("./a",))],
        [Command("import", ("./a",))],
        [Command("two words", prefix="EXECUTE")],
        [Command("sql", ("select\n1",), (), "SQL")],
        [Command("a", ("b",), (("c", "d"),), "COMMAND")],
        [Link("not a link")],
        [Link("and/or")],
        [Code("x", "Two Words")],
    ],
)
def test_build_refuses_what_would_not_read_back(
    segments: list[str | Code | Link | Command],
) -> None:
    with pytest.raises(InvalidEvent):
        build(segments)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a" * 64, "a@b"])
def test_build_refuses_names_and_tags_outside_the_pattern(name: str) -> None:
    with pytest.raises(InvalidEvent):
        build(mentions=[name])
    with pytest.raises(InvalidEvent):
        build(tags=[name])
    with pytest.raises(InvalidEvent):
        build(shorthand=name)


@pytest.mark.parametrize(
    "piece",
    ["`", "@", "#a", "\\", "/a", "../", "a+", "@a  ", "```\n", "```a\n", "` ``\n", ":", "A || B=",
     "https://x" + ")" * 9, " \n", "\n@a @b", "``` x\n```"],
)  # fmt: skip
def test_a_megabyte_made_to_stall_is_read_in_one_pass(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert "".join(part.text or "" for part in parse(text).parts) == text
