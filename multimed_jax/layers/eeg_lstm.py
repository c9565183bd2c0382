"""The recurrent EEG stem: an LSTM over the windows of a patch, another over the patches of a trial.

samples [C, L] --spatial filters from xyz--> sources [F, L] --short windows x temporal bank-->
band powers and mean of each window --LSTM over windows--> last state
--LSTM over the patches of the trial--> token

Recurrence over raw samples learns little from a few hundred trials, because the phase of a rhythm
is random and its power is not linear in the samples; hence the bank of the convolutional stem.

The second LSTM starts anew at each trial; a trial never hears of the one packed before it:

    item    1  1  1  2  2  .        patches a b c of one trial, d e of the next
    patch   a  b  c  d  e  .
    memory  0->a->b  0->d           c reads a and b, d reads nothing
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.eeg_stem import SpatialFilters, TemporalBank, centred_levels
from multimed_jax.layers.patch_embed import CoordinateEmbedding
from multimed_jax.types import StreamBatch

Memory = tuple[Float[Array, "P N H"], Float[Array, "P N H"]]  # output h, cell c


class LstmCell(nnx.Module):
    """One step of an LSTM (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000).

    Gates lie side by side: input, forget, candidate, output. The forget gate starts with a bias of
    1 (Jozefowicz et al. 2015), so that memory lasts at first.
    """

    def __init__(self, num_inputs: int, num_hidden: int, rngs: nnx.Rngs):
        self.num_hidden = num_hidden
        inward = nnx.initializers.lecun_normal()
        recurrent = nnx.initializers.orthogonal()
        wide = (num_inputs, 4 * num_hidden)
        self.inward = nnx.Param(inward(rngs.params(), wide, jnp.float32))
        gates = [recurrent(rngs.params(), (num_hidden, num_hidden), jnp.float32) for _ in range(4)]
        self.recurrent = nnx.Param(jnp.concatenate(gates, axis=1))
        bias = jnp.zeros((4, num_hidden)).at[1].set(1.0)
        self.bias = nnx.Param(bias.reshape(-1))

    def project(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch G"]:
        """The share of the inputs in the gates; it does not depend on memory."""
        return x @ self.inward[...] + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,))

    def step(self, projected: Float[Array, "P N G"], memory: Memory) -> Memory:
        """The memory after one more input."""
        h, c = memory
        gates = projected + h @ self.recurrent[...]
        enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return jax.nn.sigmoid(leave) * jnp.tanh(c), c

    def empty(self, packs: int, slots: int) -> Memory:
        """Memory before the first input."""
        zeros = jnp.zeros((packs, slots, self.num_hidden))
        return zeros, zeros


def run_steps(cell: LstmCell, inputs: Float[Array, "P N W I"]) -> Float[Array, "P N H"]:
    """Output after the last step; each slot has a memory of its own."""
    packs, slots = inputs.shape[:2]
    projected = rearrange(cell.project(inputs), "p n w g -> w p n g")

    def body(memory: Memory, x: Float[Array, "P N G"]) -> tuple[Memory, None]:
        return cell.step(x, memory), None

    (h, _), _ = jax.lax.scan(body, cell.empty(packs, slots), projected)
    return h


def run_items(
    cell: LstmCell, x: Float[Array, "P N I"], item: Int[Array, "P N"], longest: int
) -> Float[Array, "P N H"]:
    """Output at every part of a run through the parts of its item so far.

    All parts step at once, `longest` times, each from what the part before it held after the last
    round. After round r the first r parts of every item are final, whatever lies beside them: an
    item of at most `longest` parts is exact, and no round depends on the number of slots.
    """
    packs, slots = item.shape
    projected = cell.project(x)
    same = (item[:, 1:] == item[:, :-1]) & (item[:, 1:] > 0)
    goes_on = jnp.concatenate([jnp.zeros((packs, 1), bool), same], axis=1)[..., None]

    def before(state: Float[Array, "P N H"]) -> Float[Array, "P N H"]:
        return jnp.where(goes_on, jnp.roll(state, 1, axis=1), 0.0)

    def body(memory: Memory, _: None) -> tuple[Memory, None]:
        return cell.step(projected, (before(memory[0]), before(memory[1]))), None

    (h, _), _ = jax.lax.scan(body, cell.empty(packs, slots), None, length=longest)
    return h


class LstmStem(nnx.Module):
    """One token for each temporal patch: what the trial has shown up to its end."""

    def __init__(
        self,
        rate_hz: float,
        patch_len: int,
        num_patches: int,
        num_filters: int,
        num_hidden: int,
        d_model: int,
        rngs: nnx.Rngs,
    ):
        self.patch_len, self.num_patches = patch_len, num_patches
        self.spatial = SpatialFilters(num_filters, rngs)
        self.temporal = TemporalBank(rate_hz, patch_len)
        num_inputs = (num_filters + 1) * self.temporal.num_bands + num_filters
        self.within = LstmCell(num_inputs, num_hidden, rngs)
        self.across = LstmCell(num_hidden, num_hidden, rngs)
        self.out = nnx.Linear(2 * num_hidden, d_model, rngs=rngs)
        self.place = CoordinateEmbedding(1, float(num_patches), d_model, rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """Parts [P, N, C, L + 4] as `eeg_stem.ConvStem`."""
        parts = jnp.asarray(stream.parts)
        xyz = parts[..., self.patch_len : self.patch_len + 3]
        weights = self.spatial(xyz, parts[..., self.patch_len + 3])
        sources = jnp.einsum("pncl,pncf->pnfl", parts[..., : self.patch_len], weights)
        patch = run_steps(self.within, self._windows(sources))
        trial = run_items(self.across, patch, jnp.asarray(stream.item), self.num_patches)
        return self.out(jnp.concatenate([patch, trial], axis=-1)) + self.place(stream.coords)

    def _windows(self, sources: Float[Array, "P N F L"]) -> Float[Array, "P N W I"]:
        """What the first LSTM reads of each window: powers, where and how strong, and the mean."""
        bank = self.temporal
        centred, mean = centred_levels(bank.per_window(sources))
        means = [
            jnp.mean(sources[..., start : start + bank.length], axis=-1) for start in bank.starts
        ]
        read = [
            rearrange(centred, "p n f w b -> p n w (f b)"),
            rearrange(mean, "p n one w b -> p n w (one b)"),
            jnp.stack(means, axis=2),
        ]
        return jnp.concatenate(read, axis=-1)
