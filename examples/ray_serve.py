"""A network on Ray Serve, batched: `MODEL=/path/M.cosparse serve run ray_serve:app`, then
curl --data-binary @x.f32 localhost:8000/        (x.f32: one float32 image, [C, H, W])

A replica is one engine with as many threads as Ray gives it cores; Ray starts more of them as requests queue, up to REPLICAS, and a new
version rolls over the old one with the next `serve run` or `serve deploy`. What a replica held when it died is answered with an error: a
client that tries again loses nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import cosparse

CORES = int(os.environ.get("CORES", "2"))
LEAST, MOST = int(os.environ.get("LEAST_REPLICAS", "1")), int(os.environ.get("REPLICAS", "4"))
MAX_BATCH = 16


@serve.deployment(
    autoscaling_config={"min_replicas": LEAST, "max_replicas": max(LEAST, MOST), "target_ongoing_requests": MAX_BATCH},
    max_ongoing_requests=4 * MAX_BATCH,
    max_queued_requests=16 * MAX_BATCH,
    graceful_shutdown_timeout_s=20,
    ray_actor_options={"num_cpus": CORES},
)
class Network:
    def __init__(self, path: str) -> None:
        self.engine = cosparse.load(path, threads=CORES).warmup((1, 2, 4, 8, MAX_BATCH))
        self.shape = tuple(size or 1 for size in self.engine.inputs[0].shape[1:])

    def check_health(self) -> None:
        if not self.engine.ready:
            raise RuntimeError("the engine is not warm")

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.001)
    async def run(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return list(await asyncio.to_thread(self.engine, np.stack(images)))  # beside which the replica takes the next requests

    async def __call__(self, request: Request) -> Any:
        body = await request.body()
        if len(body) != 4 * int(np.prod(self.shape)):
            wanted = f"body: expected one float32 image of shape {list(self.shape)}, got {len(body)} bytes"
            return JSONResponse({"error": wanted}, status_code=400)
        scores = await self.run(np.frombuffer(body, np.float32).reshape(self.shape))
        return {"class": int(scores.argmax()), "scores": scores.tolist()}


app = Network.bind(os.environ["MODEL"])
