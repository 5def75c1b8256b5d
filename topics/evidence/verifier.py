"""Verify a bundle of evidence: python verify.py [FOLDER [NAME+HASH+KEY, the key that you trust]].
Needs Python 3.11 and `cryptography`, no network, nothing of madlog. Exit code 1: something differs.
"""

import json
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from struct import pack, unpack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ("decoded", "main", "verify")


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _signed(name: str, public: bytes, text: str, line: str) -> str:
    """Return a text that this key has signed; the signature is written in the one way."""
    data = b64decode(line.split(" ")[-1])
    key_id = sha256(name.encode() + b"\n\x01" + public).digest()[:4]
    right = line == f"\u2014 {name} {b64encode(key_id + data[4:]).decode()}\n"
    _need(right, f"what {name} is to have signed is not signed by its key")
    Ed25519PublicKey.from_public_bytes(public).verify(data[4:], f"{text}\n".encode())
    return text


def _leaf(row: dict[str, Any]) -> bytes:
    """Return the hash of a record: key, value, then name and value of its covered headers."""
    covered = ("conversation", "kind", "sender", "source")
    pieces = [b64decode(row["key"]), b64decode(row["value"])]
    for name, value in row["headers"]:
        pieces += [name.encode(), b64decode(value)] if name in covered else []
    data = b"".join(pack(">I", len(one)) + one for one in pieces)
    return sha256(b"\x00\x01" + data).digest()


def _root(leaf: bytes, at: int, size: int, proof: bytes) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    last = size - 1
    for start in range(0, len(proof), 32):
        one = proof[start : start + 32]
        pair = one + leaf if at & 1 or at == last else leaf + one
        leaf = sha256(b"\x01" + pair).digest()
        while at == last and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    _need(last == 0 and at == 0, "a proof is not of a record in its tree")
    return leaf


def _long(data: BytesIO) -> int:
    value = shift = 0
    while (byte := data.read(1)[0]) > 0x7F:
        value, shift = value | (byte & 0x7F) << shift, shift + 7
    value |= byte << shift
    return value >> 1 ^ -(value & 1)


def _read(data: BytesIO, schema: Any, names: dict[str, Any]) -> Any:
    """Read an Avro value; bytes become a text of as many characters."""
    if isinstance(schema, list):
        return _read(data, schema[_long(data)], names)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in ("string", "bytes"):
        return data.read(_long(data)).decode("utf-8" if kind == "string" else "latin-1")
    if kind in ("int", "long"):
        return _long(data)
    if kind in ("null", "boolean"):
        return None if kind == "null" else data.read(1) == b"\x01"
    if kind == "double":
        return unpack("<d", data.read(8))[0]
    if kind in ("array", "map"):
        each = (one for count in iter(lambda: _long(data), 0) for one in range(count))
        if kind == "array":
            return [_read(data, schema["items"], names) for _ in each]
        return {_read(data, "string", names): _read(data, schema["values"], names) for _ in each}
    if kind == "enum":
        return names.setdefault(schema["name"], schema)["symbols"][_long(data)]
    if kind == "record":
        fields = names.setdefault(schema["name"], schema)["fields"]
        return {one["name"]: _read(data, one["type"], names) for one in fields}
    return _read(data, names[kind] if isinstance(kind, str) else kind, names)


def decoded(value: bytes, schemas: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of a record's value, None where it names no schema that is on the log."""
    schema = schemas.get(value[2:10].hex()) if value[:2] == b"\xc3\x01" else None
    return schema and {"kind": schema["name"][7:], **_read(BytesIO(value[10:]), schema, {})}


def verify(folder: Path, key: str | None = None) -> list[str]:
    """Return in words what was verified; raises ValueError and others where anything differs."""
    files = {one.name: one.read_bytes() for one in sorted(folder.iterdir())}
    for one in ("manifest.txt", "keys.txt", "checkpoints.txt", "records.jsonl", "events.jsonl"):
        _need(one in files, f"{one} is missing")
    vkey = files["keys.txt"].decode().split("\n")[0]
    _need(key in (None, vkey), f"it was not made with the key {key}, but with {vkey}")
    log, _, encoded = vkey.split("+", 2)
    public = b64decode(encoded)[1:]
    sealed = _signed(log, public, *files.pop("manifest.txt").decode().split("\n\n")).split("\n")
    there = [f"{sha256(content).hexdigest()}  {one}" for one, content in files.items()]
    wrong = sorted(line[66:] for line in {*sealed} ^ {*there})
    _need(not wrong, f"missing, added, or not as they were sealed: {', '.join(wrong)}")
    trees, seen = dict[str, tuple[int, bytes]](), dict[str, set[int]]()
    notes = files["checkpoints.txt"].decode().split("\n\n")
    for text, line in zip(notes[::2], notes[1::2], strict=True):
        origin, records, encoded = text.split("\n")
        _signed(origin, public, text, line.rstrip("\n") + "\n")
        _need(origin.startswith(f"{log}/"), f"{origin} is a tree of another log")
        trees[origin], seen[origin] = (int(records), b64decode(encoded)), set()
    lines = [files[one].decode().split("\n")[:-1] for one in ("records.jsonl", "events.jsonl")]
    rows, events = (list(map(json.loads, one)) for one in lines)
    told = [event for event in events if event and event["kind"] == "SchemaRegistered"]
    schemas = {event["fingerprint"]: json.loads(event["schema_text"]) for event in told}
    for row, event in zip(rows, events, strict=True):
        place, origin, (size, root) = row["index"], row["origin"], trees[row["origin"]]
        right = _root(_leaf(row), place, size, b64decode(row["proof"])) == root
        _need(right, f"record {place} of {origin} is not what was signed")
        says = json.dumps(decoded(b64decode(row["value"]), schemas), sort_keys=True)
        _need(says == json.dumps(event, sort_keys=True), f"event {place} of {origin} says else")
        seen[origin].add(place)
    whole = sum(len(seen[one]) == size for one, (size, _) in trees.items())
    return [
        f"{len(files)} files are as {log} sealed them, {len(trees)} checkpoints as it signed them.",
        f"{len(rows)} records are in the trees that it signed, each at its place.",
        f"{whole} of these trees are here whole: of them nothing is left out.",
        f"{sum(map(bool, events))} events are what the bytes of their records say.",
        f"The key is {vkey}" + (": compare it with the one that its owner published." * (not key)),
    ]


def main(arguments: list[str]) -> int:
    """Verify a folder, by default the current one; returns the exit code."""
    try:
        print("\n".join(verify(Path(*arguments[:1]), *arguments[1:2])))
    except Exception as error:
        print(f"REFUSED: {str(error) or 'a signature does not hold'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
