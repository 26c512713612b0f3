"""Keeps one Linux capability through a change of user: the one to read files whatever their permissions. See capabilities(7).

These functions run in a child between fork and exec, so they allocate little and take no lock.
"""

from __future__ import annotations

import ctypes

PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
VERSION_3 = 0x20080522  # of struct __user_cap_header_struct

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Half(ctypes.Structure):
    """Holds 32 of the 64 capabilities; ours are in the first half."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


_Sets = _Half * 2


def keep_through_setuid() -> None:
    """Makes this process keep its permitted capabilities through the next setuid."""
    _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)


def raise_read_everything() -> None:
    """Drops all permitted capabilities but the one to read everything, and makes that ambient.

    A container runtime may have removed CAP_DAC_READ_SEARCH from root (Docker does) but left the wider CAP_DAC_OVERRIDE. With neither the
    process has no such right, and fails at the first folder that it may not enter.
    """
    header, sets = _Header(VERSION_3, 0), _Sets()
    if _libc.capget(ctypes.byref(header), ctypes.byref(sets)) != 0:
        return
    wanted = next((c for c in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if sets[0].permitted & (1 << c)), None)
    mask = 0 if wanted is None else 1 << wanted
    sets[0].effective = sets[0].permitted = sets[0].inheritable = mask
    sets[1].effective = sets[1].permitted = sets[1].inheritable = 0
    if _libc.capset(ctypes.byref(header), ctypes.byref(sets)) == 0 and wanted is not None:
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, wanted, 0, 0)
