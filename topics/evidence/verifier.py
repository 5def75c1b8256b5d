"""Verify a bundle of evidence: python verify.py [FOLDER [NAME+HASH+KEY, the key that you trust]].
Needs Python 3.11, `cryptography`, no network, nothing of madlog. Exit code 1: something differs."""

import json
import sys
from base64 import b64decode, b64encode
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path
from struct import pack, unpack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ("decoded", "verify")


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


def _root(row: dict[str, Any], size: int) -> bytes:
    """Return the root that a record's inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    pieces, covered = [row["key"], row["value"]], ("conversation", "kind", "sender", "source")
    for name, value in row["headers"]:
        pieces += [b64encode(name.encode()), value] if name in covered else []
    data = b"".join(pack(">I", len(one)) + one for one in map(b64decode, pieces))
    leaf, proof, at = sha256(b"\x00\x01" + data).digest(), b64decode(row["proof"]), row["index"]
    last = size - 1 if 0 <= at < size else -1
    for one in (proof[start : start + 32] for start in range(0, len(proof), 32)):
        _need(last > 0, "a proof is not of a record in its tree")
        pair = one + leaf if at & 1 or at == last else leaf + one
        leaf = sha256(b"\x01" + pair).digest()
        while at == last and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    _need(last == 0, "a proof is not of a record in its tree")
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
        return _read(data, dict(enumerate(schema))[_long(data)], names)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in ("string", "bytes"):
        return data.read(_long(data)).decode("utf-8" if kind == "string" else "latin-1")
    if kind in ("int", "long"):
        return _long(data)
    if kind in ("null", "boolean"):
        return None if kind == "null" else data.read(1) == b"\x01"
    if kind == "double":
        return unpack("<d", data.read(8))[0]
    if kind in ("array", "map"):  # in blocks: after a count below 0 stands the block's size
        blocks = iter(lambda: _long(data), 0)
        each = (one for n in blocks for one in range(n if n > 0 else (-n, _long(data))[0]))
        if kind == "array":
            return [_read(data, schema["items"], names) for _ in each]
        return {_read(data, "string", names): _read(data, schema["values"], names) for _ in each}
    if kind == "enum":
        return dict(enumerate(names.setdefault(schema["name"], schema)["symbols"]))[_long(data)]
    if kind == "record":
        fields = names.setdefault(schema["name"], schema)["fields"]
        return {one["name"]: _read(data, one["type"], names) for one in fields}
    return _read(data, names[kind] if isinstance(kind, str) else kind, names)


def decoded(value: bytes, schemas: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of a record's value, None where no schema that is on the log reads it."""
    schema = schemas.get(value[2:10].hex()) if value[:2] == b"\xc3\x01" else None
    data = BytesIO(value[10:] + b"!")  # what reads this byte too has read too far
    try:
        event = schema and {"kind": schema["name"][7:], **_read(data, schema, {})}
    except Exception:
        return None
    return event if data.read() == b"!" else None


def verify(folder: Path, key: str | None = None) -> list[str]:
    """Return in words what was verified; raises ValueError and others where anything differs."""
    files = {one.name: one for one in folder.iterdir()}
    for one in ("manifest.txt", "keys.txt", "checkpoints.txt", "records.jsonl", "events.jsonl"):
        _need(one in files, f"{one} is missing")
    vkey = files["keys.txt"].read_bytes().decode().split("\n")[0]
    _need(key in (None, vkey), f"it was not made with the key {key}, but with {vkey}")
    log, _, encoded = vkey.split("+", 2)
    public, manifest = b64decode(encoded)[1:], files.pop("manifest.txt").read_bytes().decode()
    wrong = {*_signed(log, public, *manifest.split("\n\n")).split("\n")}
    for name, path in files.items():
        with path.open("rb") as file:
            wrong ^= {f"{file_digest(file, 'sha256').hexdigest()}  {name}"}
    changed = ", ".join(sorted({line[66:] for line in wrong}))
    _need(not wrong, f"missing, added, or not as they were sealed: {changed}")
    trees, records, events = dict[str, list[Any]](), 0, 0
    notes = files["checkpoints.txt"].read_bytes().decode().split("\n\n")
    for text, line in zip(notes[::2], notes[1::2], strict=True):
        origin, size, encoded = text.split("\n")
        _signed(origin, public, text, line.rstrip("\n") + "\n")
        _need(origin.startswith(f"{log}/"), f"{origin} is a tree of another log")
        trees[origin] = [int(size), b64decode(encoded), -1, 0]  # the last place read, how many were
    with files["records.jsonl"].open("rb") as rows, files["events.jsonl"].open("rb") as told:
        known = (one for one in map(json.loads, told) if one and one["kind"] == "SchemaRegistered")
        schemas = {one["fingerprint"]: json.loads(one["schema_text"]) for one in known}
        told.seek(0)
        for row, event in zip(map(json.loads, rows), map(json.loads, told), strict=True):
            place, origin = row["index"], row["origin"]
            size, root, last, count = trees[origin]
            _need(_root(row, size) == root, f"record {place} of {origin} is not what was signed")
            _need(place > last, f"record {place} of {origin} stands out of its order")
            says = json.dumps(decoded(b64decode(row["value"]), schemas), sort_keys=True)
            _need(says == json.dumps(event, sort_keys=True), f"event {place} of {origin} says else")
            trees[origin][2:] = place, count + 1
            records, events = records + 1, events + bool(event)
    whole = sum(size == count for size, _, _, count in trees.values())
    return [
        f"{len(files)} files are as {log} sealed them, {len(trees)} checkpoints as it signed them.",
        f"{records} records are in the trees that it signed, each at its place.",
        f"{whole} of these trees are here whole: of them nothing is left out.",
        f"{events} events are what the bytes of their records say.",
        f"The key is {vkey}" + (": compare it with the one that its owner published." * (not key)),
    ]


if __name__ == "__main__":
    try:
        print("\n".join(verify(Path(*sys.argv[1:2]), *sys.argv[2:3])))
    except Exception as error:
        print(f"REFUSED: {str(error) or 'a signature does not hold'}")
        sys.exit(1)
