"""Tests a process whose parent is killed, and one whose parent has died before the call."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

PARENT = """
import os, subprocess, sys, time
from functools import partial
from shared.parent_death import die_with_parent
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, preexec_fn=partial(die_with_parent, os.getpid()))
print(child.pid, flush=True)
time.sleep(60)
"""
ORPHAN = """
from shared.parent_death import die_with_parent
die_with_parent(1_000_000_000)
print("still here")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(number)
        parent.wait()
    end = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.01)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_dead_already_ends() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
