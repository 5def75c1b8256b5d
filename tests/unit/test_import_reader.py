"""Lines, documents, gzip, and each way in which a line can be bad."""

import gzip
from pathlib import Path

import pytest

from madlog.analytics.importing import BadLine, UnreadableFile
from madlog.analytics.importing import _reader as reader
from madlog.analytics.importing._reader import Line, SourceFile, document_objects, parse


def _lines(path: Path, data: bytes) -> list[Line]:
    path.write_bytes(data)
    return list(SourceFile(path).lines())


def test_lines_end_at_newline_only(tmp_path: Path) -> None:
    text = '{"a": "one\u0085two\u2028three\ufeff"}\n{"a": 2}'.encode()
    found = _lines(tmp_path / "a.jsonl", text)
    assert [line.value for line in found] == [{"a": "one\u0085two\u2028three\ufeff"}, {"a": 2}]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    found = _lines(tmp_path / "no-ending", gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
    assert [(line.number, line.value) for line in found] == [(1, {"a": 1}), (3, {"a": 2})]


def test_a_gzip_that_breaks_off_gives_its_beginning_and_a_bad_line(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"a": "%d"}\n' % n for n in range(50_000)))
    found = _lines(tmp_path / "a.gz", whole[: len(whole) // 2])
    assert found[0].value == {"a": "0"}
    assert len(found) > 1000
    assert "cut short" in (found[-1].reason or "")


def test_windows_line_ends_and_a_byte_order_mark_are_no_content(tmp_path: Path) -> None:
    found = _lines(tmp_path / "a", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [line.value for line in found] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": ', "broken JSON"),
        (b'{"a": 1} {"a": 2}', "second value"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (rb'{"a": ["\u0000"]}', "NUL"),
        (rb'{"\u0000": 1}', "NUL"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "too many digits"),
    ],
)
def test_a_bad_line_has_a_reason_and_the_next_follows(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    bad, good = _lines(tmp_path / "a", data + b'\n{"a": 1}\n')
    assert bad.value is None
    assert reason in (bad.reason or "")
    assert good == Line(2, 9, {"a": 1})


def test_a_written_out_backslash_is_no_nul() -> None:
    assert parse(rb'{"a": "\\u0000"}') == {"a": "\\u0000"}


def test_lone_surrogates_are_read() -> None:
    assert parse(rb'{"a": "\ud800"}') == {"a": "\ud800"}


def test_a_line_that_is_too_long_is_named_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LINE_BYTES_MAX", 2**20)
    found = _lines(tmp_path / "a", b"x" * (5 * 2**20) + b'\n{"a": 1}\n')
    assert [line.number for line in found] == [1, 2]
    assert "longer than 1 MiB" in (found[0].reason or "")
    assert found[1].value == {"a": 1}


def test_the_hash_is_of_the_raw_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    *_, sha256 = SourceFile(path).sha256()
    assert sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("data", "is_document"),
    [
        (b'{"a": 1}\n{"a": 2}\n', False),
        (b'{"a": 1}', False),
        (b'{\n "a": 1\n}\n', True),
        (b' [{"a": 1}]', True),
        (b"\n", False),
        (b'{"a": \n{"a": 1}\n', False),
    ],
)
def test_a_document_is_told_from_lines(tmp_path: Path, data: bytes, is_document: bool) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert (SourceFile(path).document() is not None) == is_document


def test_a_document_gives_its_objects_with_their_lines() -> None:
    found = list(document_objects(b'[\n{"a": 1},\n\n{"a":\n2}, {"a": "\\u0000"}\n]\n'))
    assert [(line.number, line.value) for line in found[:2]] == [(2, {"a": 1}), (4, {"a": 2})]
    assert found[2].number == 5
    assert "NUL" in (found[2].reason or "")
    assert list(document_objects(b'{\n"a": 1}')) == [Line(1, 9, {"a": 1})]
    assert list(document_objects(b" [ ] ")) == []


@pytest.mark.parametrize("data", [b'[{"a": 1}, {"a": ', b'[{"a": 1} 2]', b'[{"a": 1}] x'])
def test_a_broken_document_gives_what_stands_before_the_break(data: bytes) -> None:
    first, broken = document_objects(data)
    assert first.value == {"a": 1}
    assert "broken JSON" in (broken.reason or "")


def test_a_document_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "DOCUMENT_BYTES_MAX", 10)
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "more than ten"}]')
    with pytest.raises(UnreadableFile, match="one object a line"):
        SourceFile(path).document()


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="is a folder"):
        SourceFile(tmp_path)
    with pytest.raises(UnreadableFile, match="No such file"):
        SourceFile(tmp_path / "absent")


def test_bad_lines_are_no_error_of_the_program() -> None:
    with pytest.raises(BadLine, match="column 2"):
        parse(b"[")
