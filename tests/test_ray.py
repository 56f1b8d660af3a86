"""On a local Ray of its own: searches scored there, and Ray Serve with two replicas of which one is killed.

Skipped where ray is not installed (`pip install 'ray[serve]'`). Every test is a process, as Ray leaves much behind in its own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import run
from small_net import small_net

from cosparse.engine import artifact

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="no ray: pip install 'ray[serve]'")

START = """
import os, sys
os.environ["RAY_worker_niceness"] = "0"
import numpy as np, ray
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
"""

SCORED = """
import torch
from prune_nets import net
from cosparse.compress import Budget, FilterPruner
from cosparse.compress.runners import OnRay, serially

def found(runner):
    model, example = net("grouped")
    draws = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, *example.shape[1:], generator=draws), torch.randint(0, 5, (8,), generator=draws)) for _ in range(2)]
    with torch.no_grad():
        batches = [(x, y % model(x).shape[1]) for x, y in batches]
    return FilterPruner(budget=Budget(flops=0.3), multiple=4, evaluations=12, runner=runner).fit(model, batches, example, batches).found

assert found(OnRay()) == found(serially)
print("equal")
"""


def test_a_search_scored_on_ray_is_the_search_scored_here() -> None:
    done = run(START + SCORED, seconds=240)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["equal"]), done.stderr[-2000:]


KILLED = """
import json, threading, time, urllib.request
import psutil, cosparse
from ray import serve
sys.path.insert(0, sys.argv[1])
import ray_serve
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(ray_serve.app)
x = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
want = int(cosparse.load(os.environ["MODEL"], threads=1)(x[None]).argmax())
done, again, lost, wrong, stop = [], [], [], [], threading.Event()

def ask():
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[2]}/", data=x.tobytes(), method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())["class"]

def client():
    while not stop.is_set():
        for attempt in range(8):
            try:
                (done if ask() == want else wrong).append(1)
                break
            except OSError:
                again.append(1)
                time.sleep(0.2 * 2**attempt)
        else:
            lost.append(1)

def replicas():
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::ServeReplica")]

team = [threading.Thread(target=client) for _ in range(6)]
for member in team: member.start()
time.sleep(2)
before, first = len(done), replicas()
first[0].kill()
time.sleep(6)
stop.set()
for member in team: member.join()
end = time.monotonic() + 60
while len(replicas()) < 2 and time.monotonic() < end: time.sleep(0.5)
print(json.dumps({"replicas": len(first), "after": len(replicas()), "before": before, "done": len(done), "tried again": len(again),
                  "lost": len(lost), "wrong": len(wrong)}))
serve.shutdown()
"""


def test_a_replica_is_killed_under_load_and_no_request_is_lost(tmp_path: Path, repository: Path) -> None:
    import json
    import socket

    pytest.importorskip("ray.serve")
    artifact.write(tmp_path / "net.cosparse", small_net())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"MODEL": str(tmp_path / "net.cosparse"), "CORES": "1", "LEAST_REPLICAS": "2", "REPLICAS": "2"}
    done = run(START + KILLED, repository / "examples", str(port), seconds=240, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    print(said)
    assert said["replicas"] == said["after"] == 2
    assert (said["lost"], said["wrong"]) == (0, 0)
    assert said["done"] > said["before"] > 0
