"""The log of a run, for people and for TensorBoard."""

import struct

import pytest

from deer_policies.training import trainer as trainer_module
from deer_policies.training.log import TrainingLog
from deer_policies.training.recipe import Phase
from tests.policies.training_runs import records


def board(folder):
    """TensorBoard's events: (step, tag, value), or (step, 'start', None) where what came later is void."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = []
    for path in sorted((folder / "tensorboard").glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                found.append((event.step, "start", None))
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_log_holds_what_happened_for_people_and_for_tensorboard(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY_STEPS", 2)
    trainer = tiny.trainer(tmp_path)
    trainer.run(Phase(4, 1e-3, 0, schedule="constant"), tiny.streams(), "first")
    first, last = records(tmp_path)
    assert (first["step"], last["step"], last["total_steps"]) == (2, 4, 4)
    assert set(last["losses"]) == {"uniform", "segments", *(f"auxiliary_{k}" for k in range(2))}
    assert last["loss"] == pytest.approx(sum(last["losses"].values()), rel=1e-5)
    assert last["learning_rate"] == 1e-3
    assert last["gradient_norm"] > 0.0
    events = {(step, tag): value for step, tag, value in board(tmp_path)}
    assert events[4, "loss"] == pytest.approx(last["loss"])
    assert events[2, "losses/uniform"] == pytest.approx(first["losses"]["uniform"])
    assert events[4, "updates_per_s"] > 0.0


def test_log_drops_what_a_killed_run_has_written_after_its_last_save(tmp_path):
    with TrainingLog(tmp_path, 0, "joint") as log:
        for step in (10, 20, 30):
            log.write({"total_steps": step, "loss": float(step)})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"total_steps": 40, "lo')
    with TrainingLog(tmp_path, 20, "joint.again") as log:
        log.write({"total_steps": 30, "loss": 3.0})
        # On the disk at once, for a run that is killed.
        assert (30, "loss", 3.0) in board(tmp_path)
    assert [record["loss"] for record in records(tmp_path)] == [10.0, 20.0, 3.0]
    assert (21, "start", None) in board(tmp_path)
