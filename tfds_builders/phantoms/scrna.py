"""A cell: 200 genes with negative-binomial counts; markers of its type stand out of the rest.

    count[g] ~ NB(mean = depth * rate[g], dispersion r),   variance = mean + mean^2 / r

rate[g] depends on the presented cell type for markers, on the organ for tissue genes, on severity
for the interferon genes, and on nothing for the others. depth takes one of a few values by cell.
In `SWAPPED_ORGANS` sibling types wear each other's markers, so the type is read from markers and
tissue genes together: a model that is linear in the genes confuses the siblings there.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int, Int32

from multimed_jax.modalities.scrna import gene_key
from tfds_builders.phantoms.patient import CELL_ORGANS, CLASS_NAMES, NUM_SEVERITIES, Patients

# Known marker symbols, in the order of `CLASS_NAMES["cell_type"]`; real names, invented rates.
MARKERS = (
    "CD3D CD3E CD3G CD2 CD5 CD6 CD27 CD28 TRAC TRBC1 LCK LAT IL7R TCF7",
    "NKG7 GNLY KLRD1 KLRF1 KLRB1 KLRC1 NCAM1 FCGR3A PRF1 GZMB GZMH FGFBP2 SPON2 XCL2",
    "MS4A1 CD19 CD79A CD79B CD22 CD72 BLK BANK1 PAX5 VPREB3 FCRLA FCER2 TCL1A CD37",
    "MZB1 SDC1 XBP1 IRF4 PRDM1 DERL3 TNFRSF17 FKBP11 SSR4 IGHG1 IGKC JCHAIN CAV1 TXNDC5",
    "CD14 LYZ S100A8 S100A9 S100A12 FCN1 VCAN CSF1R CD163 MNDA CTSS SERPINA1 LGALS2 AIF1",
    "CLEC9A XCR1 CD1C FCER1A CLEC10A LAMP3 CLEC4C IL3RA LILRA4 BATF3 WDFY4 ITGAX CADM1 ZBTB46",
)
TISSUE = (
    "HBB HBA1 PPBP PF4 ALAS2",
    "CD34 KIT MPO ELANE AZU1",
    "SFTPC SCGB1A1 AGER FABP4 MARCO",
    "CCL19 CCL21 CXCL13 CR2 PDPN",
)
INTERFERON = "ISG15 IFI6 IFI27 IFI44L MX1 OAS1 IFIT1 IFIT3 STAT1 XAF1"
HOUSEKEEPING = (
    "ACTB GAPDH B2M MALAT1 TMSB4X TMSB10 EEF1A1 EEF2 RPLP0 RPLP1 RPS3 RPS6 RPS18 RPL3 RPL5 RPL10"
    " RPL13 RPL32 FTL FTH1 PTMA TPT1 UBA52 FAU NACA HNRNPA1 HSP90AB1 HSPA8 PFN1 CFL1 ARPC2 MYL6"
    " OAZ1 SERF2 COX4I1 COX7C ATP5F1E UBC"
)
RARE = (
    "INS ALB AFP APOA1 TTN MYH7 NPPA GFAP MBP SNAP25 SYP UMOD NPHS1 KRT5 KRT14 KRT20 VIL1 PAX6"
    " RHO OPN1SW TNNT2 CHGA SST GCG CALB2 PVALB TH DES"
)
PANEL: tuple[str, ...] = tuple(
    symbol
    for names in (*MARKERS, *TISSUE, INTERFERON, HOUSEKEEPING, RARE)
    for symbol in names.split()
)
SWAPPED_ORGANS = ("lymph_node",)
DEPTHS = (0.8, 1.0, 1.25)
DISPERSION = 3.0
MARKER_RATES = (3.0, 0.05)  # in its own type, in the others
TISSUE_RATES = (2.0, 0.02)  # in its own organ, in the others
INTERFERON_RATES = (0.05, 0.3, 0.8)  # by severity
HOUSEKEEPING_RATE = 0.8
RARE_RATE = 0.03
MAX_COUNT = 63  # counts above are drawn with a chance below 1e-9 and end here


@functools.cache
def rates() -> Float[np.ndarray, "Z O V G"]:
    """Expected counts at depth 1 by (cell type, organ, severity, gene)."""
    shape = (len(CLASS_NAMES["cell_type"]), len(CELL_ORGANS), NUM_SEVERITIES)
    table = np.empty((*shape, len(PANEL)))
    start = 0
    for names, levels, axis in (
        *((m, np.where(np.arange(shape[0]) == i, *MARKER_RATES), 0) for i, m in enumerate(MARKERS)),
        *((t, np.where(np.arange(shape[1]) == i, *TISSUE_RATES), 1) for i, t in enumerate(TISSUE)),
        (INTERFERON, np.asarray(INTERFERON_RATES), 2),
        (HOUSEKEEPING, np.full(shape[0], HOUSEKEEPING_RATE), 0),
        (RARE, np.full(shape[0], RARE_RATE), 0),
    ):
        stop = start + len(names.split())
        along = [1, 1, 1, 1]
        along[axis] = -1
        table[..., start:stop] = levels.reshape(along)
        start = stop
    for organ in SWAPPED_ORGANS:
        at = CELL_ORGANS.index(organ)
        siblings = np.arange(shape[0]) ^ 1
        table[:, at] = table[siblings, at]
    return table


@functools.cache
def panel_keys() -> Int32[np.ndarray, "G"]:
    """The stable key of every gene of the panel."""
    return np.array([gene_key(symbol) for symbol in PANEL], np.int32)


def count_cdf(means: Float[np.ndarray, "..."]) -> Float[np.ndarray, "... K"]:
    """P(count <= k) for k = 0 .. MAX_COUNT - 1 under the negative binomial of each mean."""
    odds = means / (means + DISPERSION)
    terms = [(1 - odds) ** DISPERSION]
    for k in range(MAX_COUNT - 1):
        terms.append(terms[-1] * odds * (k + DISPERSION) / (k + 1))
    return np.cumsum(np.stack(terms, axis=-1), axis=-1)


@functools.cache
def _cdf_table() -> Float[np.ndarray, "D Z O V G K"]:
    return count_cdf(np.asarray(DEPTHS)[:, None, None, None, None] * rates())


def render(patients: Patients) -> Int[np.ndarray, "B G"]:
    """The counts of a block of patients over the whole panel."""
    depth = patients.draws.choice("scrna/depth", len(DEPTHS))
    uniform = patients.draws.uniform("scrna/count", len(PANEL))
    kind = patients.presentations["cell_type"]
    table = _cdf_table()[depth, kind, patients.cell_organ, patients.severity]
    return (uniform[..., None] >= table).sum(axis=-1)
