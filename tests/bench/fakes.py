"""Peers for the tests of the bench; a worker process imports them by name."""

from __future__ import annotations

import os
import time


class Fake:
    """Trains nothing. `flavour`: fine; wrong values; dies in the second call; prints; missing."""

    def __init__(self, job, data, flavour="fine"):
        self.flavour, self.calls = flavour, 0
        assert data["data"].shape == tuple(job.case.shape)
        if flavour == "missing":
            raise ImportError("No module named 'torch'")
        if flavour == "failing":
            raise ValueError("no such kernel\nand a long story")
        if flavour == "loud":
            print("this is no answer")

    def run(self, count):
        self.calls += 1
        if self.flavour == "dying" and self.calls == 2:
            os._exit(3)
        time.sleep(1e-4 * count)

    def result(self):
        return [float("nan")] * 3 if self.flavour == "wrong" else [3.0, 2.0, 1.0]

    def facts(self):
        return {"gflop": 0.5}

    def close(self):
        pass
