"""Starts the command `tailfill` before anything that takes time is imported, so that signals end it in order at any moment."""

from __future__ import annotations

from shared.early_interrupt import end_at_signals


def main() -> None:
    """Runs the command with the arguments of the process."""
    end_at_signals()
    from jobs.__main__ import main as run

    run()
