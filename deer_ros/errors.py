"""Errors of the running stack: a process that ended, a server that does not answer."""

from deer_policies.errors import DeerError


class StackError(DeerError):
    """Part of the running stack is missing, has ended, or did not answer in time."""


class NoAnswerError(StackError):
    """A question was not answered in time."""
