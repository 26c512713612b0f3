"""Holds helpers that several test modules share."""
