"""The loop of a device, on the base install: no TensorFlow anywhere.

Feeds the golden windows of the reference bundle, one by one, as a sensor driver would, and checks that every
decision is the one that the bundle holds for this engine.

    python examples/device_loop.py [BUNDLE] [ENGINE]
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from mexit_edge.runtime import Runtime

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"


def main(bundle_path: str | Path = REFERENCE, engine: str = "litert-xnnpack") -> int:
    runtime = Runtime(bundle_path, engine=engine)
    golden, classes = runtime.bundle.golden, runtime.bundle.manifest.classes
    if golden is None:
        print(f"{bundle_path} holds no golden windows")
        return 1

    left_at: Counter[int] = Counter()
    wrong = 0
    for index, window in enumerate(golden.windows):  # int16 counts, (time, channels)
        decision = runtime.infer(window)
        left_at[decision.exit] += 1
        wrong += (decision.label, decision.exit) != (
            golden.labels[engine][index],
            golden.exits[engine][index],
        )
        if index < 5:
            print(
                f"window {index}: {classes[decision.label]} at exit {decision.exit}, "
                f"{decision.measured_latency_ms:.3f} ms here"
            )

    print(f"{len(golden.windows)} windows left at exits {dict(sorted(left_at.items()))}")
    print(f"stages were invoked {runtime.invocations} times")
    print(f"{wrong} decisions differ from the golden ones of {engine}")
    print(f"TensorFlow loaded: {'tensorflow' in sys.modules}")
    return 1 if wrong or "tensorflow" in sys.modules else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
