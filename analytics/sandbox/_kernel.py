"""Wall 3: what a child gives up before it sees a query, as far as this kernel knows how.

Landlock takes the file system and TCP away, seccomp every system call that a query does not need,
resource limits the rest. What is taken away cannot be had again. Linux; elsewhere limits alone.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ("kernel_walls", "landlock", "limit", "no_new_privileges", "seccomp")

_NO_NEW_PRIVS, _DEATH_SIGNAL, _SIGKILL = 38, 1, 9
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_READ_FILE = 1 << 2
# What each version of Landlock can take away: rights on files, on TCP, and out of the domain.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_SINCE, _SCOPE_SINCE = 4, 6

_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_CLONE_THREAD = 0x10000
# From this command on fcntl names the process that a file's signals go to: any of this user's.
_F_SETOWN, _F_DUPFD_CLOEXEC = 8, 1030
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The calls that a query needs: memory, threads, clocks, and its own open files.
_CALLS = """
    read write pread64 readv writev lseek close fstat newfstatat dup ftruncate
    mmap munmap mremap mprotect madvise brk
    futex set_robust_list rseq sched_yield sched_getaffinity getcpu sched_getparam
    sched_getscheduler rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday
    getpid gettid getuid geteuid getgid getegid getrandom sysinfo uname exit exit_group
"""
# seccomp's own number, the architecture's, calls whose arguments matter, those that look for files
# (stat lstat access faccessat statx, where there are such), and the calls above in their order.
_MACHINES = {
    "x86_64": (
        317, 0xC000003E, {"openat": 257, "clone": 56, "clone3": 435, "fcntl": 72},
        (4, 6, 21, 269, 332),
        (0, 1, 17, 19, 20, 8, 3, 5, 262, 32, 77, 9, 11, 25, 10, 28, 12, 202, 273, 334, 24, 204,
         309, 143, 145, 13, 14, 15, 131, 219, 228, 229, 230, 35, 96, 39, 186, 102, 107, 104, 108,
         318, 99, 63, 60, 231),
    ),
    "aarch64": (
        277, 0xC00000B7, {"openat": 56, "clone": 220, "clone3": 435, "fcntl": 25}, (48, 291),
        (63, 64, 67, 65, 66, 62, 57, 80, 79, 23, 46, 222, 215, 216, 226, 233, 214, 98, 99, 293,
         124, 123, 168, 121, 120, 134, 135, 139, 132, 128, 113, 114, 115, 101, 169, 172, 178, 174,
         175, 176, 177, 278, 179, 160, 93, 94),
    ),
}  # fmt: skip


def kernel_walls() -> dict[str, str]:
    """Return what this machine has of wall 3, in words: empty where it has nothing of a kind."""
    version = _landlock_version()
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    return {
        "landlock": f"version {version}" if version else "",
        "seccomp": f"filter of {len(machine[4]) + 3} calls" if machine and _has_seccomp() else "",
    }


def no_new_privileges() -> None:
    """Give up what other programs could give, and end with the process that started this one."""
    if sys.platform == "linux":
        _done(_libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        _done(_libc().prctl(_DEATH_SIGNAL, _SIGKILL, 0, 0, 0), "pdeathsig")


def limit(*, cpu_s: int, memory_bytes: int, file_bytes: int, files: int) -> None:
    """Limit processor time, memory beyond what is used now, written bytes and open files."""
    used = _memory_used()
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, used["VmSize"] + 4 * memory_bytes),
        # Private memory that can be written: address space counts what allocators only reserve.
        (resource.RLIMIT_DATA, used["VmData"] + memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _memory_used() -> dict[str, int]:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {"VmSize": 1 << 40, "VmData": 1 << 40}
    sizes = (line.split() for line in lines if line.startswith(("VmSize:", "VmData:")))
    return {words[0][:-1]: int(words[1]) << 10 for words in sizes}


def landlock(files: Sequence[str]) -> bool:
    """Take away the file system but for reading `files`, and TCP; tell whether it was possible."""
    version = _landlock_version()
    if not version:
        return False
    rights = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    net = 3 if version >= _NET_SINCE else 0
    scope = 3 if version >= _SCOPE_SINCE else 0
    size = 24 if scope else 16 if net else 8
    attributes = struct.pack("=QQQ", rights, net, scope)[:size]
    rules = _done(_libc().syscall(_CREATE_RULESET, attributes, size, 0), "landlock")
    for name in files:
        at = os.open(name, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_FILE, at)
        _done(_libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), "landlock")
        os.close(at)
    _done(_libc().syscall(_RESTRICT_SELF, rules, 0), "landlock")
    os.close(rules)
    return True


def seccomp(*, opens: bool) -> bool:
    """Take away the calls that a query does not need; tell whether that was possible.

    `opens` leaves it the call that opens files, for reading only.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or not _has_seccomp():
        return False
    number, architecture, special, looks, calls = machine
    code = _filter(architecture, special, (*calls, *looks) if opens else calls, opens)
    program = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    _done(_libc().syscall(number, 1, 0, head), "seccomp")
    return True


def _filter(architecture: int, special: dict[str, int], calls: Sequence[int], opens: bool) -> bytes:
    """Return the program of the filter: instructions of (code, jump if so, jump if not, value)."""
    load, equal, at_least, bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    number, arch, argument = 0, 4, 16
    lines = [
        (load, 0, 0, arch),
        (equal, 1, 0, architecture),
        (answer, 0, 0, _KILL),
        (load, 0, 0, number),
    ]
    for call in calls:
        lines += [(equal, 0, 1, call), (answer, 0, 0, _ALLOW)]
    # glibc falls back to clone, whose flags can be looked at.
    lines += [(equal, 0, 1, special["clone3"]), (answer, 0, 0, _ENOSYS)]
    lines += [
        (equal, 0, 4, special["clone"]),
        (load, 0, 0, argument),
        (bits, 0, 1, _CLONE_THREAD),
        (answer, 0, 0, _ALLOW),
        (answer, 0, 0, _EPERM),
    ]
    lines += [
        (equal, 0, 5, special["fcntl"]),
        (load, 0, 0, argument + 8),
        (equal, 1, 0, _F_DUPFD_CLOEXEC),
        (at_least, 1, 0, _F_SETOWN),
        (answer, 0, 0, _ALLOW),
        (answer, 0, 0, _EPERM),
    ]
    if opens:
        lines += [
            (equal, 0, 4, special["openat"]),
            (load, 0, 0, argument + 2 * 8),
            (bits, 1, 0, _WRITES),
            (answer, 0, 0, _ALLOW),
            (answer, 0, 0, _EPERM),
        ]
    lines.append((answer, 0, 0, _EPERM))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, 1)))


def _has_seccomp() -> bool:
    try:
        return Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    except OSError:
        return False


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(answer: int, what: str) -> int:
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return answer
