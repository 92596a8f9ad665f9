"""Random shifts, brightness and tint: one draw for a clip."""

import torch

from deer_policies.training.augmentation import jitter_clips, shift_clips


def test_shift_is_one_for_a_clip_and_view_and_differs_between_clips():
    frame = torch.randint(0, 256, (1, 1, 2, 3, 32, 32), dtype=torch.uint8)
    clips = frame.expand(6, 5, 2, 3, 32, 32).contiguous()
    shifted = shift_clips(clips, (4, 0), torch.Generator().manual_seed(1))
    assert shifted.dtype == torch.uint8
    assert all(torch.equal(shifted[:, 0], shifted[:, step]) for step in range(5))
    assert any(not torch.equal(shifted[0], shifted[sample]) for sample in range(1, 6))
    assert torch.equal(shifted[:, :, 1], clips[:, :, 1])


def test_jitter_keeps_type_and_does_nothing_at_zero():
    clips = torch.full((4, 3, 2, 3, 8, 8), 100, dtype=torch.uint8)
    assert torch.equal(jitter_clips(clips, 0.0, 0.0, torch.Generator()), clips)
    jittered = jitter_clips(clips, 0.3, 0.0, torch.Generator().manual_seed(0))
    assert jittered.dtype == torch.uint8
    assert len(jittered.unique()) > 1
    assert all(len(clip.unique()) == 1 for clip in jittered)


def test_a_tint_changes_the_channels_of_a_clip_apart_and_all_its_pictures_alike():
    clips = torch.full((4, 3, 2, 3, 8, 8), 100, dtype=torch.uint8)
    tinted = jitter_clips(clips, 0.0, 0.2, torch.Generator().manual_seed(0))
    assert all(len(channel.unique()) == 1 for clip in tinted for channel in clip.movedim(2, 0))
    assert all(len(clip.unique()) == 3 for clip in tinted)
    assert tinted.min() >= 80
    assert tinted.max() <= 120
