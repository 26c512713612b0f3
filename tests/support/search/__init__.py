"""What the tests of searches share: processes to be killed, servers to be stopped, and a record of what became of every trial."""
