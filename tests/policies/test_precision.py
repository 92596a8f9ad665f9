"""Precisions: how weights are held, the bytes that it takes, what it does to actions, and what is refused."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deer_policies.deer import precision as precision_module
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, load, load_policy, save
from deer_policies.deer.config import changed
from deer_policies.deer.cost_table import cost_table
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.precision import PRECISIONS, Storage, held_bytes, is_packed, precision_named
from deer_policies.deer.presets import deer_nano, openflamingo_9b
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.interfaces import Budget, Observation
from deer_ros.cli.eval import make_policy
from deer_ros.cli.main import main

PACKED = ("int8", "int4")
GIB = 2.0**30
POSE_RMS = {"bfloat16": 0.003, "float16": 0.0005, "int8": 0.003, "int4": 0.02}
"""Bounds for the bundled policy, in units of the normalised action (1.0 = 0.02 m); measured: see docs/results.md."""


def written(path, **language) -> str:
    """A checkpoint with random weights and a nano policy's layout."""
    torch.manual_seed(3)
    config = changed(deer_nano(), {"language": {"layers": 4, **language}})
    tokenizer = Tokenizer.train(["open the drawer"], config.language.vocabulary, config.language.max_tokens)
    save(path, Checkpoint(DeerModel(config, auxiliary_heads=False), tokenizer))
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("precision") / "random.safetensors")


def expanded(weight: torch.Tensor) -> torch.Tensor:
    """What a weight (outputs, inputs) multiplies by, as float32."""
    return F.linear(torch.eye(weight.shape[1], dtype=weight.dtype), weight).T.float()


@pytest.mark.parametrize("name", PRECISIONS)
def test_each_weight_is_held_as_the_precision_says(path, name):
    original = dict(load(path).model.named_parameters())
    with torch.inference_mode():
        for key, weight in load(path, precision=name).model.named_parameters():
            value = original[key]
            linear = key.endswith(".weight") and key != "embedding.weight" and value.ndim == 2
            if key.startswith("head."):
                assert torch.equal(weight, value), key
                assert weight.dtype == torch.float32
            elif name in PACKED and linear and PRECISIONS[name].packing.fits(value):
                assert is_packed(weight), key
                groups = value.unflatten(1, (-1, 32)) if name == "int4" else value[:, None]
                steps = {"int8": groups.abs().amax(-1) / 127.5, "int4": (groups.amax(-1) - groups.amin(-1)) / 15}[name]
                # Half a step of rounding; weights before it, scales, zero points and the result are bfloat16, and so is
                # what is rounded, which between 8 and 15 steps has a resolution of a sixteenth.
                bound = (0.5 + 2.0**-5) * steps + groups.abs().amax(-1) * 2.0**-6
                off = (expanded(weight) - value).abs().view_as(groups)
                assert (off <= bound[..., None]).all(), key
                assert off.max() > 0.2 * steps.max(), key
            else:
                dtype = {"int8": "bfloat16", "int4": "bfloat16"}.get(name, name)
                assert torch.equal(weight, value.to(getattr(torch, dtype))), key


@pytest.mark.parametrize("name", PRECISIONS)
def test_memory_is_what_the_cost_table_says(path, name):
    policy = load_policy(path, precision=name)
    row = cost_table(policy.model.config).exits[-1]
    told = next(entry for entry in row.memory if entry.precision == name)
    assert held_bytes(policy.model) == told.weights_gib * GIB
    assert policy.memory_gib == policy.costs.memory_gib(1, PRECISIONS[name])
    # The cost model takes the longest text for a peak, the table the reference length.
    assert policy.memory_gib >= told.weights_gib + told.activations_gib
    # Nothing else holds weights: buffers are constants of a few numbers.
    assert sum(buffer.numel() for buffer in policy.model.buffers()) < 50


def test_smaller_precisions_take_less():
    for config in (deer_nano(), openflamingo_9b()):
        sizes = {entry.precision: entry.weights_gib for entry in cost_table(config).exits[-1].memory}
        assert list(sizes) == list(PRECISIONS)
        assert sizes["float32"] > sizes["bfloat16"] == sizes["float16"] > sizes["int8"] > sizes["int4"]


def test_a_memory_limit_allows_more_layers_in_a_smaller_precision(path):
    costs = CostModel(load(path).model.config)
    limit = Budget(peak_memory_gib=costs.memory_gib(0))
    assert len(load_policy(path, peak=limit).model.layers) == 2
    assert len(load_policy(path, peak=limit, precision="bfloat16").model.layers) == 4


@pytest.fixture(scope="module")
def real_observations():
    """The first second of an expert's episode, in the simulator's images."""
    from deer_sim.collection import begin_at, collect_episode
    from deer_sim.expert import Expert
    from deer_sim.playtable.environment import PlayTable
    from deer_sim.starts import sample_start

    rng = np.random.default_rng(0)
    start, words, expert = sample_start("open_drawer", "D", rng), "open the drawer", Expert("D")
    with PlayTable("D") as environment:
        first, _ = begin_at(environment, expert, start, 0)
        made = collect_episode(environment, expert, "open_drawer", words, first, rng, max_steps=30)
    frames = zip(made.rgb_static, made.rgb_gripper, made.robot_obs, strict=True)
    return [Observation(*frame, words, 0.0) for frame in frames]


def poses(observations, name) -> np.ndarray:
    policy = load_policy("deer-nano", precision=name)
    policy.set_exit_rule(ThresholdRule.fixed(3))
    state, taken = policy.initial_state(), []
    for observation in observations:
        chunk, state, _ = policy.step(observation, state)
        taken.append(chunk.actions[0, :6])
    assert chunk.actions.dtype == np.float32
    assert state.head.hidden.dtype == torch.float32
    return np.array(taken)


def test_actions_on_real_images_stay_near_those_of_float32(real_observations):
    exact = poses(real_observations, "float32")
    rms = {name: float(np.sqrt(np.mean((poses(real_observations, name) - exact) ** 2))) for name in POSE_RMS}
    print(rms)
    assert np.abs(exact).max() > 0.3
    assert all(0.0 < rms[name] < bound for name, bound in POSE_RMS.items()), rms
    assert rms["float16"] < rms["bfloat16"]
    assert rms["int8"] < rms["int4"]


def float32_tensors() -> dict[int, int]:
    """Bytes of each tensor of float32 numbers that is alive, by identity."""
    # Other tests of the process leave tensors without storage behind, which don't count.
    tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter)]
    return {id(t): t.nbytes for t in tensors if t.dtype == torch.float32 and t.device.type == "cpu"}


def test_loading_never_holds_a_float32_copy_of_the_layers(path, monkeypatch):
    """Counted while the last weight in front of the head is converted, when all others are there."""
    model = load(path).model
    last = [name for name, _ in model.named_parameters() if not name.startswith("head.")][-1]
    largest = max(weight.nbytes for weight in model.parameters())
    before, alive, real = float32_tensors(), [], Storage.stored

    def stored(storage, name, weight, device="cpu"):
        if name == last:
            alive.append(sum(size for key, size in float32_tensors().items() if key not in before))
        return real(storage, name, weight, device)

    monkeypatch.setattr(Storage, "stored", stored)
    for name in ("float32", "bfloat16", "int8"):
        load(path, precision=name)
    full, *smaller = alive
    assert full > 6 * largest
    assert max(smaller) <= 2 * largest


def test_a_file_in_bfloat16_is_loaded_as_it_is(path, tmp_path):
    first = load(path, precision="bfloat16")
    save(tmp_path / "half.safetensors", first, dtype=torch.bfloat16)
    again = load(tmp_path / "half.safetensors", precision="bfloat16").model.state_dict()
    trunk = {name: weight for name, weight in first.model.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(again[name], weight) for name, weight in trunk.items())


def test_packed_weights_are_not_written(path, tmp_path):
    with pytest.raises(CheckpointError, match=r"is packed as integers.*load it as float32"):
        save(tmp_path / "packed.safetensors", load(path, precision="int8"))


def test_names_that_there_are_not(path):
    allowed = "float32, bfloat16, float16, int8, int4"
    with pytest.raises(ConfigError, match=f"there is no precision 'int3'; choose one of {allowed}"):
        load_policy(path, precision="int3")


def test_a_missing_library_is_named_with_its_extra(path, monkeypatch):
    precision_module._torchao.cache_clear()
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"integer weights need torchao.*pip install 'deer_ros\[quantisation\]'"):
        load_policy(path, precision="int4")
    assert load_policy(path, precision="bfloat16").model.embedding.weight.dtype == torch.bfloat16


def test_the_library_is_imported_without_its_noise():
    code = "from deer_policies.deer.precision import precision_named; precision_named('int8')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=500)
    assert (done.stdout, done.stderr) == ("", "")


def test_layers_that_no_kernel_takes_are_told_and_counted(tmp_path, caplog):
    """int4 has 32 weights in a group, so a language model 80 wide can't be packed, but its 320 hidden features can."""
    path = written(tmp_path / "odd.safetensors", dim=80, heads=4)
    policy = load_policy(path, precision="int4")
    assert "no int4 kernel takes the shape of " in caplog.text
    assert "layers.0.cross_attention.to_q.weight" in caplog.text
    assert not is_packed(policy.model.layers[0].block.qkv.weight)
    assert is_packed(policy.model.layers[0].block.down.weight)
    assert held_bytes(policy.model) == Storage(PRECISIONS["int4"], policy.costs.empty_model(1)).bytes
    policy.step(example_observation(policy.info), policy.initial_state())
    caplog.clear()
    load_policy(path, precision="int8")
    assert caplog.text == ""


def test_what_torchao_passes_over_is_an_error():
    """It keeps a width that is no multiple of the group as it is."""
    precision_named("int4")
    with pytest.raises(CheckpointError, match=r"can't pack narrow \(16, 40\) as int4"):
        precision_module._packed("narrow", torch.zeros(16, 40, dtype=torch.bfloat16), PRECISIONS["int4"].packing)


def test_weights_beyond_float16(tmp_path, path):
    checkpoint = load(path)
    checkpoint.model.layers[1].block.out.weight.data[0, 0] = 1e5
    save(tmp_path / "large.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match=r"layers\.1\.block\.out\.weight has weights beyond the range of float16"):
        load(tmp_path / "large.safetensors", precision="float16")
    load(tmp_path / "large.safetensors", precision="bfloat16")


def test_eval_loads_the_precision_asked_for(tmp_path, capsys):
    assert make_policy("deer-nano", "bfloat16", 0.0).model.embedding.weight.dtype == torch.bfloat16
    with pytest.raises(SystemExit):
        main(["eval", "--precision", "int3", "--out", str(tmp_path)])
    assert "invalid choice: 'int3'" in capsys.readouterr().err
