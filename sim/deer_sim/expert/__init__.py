"""A scripted expert that solves every task and can label any state, to learn from."""

from deer_sim.expert.expert import Expert

__all__ = ["Expert"]
