"""Makes the kernel end child processes when their parent dies, even if it is killed. See PR_SET_PDEATHSIG in prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # of linux/prctl.h

_libc = ctypes.CDLL(None)  # loaded before any fork


def die_with_parent(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Makes the kernel send `death_signal` to this process when its parent, whose process id is `parent`, dies.

    Call it in the child, between fork and exec or as its first step. It ends the child at once if the parent has died already. The kernel
    watches the thread that started the child, so only the parent's main thread may start it.
    """
    _libc.prctl(PR_SET_PDEATHSIG, death_signal.value, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
