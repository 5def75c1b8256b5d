"""docs/evidence.md: its commands run, and it says of the verifier what is so."""

import re
import shlex
from pathlib import Path

from tests.acceptance.inside import inside

from madlog.config import Settings
from madlog.topics.evidence import verifier
from madlog.topics.evidence.leaves import COVERED_HEADERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_commands_run(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    ran = inside("append", "-c", "c1", "-s", "ada", "-t", "shop", "Where is it?", cwd=folder)
    assert ran.code == 0
    for line in SCRIPT.splitlines():
        name, *arguments = shlex.split(line, comments=True)
        assert name == "madlog"
        ran = inside(*arguments, cwd=folder)
        assert ran.code == 0, (line, ran.out, ran.err)
    assert verifier.verify(tmp_path / "c1-evidence")


def test_the_page_says_what_is_so() -> None:
    lines = len(Path(verifier.__file__).read_text(encoding="utf-8").splitlines())
    assert f"{lines} lines of Python" in PAGE
    assert f"(`MADLOG_EVIDENCE_INTERVAL_S`, {Settings().evidence_interval_s:g})" in PAGE
    assert ", ".join(f"`{name}`" for name in COVERED_HEADERS) in PAGE
