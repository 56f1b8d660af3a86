"""A network in a FastAPI application: `MODEL=M.cosparse uvicorn fastapi_app:app`, then
curl -H 'content-type: application/octet-stream' --data-binary @x.f32 localhost:8000/classify"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, HTTPException, Request

import cosparse
from cosparse.engine.serve import Batcher

engine = cosparse.load(os.environ["MODEL"]).warmup((1, 8))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Batcher(engine, max_batch=8) as app.state.run:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(request: Request) -> dict[str, list[int]]:
    """The body: float32 images, one after the other, [N, C, H, W]."""
    shape = engine.inputs[0].shape[1:]
    try:
        x = np.frombuffer(await request.body(), np.float32).reshape(-1, *shape)
    except ValueError as error:
        raise HTTPException(400, f"body: expected float32 images of shape {list(shape)}, got something else ({error})") from error
    if not len(x):
        raise HTTPException(400, "body: expected at least one image, got none")
    y = await app.state.run(x)
    return {"classes": y.argmax(1).tolist()}
