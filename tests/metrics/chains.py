"""Chains for tests: generated ones, real ones, and ways to bend them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


def random_chain(length: int, rng: np.random.Generator) -> np.ndarray:
    """C-alpha atoms of a persistent random walk with bonds of 3.8 angstrom."""
    step = rng.normal(size=(length, 3))
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    for i in range(1, length):
        step[i] = 0.7 * step[i - 1] + 0.7 * step[i]
        step[i] /= np.linalg.norm(step[i])
    return np.cumsum(3.8 * step, axis=0)


def move(chain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The chain elsewhere, turned."""
    return chain @ Rotation.random(rng=rng).as_matrix().T + 60 * rng.normal(size=3)


def noisy(chain: np.ndarray, angstrom: float, rng: np.random.Generator) -> np.ndarray:
    """White noise of this root mean square length."""
    return chain + rng.normal(size=chain.shape) * angstrom / np.sqrt(3)


def waved(chain: np.ndarray, angstrom: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth deformation along the chain."""
    place = np.arange(len(chain)) / len(chain)
    wave = sum(
        rng.normal(size=3) * np.sin(2 * np.pi * (k * place[:, None] + rng.random(3))) / k
        for k in (1, 2, 3)
    )
    return chain + angstrom * wave


def hinged(chain: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """The part behind a random residue turned about it."""
    at = int(rng.integers(len(chain) // 4, 3 * len(chain) // 4))
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    out = chain.copy()
    out[at:] = (chain[at:] - chain[at]) @ turn.T + chain[at]
    return out


def bend(chain: np.ndarray, number: int, rng: np.random.Generator, most: float = 8.0) -> np.ndarray:
    """Noise of 0.5 to `most` angstrom, a wave, a hinge, or all of them; moved."""
    size = rng.uniform(0.5, most)
    kind = number % 4
    if kind == 0:
        out = noisy(chain, size, rng)
    elif kind == 1:
        out = waved(chain, size, rng)
    elif kind == 2:
        out = noisy(hinged(chain, rng.uniform(0, 15 * most), rng), 0.5, rng)
    else:
        out = noisy(waved(hinged(chain, rng.uniform(0, 7.5 * most), rng), size / 2, rng), 1.0, rng)
    return move(out, rng)


def real_chains(folder: Path, pattern: str, limit: int) -> list[np.ndarray]:
    """C-alpha atoms of the first chain of PDB files, by columns, without other letters' copies."""
    chains = []
    for path in sorted(folder.glob(pattern))[:limit]:
        found: dict[str, list[float]] = {}
        first = ""
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith("ENDMDL"):
                break
            if line.startswith("ATOM") and line[12:16] == " CA " and line[16] in " A":
                first = first or line[21] + "!"
                if line[21] == first[0]:
                    found.setdefault(line[22:27], [float(line[i : i + 8]) for i in (30, 38, 46)])
        chains.append(np.array(list(found.values())))
    return chains
