"""One process of a job that only watches the others: `python -m tests.launch.peer_program ...`."""

from __future__ import annotations

import sys
import time

from multimed_jax.meeting import Place, meet
from multimed_jax.peers import Peers


def main(index: int, count: int, address: str, silence_s: float, act: str) -> int:
    place = Place(index, count, address, 60.0, silence_s)
    met = meet(place, {}, lambda: False)
    assert met is not None
    peers = Peers(place, met.connections)
    print("together", flush=True)
    peers.watch(lambda: None)
    word, _, value = act.partition("=")
    if word == "fail":
        peers.fail("the record is gone")
    if word == "finish":
        return peers.finish(int(value), lambda code: code not in (0, 75))
    time.sleep(60)
    return 3


if __name__ == "__main__":
    index, count, address, silence_s, act = sys.argv[1:]
    sys.exit(main(int(index), int(count), address, float(silence_s), act))
