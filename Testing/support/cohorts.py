"""Lesions made of random numbers, for tests of what learns from them."""

from __future__ import annotations

import numpy as np

from radllm_backend.features.cohort import Lesions
from radllm_backend.features.names import FAMILIES

NAMES = tuple(f"original_glcm_{name}" for name in ("Contrast", "Correlation", "Id", "Idm", "MCC", "Imc1"))
_MORE = tuple(f"wavelet-HL_{family}_{name}" for family, names in FAMILIES.items() for name in names)


def lesions(count: int = 64, signal_strength: float = 3.0, seed: int = 0, each: int = 1, noise: int = 0) -> Lesions:
    """Lesions whose first feature tells the classes apart.

    Args:
        each: lesions a patient.
        noise: how many further columns of noise.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values = random.normal(size=(count, len(NAMES) + noise))
    values[:, 0] += signal_strength * labels
    patients = np.array([f"patient{row // each // 2}-{row % 2}" for row in range(count)])
    return Lesions(NAMES + _MORE[:noise], values, labels, patients)
