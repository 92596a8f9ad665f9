"""Import of releases: shards, formats, damage and downloads of the files that they come in."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

from deer_policies.deer.importing import ImportPlan, import_release
from deer_policies.errors import CheckpointError
from tests.policies import release_layouts as layouts


@pytest.mark.parametrize("safetensors", [False, True])
def test_only_the_shards_that_are_needed_are_opened(parts, tmp_path, safetensors):
    mpt = layouts.mpt_folder(tmp_path / "mpt", shards=4, safetensors=safetensors)
    (last,) = mpt.glob("*-00004-of-00004.*")
    last.write_bytes(b"not to be read")
    release = layouts.openflamingo_file(tmp_path / "checkpoint.pt")
    plan = {"release": str(release), "base": "openflamingo-3b", "heads": layouts.OWN_SIZE, "mpt": str(mpt), **parts}
    imported = import_release(ImportPlan(**plan, layers=4))
    assert imported.model.config.language.exit_layers == (1, 3)
    assert len(imported.provenance["files"]["mpt"]) == 2
    with pytest.raises(CheckpointError, match="can't be read"):
        import_release(ImportPlan(**plan, layers=8))
    last.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {last.name}, which .*index.json names"):
        import_release(ImportPlan(**plan, layers=8))
    with pytest.raises(CheckpointError, match=r"lacks tensors lang_encoder\.\S+\.8\..* and \d+ more"):
        import_release(ImportPlan(**plan | {"mpt": str(layouts.mpt_folder(tmp_path / "whole"))}, layers=9))


def test_an_index_can_not_lead_out_of_its_folder(parts, tmp_path):
    mpt = layouts.mpt_folder(tmp_path / "mpt", shards=2)
    (index,) = mpt.glob("*.index.json")
    index.write_text(index.read_text().replace("pytorch_model-00001", "../pytorch_model-00001"))
    release = layouts.openflamingo_file(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="outside of its folder"):
        import_release(
            ImportPlan(release=str(release), base="openflamingo-3b", heads=layouts.OWN_SIZE, mpt=str(mpt), **parts)
        )


class Harmful:
    """What a pickle can do to whoever trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_that_are_not_plain_tensors_are_refused(importing, parts, tmp_path):
    torch.save({"model_state_dict": layouts.deer_state(), "note": Harmful(tmp_path / "touched")}, tmp_path / "bad.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    (tmp_path / "pointer.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 21500000000\n"
    )
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model_state_dict": {"perceiver.latents": "text"}}, tmp_path / "text.pth")
    for name, words in {
        "bad.pth": "plain tensors",
        "script.pt": "plain tensors",
        "pointer.pth": "plain tensors",
        "list.pth": "holds a list",
        "text.pth": r"perceiver\.latents instead of tensors",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            import_release(ImportPlan(release=str(tmp_path / name), base="openflamingo-3b", **parts))
    assert not (tmp_path / "touched").exists()
    with pytest.raises(CheckpointError, match=r"holds no tensors visual\.\*"):
        importing(plan={"clip": str(layouts.openflamingo_file(tmp_path / "of.pt"))})


def test_files_in_pytorchs_old_format_are_read(importing, parts, tmp_path):
    clip = torch.load(parts["clip"], weights_only=True)
    torch.save({"state_dict": clip}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    imported = importing(plan={"clip": str(tmp_path / "old.pt")})
    assert torch.equal(imported.model.vision.stem.weight, clip["visual.conv1.weight"])


def hub_cache(folder: Path, repository: str, files: list[Path]) -> None:
    """Files as huggingface_hub keeps them after a download."""
    at = folder / f"models--{repository.replace('/', '--')}"
    (at / "refs").mkdir(parents=True)
    (at / "refs/main").write_text("a" * 40)
    snapshot = at / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file.name).symlink_to(file)


def test_sources_on_hugging_face(parts, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    mpt = layouts.mpt_folder(tmp_path / "mpt", shards=2, safetensors=True)
    hub_cache(cache, "open/Flamingo-3B", [layouts.openflamingo_file(tmp_path / "checkpoint.pt")])
    hub_cache(cache, "mosaic/mpt-1b", sorted(mpt.iterdir()))
    hub_cache(cache, "eleuther/neox", [Path(parts["tokenizer"])])
    plan = {
        "release": "open/Flamingo-3B:checkpoint.pt",
        "base": "openflamingo-3b",
        "heads": layouts.OWN_SIZE,
        "layers": 4,
        "mpt": "mosaic/mpt-1b",
        "tokenizer": "eleuther/neox",
        "clip": parts["clip"],
    }
    local = plan | {"release": str(tmp_path / "checkpoint.pt"), "mpt": str(mpt), "tokenizer": parts["tokenizer"]}
    fetched, opened = import_release(ImportPlan(**plan)), import_release(ImportPlan(**local))
    assert fetched.provenance == opened.provenance
    hub_cache(cache, "mosaic/one-file", sorted(layouts.mpt_folder(tmp_path / "one").iterdir()))
    whole = import_release(ImportPlan(**plan | {"mpt": "mosaic/one-file"}))
    assert torch.equal(whole.model.layers[3].block.qkv.weight, fetched.model.layers[3].block.qkv.weight)
    unreachable = {"release": "no/body:x.pt", "mpt": "no/body", "tokenizer": "no/body", "clip": "no/body:clip.pt"}
    for name, source in unreachable.items():
        with pytest.raises(CheckpointError, match=r"(?s)no/body.* can't be reached .*give its local path instead"):
            import_release(ImportPlan(**plan | {name: source}))
    with pytest.raises(CheckpointError, match=r"there is no file no/body; .* REPOSITORY:FILE"):
        import_release(ImportPlan(**plan | {"release": "no/body"}))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (RemoteEntryNotFoundError, r"open/Flamingo on Hugging Face has no file x\.pt"),
        (GatedRepoError, r"can't be had from Hugging Face \(refused\): check the name"),
    ],
)
def test_what_hugging_face_refuses(parts, monkeypatch, kind, words):
    def refusing(*_, **__):
        raise kind("refused", response=mock.MagicMock())

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refusing)
    with pytest.raises(CheckpointError, match=words):
        import_release(ImportPlan(release="open/Flamingo:x.pt", base="openflamingo-3b", **parts))
