"""The training loss on episodes kept apart, with the same exits at every measurement, unaugmented, without dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.episodes import Episode
from deer_policies.training.exit_sampling import draw_exits, exit_shares
from deer_policies.training.objective import Batch, head_losses, total_loss
from deer_policies.training.parallel import Processes
from deer_policies.training.recipe import Optimisation


@torch.no_grad()
def held_out_loss(
    model: DeerModel,
    tokenizer: Tokenizer,
    episodes: Sequence[Episode],
    settings: Optimisation,
    seed: int,
    processes: Processes,
) -> float:
    """Mean loss over the steps of the episodes, each played once from its start; the processes share them out.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        episodes: not used for training.
        settings: those of the training.
        seed: of the exits that are drawn; the same seed draws the same.
        processes: of this run.
    """
    loss = steps = 0.0
    for index in range(processes.rank, len(episodes), processes.count):
        states: dict[str, HeadState] = {}
        for batch in _batches(episodes[index], index, tokenizer, len(model.exit_layers), settings, seed):
            losses, after = head_losses(model, batch.to(processes.device), states, settings)
            states = after if settings.carry_state else {}
            count = float(batch.weight.sum())
            loss, steps = loss + float(total_loss(losses, settings)) * count, steps + count
    loss, steps = processes.sums([loss, steps])
    return loss / steps


def _batches(
    episode: Episode, index: int, tokenizer: Tokenizer, exits: int, settings: Optimisation, seed: int
) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed + index)
    ids, mask = tokenizer.encode_batch([episode.instructions[index % len(episode.instructions)]])
    for first in range(0, len(episode.images), settings.window):
        part = slice(first, first + settings.window)
        labels = torch.from_numpy(episode.labels[part])[None]
        yield Batch(
            images=torch.from_numpy(episode.images[part])[None],
            token_ids=ids,
            token_mask=mask,
            proprioception=torch.from_numpy(episode.proprioception[part])[None],
            target=labels,
            weight=torch.from_numpy(episode.known[part])[None].float(),
            scene=torch.from_numpy(episode.scene[part])[None],
            landmarks=torch.from_numpy(episode.landmarks[part])[None],
            focus=torch.from_numpy(episode.focus[part])[None],
            starts=torch.zeros(1, dtype=torch.bool),
            exits=draw_exits(settings.samplings, 1, labels.shape[1], exit_shares(settings, exits), generator),
        )
