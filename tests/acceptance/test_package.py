"""What is installed is whole: the wheel made from the sdist holds every room and its data."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("topics", "processors", "mads", "schemas", "analytics")


def build(target: str, source: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("package")
    sdist = build("sdist", ROOT, folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (unpacked,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build("wheel", unpacked, folder / "wheel")) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_in_the_wheel(wheel: set[str], room: str) -> None:
    files = [path for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".avsc", ".sql")]
    assert files
    missing = {f"madlog/{path.relative_to(ROOT)}" for path in files} - wheel
    assert missing == set()


def test_nothing_is_installed_beside_the_package(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"madlog"}
