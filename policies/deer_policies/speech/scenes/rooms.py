"""A room between a mouth and a microphone: direct sound, a few early reflections, and a tail that dies away."""

from __future__ import annotations

import numpy as np

from deer_policies.speech.audio import RATE_HZ, power

EARLY_S = 0.05
"""Until then reflections come one by one."""


def impulse_response(random: np.random.Generator, decay_s: float, direct_to_tail_db: float) -> np.ndarray:
    """Impulse response (n,) float32 of a room, made up from a generator; the direct sound is its first sample.

    Args:
        random: what the reflections come from.
        decay_s: time in which the tail loses 60 dB (RT60); 0.2 is a carpeted room, 0.8 a hall of concrete.
        direct_to_tail_db: power of the direct sound above all the rest; falls with distance.
    """
    samples = int(decay_s * RATE_HZ)
    time_s = np.arange(samples) / RATE_HZ
    tail = random.standard_normal(samples) * 10 ** (-3 * time_s / decay_s)
    early = time_s < EARLY_S
    tail[early] *= random.random(int(early.sum())) < 0.02
    # Walls take more of the high tones, the more often they are met.
    smooth = np.convolve(tail, np.ones(4) / 4, "same")
    blend = np.clip(time_s / decay_s, 0, 1)
    tail = (1 - blend) * tail + blend * smooth
    tail[0] = 0.0
    scale = np.sqrt(10 ** (-direct_to_tail_db / 10) / max(float(np.sum(tail**2)), 1e-12))
    response = scale * tail
    response[0] = 1.0
    return np.asarray(response, np.float32)


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The samples (n,) as heard through a room; what lasts beyond their end is cut off."""
    from scipy.signal import fftconvolve

    return np.asarray(fftconvolve(samples, response)[: len(samples)], np.float32)


def mixed(speech: np.ndarray, noise: np.ndarray, ratio_db: float) -> np.ndarray:
    """Speech (n,) with noise (n,) so much weaker; the speech's power is that of its louder parts, not of its pauses."""
    strength = np.square(speech, dtype=np.float64)
    loud = strength > 1e-3 * max(float(strength.max(initial=0.0)), 1e-12)
    speech_power = float(strength[loud].mean()) if loud.any() else 1e-6
    scale = np.sqrt(speech_power / max(power(noise), 1e-12) * 10 ** (-ratio_db / 10))
    return np.asarray(speech + scale * noise, np.float32)
