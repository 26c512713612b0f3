"""Contains the tests, which mirror the source; `tests/support` has the helpers that several of them share."""
