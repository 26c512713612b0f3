"""Tests mirror the source; `tests/support` has what several of them share."""
