"""Sound features of the audiovisual fusion: mel-frequency cepstral coefficients, as librosa 0.8 computes them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct, rfft
from scipy.signal import get_window

from emotion.media.audio import Sound
from emotion.models.base import AudioInput, ClipInput

FLOOR_DB = 80.0  # below the loudest value of the clip
SMALLEST_POWER = 1e-10


def clip_samples(sound: Sound, config: ClipInput, start: float = 0.0) -> np.ndarray:
    """The samples of one stretch, float32 [config.samples].

    Args:
        sound: at any rate.
        config: with timing "index" the stretch is the middle of the recording, or all of it and zeros after.
        start: of the stretch in seconds on the clip's clock, with timing "time".
    """
    sound = sound.at_rate(config.audio.rate, config.audio.resampler)
    middle = config.timing == "index"
    samples = crop_or_pad(sound.samples, config.samples) if middle else sound.window(start, config.samples)
    return sixteen_bits(samples) if config.audio.quantise else samples


def crop_or_pad(samples: np.ndarray, length: int) -> np.ndarray:
    """The middle `length` samples; a shorter recording gets zeros at its end."""
    surplus = len(samples) - length
    if surplus >= 0:
        return samples[surplus // 2 : surplus // 2 + length]
    return np.pad(samples, (0, -surplus))


def sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """What is left of samples after a 16-bit file, which rounds down."""
    return np.clip(np.floor(samples * np.float32(32768)), -32768, 32767).astype(np.float32) / 32768


def mfcc(samples: np.ndarray, config: AudioInput) -> np.ndarray:
    """Mel-frequency cepstral coefficients, not normalised.

    Power spectra of centred Hann windows (the ends mirrored), mel bands, decibels cut 80 dB below the clip's loudest
    value, orthonormal cosine transform.

    Args:
        samples: float32 [N] at `config.rate`, more than half a window long.

    Returns:
        float32 [coefficients, 1 + N // hop].
    """
    padded = np.pad(samples, config.window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.window)[:: config.hop]
    spectrum = rfft(frames * get_window("hann", config.window).astype(np.float32), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) @ mel_filters(config.rate, config.window, config.bands).T
    decibels = 10 * np.log10(np.maximum(power, SMALLEST_POWER))
    decibels = np.maximum(decibels, decibels.max() - FLOOR_DB)
    return dct(decibels, norm="ortho", axis=1)[:, : config.coefficients].T.astype(np.float32)


@lru_cache(maxsize=4)
def mel_filters(rate: int, window: int, bands: int) -> np.ndarray:
    """Triangles of equal area over Slaney's mel scale up to half the rate, float32 [bands, window // 2 + 1]."""
    edges = mel_to_hertz(np.linspace(0, hertz_to_mel(rate / 2), bands + 2))
    bins = np.linspace(0, rate / 2, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


# Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, then 27 steps for every factor of 6.4.
LINEAR, KNEE, LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def hertz_to_mel(hertz: float) -> float:
    """Mel of a frequency."""
    return hertz / LINEAR if hertz < KNEE else KNEE / LINEAR + np.log(hertz / KNEE) / LOG_STEP


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """Frequencies of mels."""
    knee = KNEE / LINEAR
    return np.where(mel < knee, mel * LINEAR, KNEE * np.exp(LOG_STEP * (np.maximum(mel, knee) - knee)))
