"""The registry client: against a real registry, and against servers that misbehave."""

import asyncio
import base64
import http.client
import json
import socket
import threading
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.acceptance.cli import madlog
from tests.interop.answering import Asked, answering

from madlog.schemas import IncompatibleSchema
from madlog.schemas.codec import schema_events
from madlog.topics.errors import LogUnavailable, WrongAddress
from madlog.topics.framing import subject
from madlog.topics.schema_registry import HttpSchemaRegistry

OPEN = {"type": "record", "name": "madlog.Sample", "fields": [{"name": "a", "type": "string"}]}
CLOSED = {"type": "record", "name": "madlog.Sample", "fields": [{"name": "b", "type": "long"}]}


def put(url: str, path: str, body: object) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    connection.request("PUT", parts.path + path, json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    connection.close()


@pytest.mark.xdist_group("registry")
@pytest.mark.timeout(400)  # the first time, the registry is fetched
class TestWithARealRegistry:
    async def test_registering_twice_gives_one_id_and_the_id_gives_the_schema(
        self, registry_url: str
    ) -> None:
        registry = HttpSchemaRegistry(registry_url)
        for event in schema_events():
            name = subject(event.subject_name)
            number = await registry.register(name, event.schema_text)
            assert await registry.register(name, event.schema_text) == number
            text = await registry.schema_text(number)
            assert text is not None
            assert json.loads(text) == json.loads(event.schema_text)

    async def test_an_id_that_nobody_was_given_is_no_schema(self, registry_url: str) -> None:
        assert await HttpSchemaRegistry(registry_url).schema_text(2_000_000_000) is None

    async def test_what_the_registry_holds_incompatible_is_refused(self, registry_url: str) -> None:
        registry = HttpSchemaRegistry(registry_url)
        name = f"madlog.Sample-{uuid.uuid4().hex}"
        await registry.register(name, json.dumps(OPEN))
        put(registry_url, f"/config/{name}", {"compatibility": "FULL_TRANSITIVE"})
        with pytest.raises(IncompatibleSchema, match=f"refused the schema of {name}"):
            await registry.register(name, json.dumps(CLOSED))

    async def test_an_address_that_is_not_the_protocols_is_named(self, registry_url: str) -> None:
        parts = urlsplit(registry_url)
        registry = HttpSchemaRegistry(f"http://{parts.netloc}/elsewhere")
        with pytest.raises(LogUnavailable, match="its path included"):
            await registry.schema_text(1)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b'{"error_code": 50001, "message": "the store\\nis away"}', "500: the store is away"),
        (200, b"<html>a proxy's page</html>", "with 200: see that MADLOG_SCHEMA_REGISTRY_URL"),
        (200, b"[]", "with 200: see"),
        (200, b'{"id": true}', "with 200: see"),
        (200, b'{"id": 4294967296}', "with 200: see"),
        (301, b"", "with 301: see"),
        (401, b"", r"denied POST /subjects/madlog.Turn/versions \(401\)"),
        (403, b"", "USER:PASSWORD@HOST"),
    ],
)
async def test_an_answer_that_is_no_id_is_said_in_one_sentence(
    status: int, body: bytes, said: str
) -> None:
    with answering(lambda asked: (status, body)) as server:
        registry = HttpSchemaRegistry(f"http://ada:s3cret@127.0.0.1:{server.port}")
        with pytest.raises(LogUnavailable, match=said) as caught:
            await registry.register("madlog.Turn", "{}")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (404, b'{"error_code": 404, "message": "no such path"}'),
        (404, b"no such path"),
    ],
)
async def test_an_answer_that_is_no_schema_is_said(status: int, body: bytes) -> None:
    with answering(lambda asked: (status, body)) as server:
        registry = HttpSchemaRegistry(f"http://127.0.0.1:{server.port}")
        with pytest.raises(LogUnavailable, match=f"GET /schemas/ids/7 with {status}"):
            await registry.schema_text(7)


async def test_a_schema_of_another_language_is_none() -> None:
    body = b'{"schemaType": "PROTOBUF", "schema": "message A {}"}'
    with answering(lambda asked: (200, body)) as server:
        assert await HttpSchemaRegistry(f"http://127.0.0.1:{server.port}").schema_text(7) is None


async def test_requests_are_those_of_the_protocol() -> None:
    with answering(lambda asked: (200, b'{"id": 7, "schema": "text"}')) as server:
        registry = HttpSchemaRegistry(f"http://ada:p%40ss@127.0.0.1:{server.port}/api/v7/")
        assert await registry.register("madlog.Turn/1", "text") == 7
        assert await registry.schema_text(7) == "text"
    post, get = server.asked
    assert (post.method, post.path) == ("POST", "/api/v7/subjects/madlog.Turn%2F1/versions")
    assert post.body == {"schema": "text"}
    assert post.headers["Content-Type"] == "application/vnd.schemaregistry.v1+json"
    assert (get.method, get.path, get.body) == ("GET", "/api/v7/schemas/ids/7", None)
    token = base64.b64encode(b"ada:p@ss").decode()
    assert {one.headers["Authorization"] for one in server.asked} == {f"Basic {token}"}


async def test_the_loop_goes_on_while_a_registry_is_slow() -> None:
    go_on = threading.Event()
    asked_for = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(asked: Asked) -> tuple[int, bytes]:
        loop.call_soon_threadsafe(asked_for.set)
        return (200 if go_on.wait(30) else 500), b'{"id": 7}'

    with answering(slowly) as server:
        registry = HttpSchemaRegistry(f"http://127.0.0.1:{server.port}")
        asking = asyncio.create_task(registry.register("madlog.Turn", "{}"))
        await asked_for.wait()
        go_on.set()
        assert await asking == 7


async def test_a_registry_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LogUnavailable, match=r"cannot be reached \(timed out\)"):
            await HttpSchemaRegistry(url, timeout_s=0.1).schema_text(1)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8081",
        "ftp://ada:s3cret@localhost",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://host/a?b=c",
        "http://host/a b\n",
        "http://höst/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(WrongAddress, match="MADLOG_SCHEMA_REGISTRY_URL") as caught:
        HttpSchemaRegistry(url)
    assert "s3cret" not in str(caught.value)


def test_a_registry_that_is_away_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        said = ("append", "-c", "c1", "-s", "ada", "-t", "shop", "hello")
        done = madlog(*said, cwd=tmp_path, env={"MADLOG_SCHEMA_REGISTRY_URL": url})
    assert f"the schema registry at {url} cannot be reached" in done.refused(3)
