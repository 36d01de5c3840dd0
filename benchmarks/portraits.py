"""How many synthetic portraits a second are drawn: python benchmarks/portraits.py [--size 32] [--json]

Drawing keeps one core busy, so that it can run beside training; the rate is that of one thread. ``per_core`` divides
by the processor's time instead of the clock's, which tells the same on a machine that has other work.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from condgen.data.portraits import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=32, help="side of the pictures in pixels")
    parser.add_argument("--count", type=int, default=4096, help="pictures of one measurement; the best of five counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    identities, views = np.arange(arguments.count) // 8, np.arange(arguments.count) % 8
    clock, processor = [], []
    for seed in range(5):
        began = time.perf_counter(), time.process_time()
        draw(seed, identities, views, arguments.size, arguments.size, 2.0)
        clock.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    result = {
        "size": arguments.size,
        "images_per_second": round(arguments.count / min(clock)),
        "per_core": round(arguments.count / min(processor)),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['images_per_second']:,} portraits of {arguments.size} x {arguments.size} a second in one thread "
            f"({result['per_core']:,} a second of processor time)"
        )


if __name__ == "__main__":
    main()
