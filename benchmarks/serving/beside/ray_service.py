"""The model behind Ray Serve. It runs in Ray's environment: python ray_service.py PORT WORKERS MODEL."""

from __future__ import annotations

import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve  # type: ignore[import-not-found]  # it is in an environment of its own


class Bench:
    """One model."""

    def __init__(self, path: str) -> None:
        self.model = pickle.loads(Path(path).read_bytes())

    async def __call__(self, request: Any) -> dict[str, Any]:
        """A probability for each row."""
        asked = await request.json()
        return {"predictions": self.model.predict_proba(np.array(asked["inputs"]))[:, 1].tolist()}


def main() -> None:
    port, workers, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(
        Bench, num_replicas=workers, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )
    try:
        serve.run(deployment.bind(path), route_prefix="/predict")
        signal.pause()
    finally:
        serve.shutdown()


if __name__ == "__main__":
    main()
