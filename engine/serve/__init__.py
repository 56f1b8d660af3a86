"""Serving: artifacts behind the Open Inference Protocol v2, and the dynamic batcher for programs of one's own.

    batcher = Batcher(engine, max_batch=16)
    y = await batcher(x)              # x: [N, C, H, W]; calls that come while the engine works are run together

The rest needs `pip install 'cosparse[serve]'` and is imported when a server is made (server.py). docs/serving.md has the whole.
"""

from cosparse.engine.serve.batcher import Batcher
from cosparse.engine.serve.refusal import Kind, Refused

__all__ = ["Batcher", "Kind", "Refused"]
