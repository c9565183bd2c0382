"""The worker of `benchmarks.loader` that reads the same files through a torch DataLoader.

As users write it: a dataset over a folder, decoded by Pillow, a random crop of 224 pixels, mirrored
by chance, normalised, in batches; worker processes stay between passes. A step is one pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing_worker import serve

SIDE, SHOWN = 256, 224


class ImageFolder(Dataset):
    """The images of a folder."""

    def __init__(self, folder: Path):
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = np.asarray(image.convert("RGB"))
        top, left, mirror = torch.randint(0, SIDE - SHOWN + 1, (3,)).tolist()
        pixels = pixels[top : top + SHOWN, left : left + SHOWN]
        if mirror % 2:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0), index // 2 % 2


def processor_seconds() -> float:
    """Of this process and its workers, which run on between passes (Linux)."""
    total = time.process_time()
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    data, workers = ImageFolder(Path(flags.folder)), flags.workers
    loader = DataLoader(
        data,
        flags.batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )

    def take_pass() -> None:
        seen = sum(len(images) for images, _ in loader)
        assert seen == len(data)

    take_pass()
    about = {"framework": f"torch {torch.__version__}", "images": len(data)}
    serve(take_pass, about, processor_seconds)


if __name__ == "__main__":
    main()
