"""Holds helpers for tests of searches: processes to kill, servers to stop, and a record of what happened to every trial."""
