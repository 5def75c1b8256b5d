"""τ-bench runs: one JSON line each, {task_id, trial, reward, info, traj}.

Tool call ids repeat in these files, within a run too, so an answer is matched by its place.
"""

from typing import Any

from madlog.analytics.importing._draft import Draft
from madlog.analytics.importing._errors import BadLine
from madlog.analytics.importing._fields import metadata_of
from madlog.analytics.importing._format import SourceObject, canonical_sha256
from madlog.analytics.importing._messages import actions_called, add_messages, check_messages
from madlog.schemas import SYNTHETIC_EPOCH_US, ConversationChanged, Event, Outcome, Source

__all__ = ("TauBench",)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class TauBench:
    """The format of τ-bench's recorded runs."""

    name = "tau-bench"
    documents = False
    # Task, trial and content together are the run's identity: the same line twice is one run.
    counts_equals = False

    def check(self, value: Any) -> dict[str, Any]:
        """Return the run if it has the shape of one; raises BadLine."""
        if not isinstance(value, dict):
            raise BadLine("not an object: a τ-bench run is {task_id, trial, reward, info, traj}")
        for field in ("task_id", "trial"):
            if not isinstance(value.get(field), int) or isinstance(value[field], bool):
                raise BadLine(f"`{field}` is missing or no whole number")
        if not _number(value.get("reward")):
            raise BadLine("`reward` is missing or no number")
        check_messages(value.get("traj"), "traj")
        return value

    def conversation(self, value: dict[str, Any]) -> str:
        """Return task, trial and the content's hash."""
        return f"{value['task_id']}/{value['trial']}/{canonical_sha256(value)}"

    def events(self, found: SourceObject) -> list[Event]:
        """Return the events of one run."""
        run = found.value
        task, trial, digest = found.conversation.split("/")
        draft = Draft(
            found.conversation,
            f"{self.name}-{task}-{trial}-{digest[:8]}",
            Source(format=self.name, sha256=found.file_sha256, line=found.line),
            SYNTHETIC_EPOCH_US,
            1_000_000,
            synthetic=True,
        )
        metadata = metadata_of(run, leave={"traj"}, actions=actions_called(run["traj"]))
        title = f"τ-bench task {task}, trial {trial}"
        draft.add(ConversationChanged, change="created", title=title, metadata=metadata)
        add_messages(draft, run["traj"], named_results=True)
        reward = run["reward"]
        result = {1.0: "success", 0.0: "failure"}.get(reward, "partial")
        draft.add(
            Outcome,
            after=draft.events[-1],
            mad="agent",
            result=result,
            quality=float(reward) if 0 <= reward <= 1 else None,
            judged_by="reward",
            about="conversation",
            about_id=draft.conversation_id,
        )
        return draft.events
