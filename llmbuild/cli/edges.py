"""Where the process meets the system: its streams, its limits, and its arguments.

A command's own code catches nothing that it does not expect.  An error of the system that no nearer code has
named ends here: with the operation's own words, the file, and an exit code that is not that of a bug.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from llmbuild.printable import is_text

if TYPE_CHECKING:
    from llmbuild.errors import LlmbuildError

_FIXES: Mapping[int, str] = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota of that disk",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "ask for the permission, or choose another place",
    errno.EPERM: "ask for the permission, or choose another place",
    errno.EMFILE: "allow more open files (`ulimit -n`), at least 64",
    errno.ENFILE: "close other programs: the system has no more open files to give",
    errno.ENOMEM: "allow more memory (`ulimit -v`), or close other programs",
    errno.EAGAIN: "allow more processes (`ulimit -u`), or close other programs",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "look after the disk: the system could not read or write it",
}
_OF_STREAMS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})
"""Without a file's name these errors come from an open stream, in a command the one that it prints to."""

_NO_THREAD = "can't start new thread"
_NO_MEMORY = "std::bad_alloc"
"""TVM's message for memory that it did not get; its error has no type of its own."""


class Terminated(SystemExit):
    """SIGTERM.  It ends the command as Ctrl-C does, also where Ctrl-C ends less, such as one answer of a chat."""


def end_at_sigterm() -> None:
    """From now on SIGTERM raises Terminated, unless whoever started the process has it ignored."""
    import signal

    def end(_number: int, _frame: object) -> NoReturn:
        raise Terminated(130)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def open_streams() -> None:
    """Open every closed standard stream on the null device, and make all of them accept any text.

    Otherwise the next file that is opened would be standard output to whatever prints.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given, which is this one.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for the whole process.
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def give_up(stream: TextIO) -> None:
    """Redirect a standard stream to the null device: Python would try once more to write to it at its exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        # A stream without a descriptor writes nothing at the exit.
        return


def leave(code: int) -> NoReturn:
    """End the process with an exit code.

    Python would free every object first, which takes an eighth of a build that has nothing to do.  A process with further
    threads ends in Python's way.
    """
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        sys.exit(code)
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def say(text: str) -> None:
    """Print to standard error; where that cannot be written, the exit code alone reports the error."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def require_text(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument whose bytes are not text: no file could record what is made of it."""
    for argument in arguments:
        if is_text(argument):
            continue
        from llmbuild.errors import UsageError

        raise UsageError(
            f"the argument '{argument}' is not text in the encoding of this terminal",
            why=f"the encoding is {sys.getfilesystemencoding()}",
            fix="rename what it names, or choose a UTF-8 locale, such as LC_ALL=C.UTF-8",
        )


def expected(error: Exception) -> LlmbuildError | None:
    """An error of the system as one for the user; None for what can only be a bug of llmbuild."""
    from llmbuild.errors import LlmbuildError, StoreError, ToolchainError

    match error:
        case LlmbuildError():
            return error
        case Exception() if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
            return StoreError("there is not enough memory", fix=_FIXES[errno.ENOMEM])
        case RuntimeError() if str(error) == _NO_THREAD:
            return StoreError("the system gives no further thread", fix=_FIXES[errno.EAGAIN])
        case ImportError() if not (error.name or "").startswith("llmbuild"):
            return ToolchainError(
                f"the Python package {error.name or 'that llmbuild needs'} cannot be loaded",
                where=error.path,
                why=str(error),
                fix="reinstall it (`pip install --force-reinstall`), and allow enough memory and open files",
            )
        case OSError(errno=int(number)):
            names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
            what = "the system refused to read or write" if names else "the system refused what llmbuild needs"
            if not names and number in _OF_STREAMS:
                what = "standard output or standard error cannot be written"
            return StoreError(
                what,
                where=" -> ".join(names) or None,
                why=error.strerror,
                fix=_FIXES.get(number),
            )
    return None
