"""Several processes train as one does."""

import multiprocessing

import pytest
import torch

from deer_policies.errors import ConfigError
from deer_policies.training.objective import Batch
from deer_policies.training.optimiser import make_optimiser
from deer_policies.training.parallel import Processes
from deer_policies.training.recipe import Phase
from deer_policies.training.validation import held_out_loss
from tests.policies.training_runs import differing, fixed_batches


def part_of_batch(batch, rows):
    tensors = {name: getattr(batch, name)[rows] for name in Batch.__dataclass_fields__ if name != "exits"}
    return Batch(**tensors, exits={name: exits[rows] for name, exits in batch.exits.items()})


def two_updates(tiny, folder, processes, rows, initial=0):
    settings = tiny.settings(precision="float32", clip_norm=0.1)
    trainer = tiny.trainer(folder, settings, initial=initial, processes=processes)
    optimiser = make_optimiser(trainer.model, Phase(2, 1e-3), settings)
    found, gradients = [], []
    for batch in fixed_batches(tiny):
        found.append(trainer.update(part_of_batch(batch, rows), optimiser))
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
    episodes = [tiny.episode(steps, seed=steps) for steps in (4, 7, 11)]
    held_out = held_out_loss(trainer.average, tiny.tokenizer(tiny.config()), episodes, settings, 3, trainer._processes)
    weights = {"model": trainer.model.state_dict(), "average": trainer.average.state_dict()}
    return {**weights, "gradients": gradients, "found": found, "held_out": held_out}


def one_of_two(tiny, folder, rank):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(2 * rank, 2 * rank + 2)
    # The second process begins with other weights; the first one's count.
    result = two_updates(tiny, folder / str(rank), Processes(rank, 2), rows, initial=rank)
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_do_what_one_does_on_the_joined_batch(tiny, tmp_path):
    weights = [float(batch.weight[:2].sum() - batch.weight[2:].sum()) for batch in fixed_batches(tiny)]
    assert any(weights), "both halves count the same; the test would not see a mean of means"
    single = two_updates(tiny, tmp_path / "single", Processes(), slice(0, 4))
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=one_of_two, args=(tiny, tmp_path, rank)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=300)
    assert [child.exitcode for child in children] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for part in ("model", "average"):
        assert not differing(first[part], second[part])
        for name, value in single[part].items():
            torch.testing.assert_close(first[part][name], value, rtol=0.0, atol=1e-6)
    for ours, theirs, expected in zip(*(each["gradients"] for each in (first, second, single)), strict=True):
        assert len(expected) > 50
        assert not differing(ours, theirs)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    assert first["held_out"] == second["held_out"] == pytest.approx(single["held_out"], rel=1e-6)
    for ours, theirs, expected in zip(first["found"], second["found"], single["found"], strict=True):
        assert {name: ours[name] + theirs[name] for name in ours} == pytest.approx(expected, rel=1e-4)


def test_a_batch_that_can_not_be_shared_is_refused():
    assert Processes(0, 4).share(12) == 3
    with pytest.raises(ConfigError, match="a batch of 10 can't be shared by 4 processes"):
        Processes(0, 4).share(10)
