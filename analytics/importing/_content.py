"""Content lists of chat messages as parts: text is parsed, data becomes parts by reference."""

import base64
import binascii
import hashlib
import re
from copy import deepcopy
from typing import Any

from madlog.analytics.exporting.rest import json_text
from madlog.analytics.importing._format import PutBlob
from madlog.schemas import Part
from madlog.schemas.text import parse

__all__ = ("clean", "content_of", "plain_text_of")

_SURROGATE = re.compile("[\ud800-\udfff]")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*);base64,")
# Where each type of item carries what becomes a part.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_DATA = {
    "image_url": (("image_url", "url"), ("image_url",)),
    "input_image": (("image_url",),),
    "input_audio": (("input_audio", "data"),),
    "file": (("file", "file_data"), ("file", "file_id")),
    "input_file": (("file_data",), ("file_id",), ("file_url",)),
}


def clean(text: str) -> str:
    """Return the text as UTF-8 can hold it: a lone surrogate becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", text) if not text.isascii() else text


def plain_text_of(content: Any) -> str | None:
    """Return the texts of a content list joined, None where there is no content."""
    if not isinstance(content, list):
        return None
    found = (item.get("text") for item in content if isinstance(item, dict))
    return clean("".join(text for text in found if isinstance(text, str)))


def content_of(
    content: list[Any], put_blob: PutBlob | None
) -> tuple[tuple[Part, ...], tuple[str, ...], tuple[str, ...], str]:
    """Return (parts, mentions, tags, items): the items as JSON text with their data taken out."""
    parts: list[Part] = []
    mentions: dict[str, None] = {}
    tags: dict[str, None] = {}
    entries: list[dict[str, Any]] = []
    for item in content:
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and isinstance(item.get(_TEXTS.get(kind)), str):
            field = _TEXTS[kind]
            found = parse(clean(item[field]))
            parts += found.parts
            mentions |= dict.fromkeys(found.mentions)
            tags |= dict.fromkeys(found.tags)
            kept = {"item": _without(item, (field,)), "at": [field], "parts": len(found.parts)}
            entries.append(kept)
            continue
        path = _data_path(item, kind)
        if path is None:
            entries.append({"item": item})
            continue
        part, how = _data_part(item, path, put_blob)
        parts.append(part)
        entries.append({"item": _without(item, path), "at": list(path), "parts": 1, **how})
    return tuple(parts), tuple(mentions), tuple(tags), json_text(entries)


def _without(item: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a copy of an item whose value at `path` is taken out; it goes back there later."""
    copied = deepcopy(item)
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = None
    return copied


def _data_path(item: Any, kind: Any) -> tuple[str, ...] | None:
    for path in _DATA.get(kind, ()) if isinstance(kind, str) else ():
        value = item
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str) and value:
            return path
    return None


def _data_part(
    item: dict[str, Any], path: tuple[str, ...], put_blob: PutBlob | None
) -> tuple[Part, dict[str, Any]]:
    value = item
    for step in path:
        value = value[step]
    text = clean(str(value))
    prefix, media_type, uri = "", None, text
    if path[-1] == "data":
        audio = item["input_audio"].get("format")
        media_type = f"audio/{audio}" if isinstance(audio, str) and audio.isalnum() else None
        uri = f"data:{media_type or ''};base64,{text}"
    elif match := _DATA_URL.match(text):
        prefix, media_type = match[0], match[1]
    else:
        return Part(content_class="fixed", uri=text), {}
    data = _decoded(text[len(prefix) :])
    if data is None:
        return Part(content_class="fixed", uri=text, media_type=media_type), {}
    sha256 = hashlib.sha256(data).hexdigest() if put_blob is None else put_blob(data)
    part = Part(content_class="fixed", sha256=sha256, size=len(data), media_type=media_type)
    if put_blob is not None:
        return part, {"prefix": prefix}
    how = {"uri_prefix": uri[: len(uri) - len(text)]} if uri != text else {}
    return part.model_copy(update={"uri": uri}), how


def _decoded(text: str) -> bytes | None:
    """Return the bytes of base64 text that would be written the same again, else None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
