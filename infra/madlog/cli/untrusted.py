"""sql --untrusted: SQL that comes from others, in the sandbox; what doctor says of its walls."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import fail

if TYPE_CHECKING:
    from madlog.analytics.prices import PriceList
    from madlog.analytics.sql import Result
    from madlog.analytics.tables import Source
    from madlog.topics import EventLog, Vector

__all__ = ("PrincipalOption", "TimeoutOption", "UntrustedOption", "Walled", "wall_findings")

UntrustedOption = Annotated[
    bool,
    typer.Option("--untrusted", help="The SQL comes from others: in the sandbox, and recorded."),
]
PrincipalOption = Annotated[
    str | None,
    typer.Option("--principal", metavar="NAME", help="Who asks (default: this system's user)."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="It is stopped then (default 10)."),
]
_TIMEOUT_S_MAX = 3600.0


class Walled:
    """What `madlog sql --untrusted` asks by."""

    def __init__(self, principal: str | None, timeout_s: float | None) -> None:
        """Take the options of the command."""
        if timeout_s is not None and not 0.1 <= timeout_s <= _TIMEOUT_S_MAX:
            raise fail(f"--timeout is {timeout_s:g}: give seconds from 0.1 to 3600", 2)
        if principal is not None and not 0 < len(principal.strip()) <= 256:
            raise fail("--principal is empty or too long: name who asks", 2)
        self._principal = principal or _system_user()
        self._timeout_s = timeout_s

    @classmethod
    def chosen(
        cls, untrusted: bool, principal: str | None, timeout_s: float | None
    ) -> "Walled | None":
        """Return it where --untrusted is given; refuses its options where it is not."""
        if untrusted:
            return cls(principal, timeout_s)
        if principal is not None or timeout_s is not None:
            raise fail("--principal and --timeout are for --untrusted: add it", 2)
        return None

    async def query(
        self,
        log: "EventLog",
        text: str,
        as_of: "Vector | None",
        prices: "PriceList",
        source: "Source | None" = None,
    ) -> "Result":
        """Answer one SELECT in a sandbox. Raises what Sandbox.query raises."""
        from dataclasses import replace

        from madlog.analytics.sandbox import Limits, Sandbox

        limits = Limits()
        if self._timeout_s is not None:
            limits = replace(limits, timeout_s=self._timeout_s)
        async with Sandbox(log, limits=limits, source=source, prices=prices) as sandbox:
            return await sandbox.query(text, principal=self._principal, as_of=as_of)


def _system_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        import os

        return f"uid-{os.getuid()}"


def wall_findings() -> list[dict[str, Any]]:
    """Return what this machine has to hold the SQL of others, a row each for doctor."""
    from madlog.analytics.sandbox import kernel_walls

    lacks = {
        "landlock": "Linux 5.13 or newer with Landlock keeps SQL of others from all other files",
        "seccomp": "Linux on x86-64 or ARM64 keeps SQL of others from all other system calls",
    }
    return [
        {
            "what": f"sandbox: {name}",
            "found": found or "none",
            "ok": True,
            "advice": "" if found else lacks[name],
        }
        for name, found in kernel_walls().items()
    ]
