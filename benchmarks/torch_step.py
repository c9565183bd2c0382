"""The worker of `benchmarks.step` that takes the same step in PyTorch, the usual way.

The same kinds, lengths, trunk and heads; `padded` runs the trunk once per kind over its padded
batch (a mask hides padding), `packed` once over rows of several samples with a mask of blocks.
bf16 is autocast, as users have it. Nothing here is shared with the trainer but the lengths.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.shapes import KINDS, Kind, Shape, padded_widths, step_lengths, useful_flops
from benchmarks.timing_worker import serve


class Layer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, shape: Shape):
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, shape.mlp * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(shape.mlp * width, width),
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        qkv = self.to_qkv(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.to_out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


class Network(nn.Module):
    """Embeddings and heads by kind around one trunk."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.inputs, self.heads, self.places = nn.ModuleDict(), nn.ModuleDict(), nn.ParameterDict()
        for kind in KINDS:
            self.inputs[kind.name] = (
                nn.Linear(kind.features, shape.width)
                if kind.features
                else nn.Embedding(kind.vocabulary, shape.width)
            )
            self.heads[kind.name] = nn.Linear(shape.width, kind.classes)
            self.places[kind.name] = nn.Parameter(0.02 * torch.randn(kind.longest, shape.width))
        self.value = nn.Linear(1, shape.width)

    def trunk(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def embed(self, kind: Kind, data: dict[str, torch.Tensor]) -> torch.Tensor:
        x = self.inputs[kind.name](data["parts"])
        if kind.valued:
            x = x + self.value(data["values"])
        return x + self.places[kind.name][: x.shape[1]]

    def loss(self, kind: Kind, states: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
        real, target = data["real"], data["target"]
        if not kind.each:
            mean = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            return functional.cross_entropy(self.heads[kind.name](mean).float(), target)
        outputs = self.heads[kind.name](states).float()
        if kind.valued:
            return functional.mse_loss(outputs[..., 0][real], target[real])
        return functional.cross_entropy(outputs[real], target[real])


def make_data(lengths: dict[str, np.ndarray], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Padded inputs and targets of every kind."""
    rng, out = np.random.default_rng(seed), {}
    for kind in KINDS:
        n = lengths[kind.name]
        size = (len(n), padded_widths(lengths)[kind.name])
        data = {"real": torch.from_numpy(np.arange(size[1])[None] < n[:, None])}
        if kind.features:
            numbers = rng.standard_normal((*size, kind.features), np.float32)
            data["parts"] = torch.from_numpy(numbers)
        else:
            data["parts"] = torch.from_numpy(rng.integers(0, kind.vocabulary, size))
        if kind.valued:
            data["values"] = torch.from_numpy(rng.standard_normal((*size, 1), np.float32))
            data["target"] = data["values"][..., 0]
        else:
            many = size if kind.each else size[:1]
            data["target"] = torch.from_numpy(rng.integers(0, kind.classes, many))
        out[kind.name] = data
    return out


def pack_rows(
    lengths: dict[str, np.ndarray], widths: dict[str, int], row: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which token of all padded batches, laid end to end, each slot shows (one more for none).

    Samples go, the longest first, to the first row with room. Also who sees whom, [rows, 1, T, T].
    """
    pieces, base = [], 0
    for name, n in lengths.items():
        width = widths[name]
        pieces += [(int(m), base + i * width) for i, m in enumerate(n)]
        base += len(n) * width
    used: list[int] = []
    placed: list[tuple[int, int, int, int]] = []
    for m, first in sorted(pieces, reverse=True):
        at = next((r for r, u in enumerate(used) if u + m <= row), len(used))
        if at == len(used):
            used.append(0)
        placed.append((at, used[at], m, first))
        used[at] += m
    token = np.full((len(used), row), base)
    sample = np.full((len(used), row), -1)
    for number, (r, start, m, first) in enumerate(placed):
        token[r, start : start + m] = np.arange(first, first + m)
        sample[r, start : start + m] = number
    ids = torch.from_numpy(sample)
    return torch.from_numpy(token), (ids[:, :, None] == ids[:, None, :])[:, None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layout", choices=("packed", "padded"), required=True)
    parser.add_argument("--row_widths", required=True, help="only the widest is used")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scale", type=float, required=True)
    for name in ("layers", "width", "heads", "samples"):
        parser.add_argument(f"--{name}", type=int, required=True)
    flags = parser.parse_args()
    shape = Shape(flags.layers, flags.width, flags.heads, flags.samples)
    lengths = step_lengths(shape, flags.seed, flags.scale)
    torch.manual_seed(flags.seed)
    network, data = Network(shape), make_data(lengths, flags.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    widest = max(int(w) for w in flags.row_widths.split(","))
    token, mask = pack_rows(lengths, padded_widths(lengths), widest)
    slots = token.numel()
    if flags.layout == "padded":
        slots = sum(own["real"].numel() for own in data.values())

    def padded_loss() -> torch.Tensor:
        losses = []
        for kind in KINDS:
            own = data[kind.name]
            hide = None if bool(own["real"].all()) else own["real"][:, None, None, :]
            states = network.trunk(network.embed(kind, own), hide)
            losses.append(network.loss(kind, states, own))
        return torch.stack(losses).sum()

    def packed_loss() -> torch.Tensor:
        embedded = {kind.name: network.embed(kind, data[kind.name]) for kind in KINDS}
        flat = torch.cat([x.flatten(0, 1) for x in embedded.values()])
        flat = torch.cat([flat, flat.new_zeros(1, shape.width)])
        states = network.trunk(flat[token], mask)
        back = states.new_zeros(flat.shape).index_copy(0, token.flatten(), states.flatten(0, 1))
        losses, at = [], 0
        for kind in KINDS:
            size = embedded[kind.name].shape
            part = back[at : at + size[0] * size[1]].view(size)
            losses.append(network.loss(kind, part, data[kind.name]))
            at += size[0] * size[1]
        return torch.stack(losses).sum()

    losses = []

    def take_step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=flags.dtype == "bfloat16"):
            loss = packed_loss() if flags.layout == "packed" else padded_loss()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())

    for _ in range(2):
        take_step()
    tokens = int(sum(n.sum() for n in lengths.values()))
    about = {
        "framework": f"torch {torch.__version__}",
        "tokens": tokens,
        "params": sum(p.numel() for p in network.parameters()),
        "fill": round(tokens / slots, 4),
        "useful_flops": useful_flops(lengths, shape),
        "threads": torch.get_num_threads(),
    }
    serve(take_step, about)
    assert np.isfinite(losses).all()


if __name__ == "__main__":
    main()
