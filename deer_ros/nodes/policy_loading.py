"""Loads the policy that a node or a replay steps; knows nothing of ROS."""

from __future__ import annotations

from deer_policies.interfaces import Budget, Policy


def load_named(
    name: str, device: str, threads: int, precision: str, reuse_views_below: float, budget: Budget | None
) -> Policy:
    """Loads a bundled policy by name, or one from a checkpoint's path, to run on that many threads.

    Layers that the budget's peak limits leave out are not loaded; None is the checkpoint's budget.
    """
    import torch

    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.view_reuse import ViewReuse

    torch.set_num_threads(threads)
    policy = load_policy(name, device, budget, precision)
    policy.set_view_reuse(ViewReuse(reuse_views_below))
    return policy
