"""Expression: a DNA window whose motifs, and a cell whose state, set the level of a gene.

    level[cell type c] = 4 + 0.8 l[c] + 2.4 u v + normal noise of 0.6        (log1p)

    l[c] = +1 where the window has the motif of c's lineage, -1 where not
    u    = 1 where the window has the motif that interferon acts on, else 0
    v    = 1 in an active cell (high interferon genes), 0 in a resting one

A record has the window and a cell, and the level of that cell's type; or the window alone and the
level of every type over many cells, half of them active: v = 1/2. Motifs lie at multiples of 8
bases, each in a place of its own, in bases that are otherwise random.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Float32, Int

from tfds_builders.phantoms import scrna
from tfds_builders.phantoms.patient import CLASS_NAMES, Patients

WINDOW_BP, MOTIF_BP = 128, 8
NUM_PLACES = WINDOW_BP // MOTIF_BP
LINEAGES = (0, 0, 1, 1, 2, 2)  # of each cell type: T and NK, B and plasma, monocyte and dendritic
LINEAGE_MOTIFS = ("CACGTGGC", "TTCCGGAA", "GATAAGAT")  # invented
STATE_MOTIF = "AGTTTCAC"  # invented, in the manner of the interferon-stimulated response element
BASE_LEVEL, LINEAGE_LEVEL, STATE_LEVEL, NOISE_SD = 4.0, 0.8, 2.4, 0.6
STATE_INTERFERON_RATES = (0.03, 2.5)  # resting, active
WINDOW_ONLY = 4  # one record in so many has no cell


def has_cell(patients: Patients) -> Int[np.ndarray, "B"]:
    """1 where the record holds a cell beside the window."""
    return (patients.draws.choice("genomics/cell", WINDOW_ONLY) > 0).astype(np.int64)


def lineage_motifs(patients: Patients) -> Int[np.ndarray, "B 3"]:
    """1 where the window has the motif of the lineage."""
    uniform = patients.draws.uniform("genomics/lineage", len(LINEAGE_MOTIFS))
    return (uniform < 0.5).astype(np.int64)


def state_motif(patients: Patients) -> Int[np.ndarray, "B"]:
    """1 where the window has `STATE_MOTIF`."""
    return patients.draws.choice("genomics/motif", 2)


def state(patients: Patients) -> Int[np.ndarray, "B"]:
    """1 where the cell is active."""
    return patients.draws.choice("genomics/state", 2)


def cell_type(patients: Patients) -> Int[np.ndarray, "B"]:
    """Type of the cell, as its genes show it."""
    return patients.draws.choice("genomics/type", len(LINEAGES))


def expected_levels(
    patients: Patients, with_cell: Int[np.ndarray, "B"]
) -> Float[np.ndarray, "B C"]:
    """Level of every cell type before noise."""
    lineage = (2 * lineage_motifs(patients) - 1)[:, LINEAGES]
    active = np.where(with_cell == 1, state(patients), 0.5)
    effect = state_motif(patients) * active
    return BASE_LEVEL + LINEAGE_LEVEL * lineage + STATE_LEVEL * effect[:, None]


def targets(
    patients: Patients, with_cell: Int[np.ndarray, "B"] | None = None
) -> Float32[np.ndarray, "B C"]:
    """The levels, log1p; with a cell only that of its type is known, the others are NaN.

    Args:
        patients: of the block.
        with_cell: 1 where the record holds a cell; `has_cell` by default.
    """
    with_cell = has_cell(patients) if with_cell is None else with_cell
    noise = patients.draws.normal("genomics/noise", len(LINEAGES))
    levels = expected_levels(patients, with_cell) + NOISE_SD * noise
    other = cell_type(patients)[:, None] != np.arange(len(LINEAGES))
    hidden = other & (with_cell == 1)[:, None]
    return np.where(hidden, np.nan, levels).astype(np.float32)


def render(patients: Patients) -> list[str]:
    """The windows of a block of patients, forward strand."""
    draws = patients.draws
    bases = (draws.uniform("genomics/base", WINDOW_BP) * 4).astype(np.int64)
    letters = np.array(list("ACGT"))[bases].reshape(-1, NUM_PLACES, MOTIF_BP)
    # The places of the motifs: the first columns of a random order.
    places = np.argsort(draws.uniform("genomics/place", NUM_PLACES), axis=1)
    present = np.column_stack([lineage_motifs(patients), state_motif(patients)])
    for row, number in np.argwhere(present):
        letters[row, places[row, number]] = list((*LINEAGE_MOTIFS, STATE_MOTIF)[number])
    return ["".join(window.ravel()) for window in letters]


@functools.cache
def rates() -> Float[np.ndarray, "Z V G"]:
    """Expected counts by (cell type, state, gene): markers of the type, interferon of the state."""
    table = np.repeat(scrna.rates()[:, 0, :1], 2, axis=1)
    genes = [scrna.PANEL.index(symbol) for symbol in scrna.INTERFERON.split()]
    table[:, :, genes] = np.asarray(STATE_INTERFERON_RATES)[None, :, None]
    return table


@functools.cache
def _cdf_table() -> Float[np.ndarray, "Z V G K"]:
    assert len(LINEAGES) == len(CLASS_NAMES["cell_type"])
    return scrna.count_cdf(rates())


def render_cells(patients: Patients) -> Int[np.ndarray, "B G"]:
    """The counts of the cells of a block of patients over the panel of `scrna`."""
    uniform = patients.draws.uniform("genomics/count", len(scrna.PANEL))
    table = _cdf_table()[cell_type(patients), state(patients)]
    return (uniform[..., None] >= table).sum(axis=-1)
