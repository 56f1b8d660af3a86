"""Dense peers: a torch module at one input, in float16 or bfloat16, each as strong as it can be made. Eager execution is none of them.

    cudnn_graph   channels_last, batch norms folded, cudnn.benchmark, the forward pass captured as one CUDA graph
    cudnn_fused   the same, with bias, addition and ReLU inside cuDNN's call
    compile       the same module by torch.compile, max-autotune, captured as one CUDA graph
    tensorrt      TensorRT through ONNX Runtime, where that provider is installed; float16 only

`compile` uses the mode without the compiler's own CUDA graphs: those copy the input and pass through Python at each call, and the one
captured here does neither.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cosparse.bench.environment import version
from cosparse.bench.gpu.device import require_cuda
from cosparse.bench.gpu.fold import folded, fused
from cosparse.engine.graph import Graph
from cosparse.errors import Error, UnsupportedError

WARMUP = 4
MODES = ("max-autotune-no-cudagraphs", "default")
"""Of torch.compile, the strongest first; the next one is taken where a compilation outlasts its share of the budget."""
ENOUGH_S = 90.0
"""Budget under which the strongest mode is not begun: it would be stopped half-way, and the next one would lack the time."""
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class Peer:
    """`replay` queues one forward pass on the current stream; `output` is what it left, [N, ...], valid until the next one."""

    name: str
    replay: Callable[[], object]
    output: Callable[[], Tensor]
    note: str


def half(model: nn.Module, number: torch.dtype = torch.float16) -> nn.Module:
    """The module on the GPU, 16 bits, channels_last; the one given is changed."""
    return model.eval().to(device="cuda", dtype=number, memory_format=torch.channels_last)  # type: ignore[call-overload]


def capture(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """(replay, output) of `forward` at the input x, captured as one CUDA graph; x is read anew at each replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(WARMUP):  # cuDNN tries its algorithms, compilers compile: none of that may happen during the capture
            forward(x)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = forward(x)

    def replay(kept: object = (forward, x)) -> None:  # the graph reads the module's weights and x: they have to live as long
        graph.replay()

    return replay, lambda: y


def cudnn_graph(model: nn.Module, x: Tensor, *, number: torch.dtype = torch.float16) -> Peer:
    """x: [N, C, H, W] on the GPU."""
    return _cudnn("cudnn_graph", folded(model), x, number)


def cudnn_fused(model: nn.Module, x: Tensor, *, number: torch.dtype = torch.float16) -> Peer:
    """x: [N, C, H, W] on the GPU."""
    return _cudnn("cudnn_fused", fused(model), x, number)


def _cudnn(name: str, model: nn.Module, x: Tensor, number: torch.dtype) -> Peer:
    require_cuda()
    torch.backends.cudnn.benchmark = True
    replay, output = capture(half(model, number), _input(x, number))
    return Peer(name, replay, output, f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, one CUDA graph")


def compiled(model: nn.Module, x: Tensor, *, budget_s: float = 150.0, number: torch.dtype = torch.float16) -> Peer:
    """x: [N, C, H, W] on the GPU. `budget_s`: two thirds go to the strongest mode, the rest to the next one, which gets all where that is
    less than ENOUGH_S. Error where none is done in time. `note` says which mode it is."""
    require_cuda()
    torch.backends.cudnn.benchmark = True
    start, tried = time.perf_counter(), []
    modes = MODES if budget_s >= ENOUGH_S else MODES[-1:]
    for mode in modes:
        left = budget_s - (time.perf_counter() - start)
        limit = left if mode == modes[-1] else left * 2 / 3
        network = torch.compile(half(folded(model), number), mode=mode, fullgraph=True, dynamic=False)
        began = time.perf_counter()
        try:
            with within(limit):
                replay, output = capture(network, _input(x, number))
        except OutOfTime:
            torch.cuda.synchronize()
            tried.append(f"{mode} not done after {limit:.0f} s")
            continue
        seconds = time.perf_counter() - began
        note = f"torch.compile {torch.__version__}, {mode}, compiled in {seconds:.0f} s, one CUDA graph"
        return Peer("compile", replay, output, "; ".join([note, *tried]))
    raise Error("peer compile", f"a compilation within {budget_s:g} s", "; ".join(tried), "raise the budget")


class OutOfTime(BaseException):
    """No Exception, so that a compiler that tries alternatives does not take it for one that failed."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block once that many seconds have passed, or those of a limit around it; needs the main thread, elsewhere
    there is no limit. What waits inside a library is stopped when it comes back to Python."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGALRM, stop)
    outer, began = signal.getitimer(signal.ITIMER_REAL)[0], time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, max(0.01, min(seconds, outer or seconds)))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # the limit around this one goes on where it was
            signal.setitimer(signal.ITIMER_REAL, max(0.01, outer - (time.perf_counter() - began)))


def require_tensorrt() -> None:
    """UnsupportedError where ONNX Runtime lacks the provider."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UnsupportedError("peer tensorrt", "onnxruntime", "not installed", "the other peers run without it") from error
    if TENSORRT not in onnxruntime.get_available_providers():
        got = ", ".join(onnxruntime.get_available_providers())
        raise UnsupportedError("peer tensorrt", TENSORRT, got, "onnxruntime-gpu and TensorRT bring it; the other peers run without")


def tensorrt(model: nn.Module, x: Tensor, *, graph: Graph | None = None, number: torch.dtype = torch.float16) -> Peer:
    """x: [N, C, H, W] on the GPU; float32 in and out, float16 inside. `graph`: the module's dense graph, where there is one already.
    UnsupportedError without the provider, and for another `number`."""
    require_cuda()
    require_tensorrt()
    if number != torch.float16:
        raise UnsupportedError("peer tensorrt", "float16", str(number).removeprefix("torch."), "the other peers run in bfloat16 too")
    import onnxruntime

    still = x.detach().float().contiguous()
    stream = torch.cuda.current_stream()
    options = {"trt_fp16_enable": True, "trt_cuda_graph_enable": True, "user_compute_stream": str(stream.cuda_stream)}
    with tempfile.TemporaryDirectory(prefix="cosparse-") as folder:
        path = _onnx(model, still, Path(folder), graph)
        session = onnxruntime.InferenceSession(str(path), providers=[(TENSORRT, options)])
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    with torch.no_grad():
        y = torch.empty_like(model.cuda()(still))
    binding = session.io_binding()
    binding.bind_input(source.name, "cuda", 0, "float32", tuple(still.shape), still.data_ptr())
    binding.bind_output(target.name, "cuda", 0, "float32", tuple(y.shape), y.data_ptr())
    for _ in range(WARMUP):
        session.run_with_iobinding(binding)
    note = f"onnxruntime {version('onnxruntime') or version('onnxruntime-gpu')}, TensorRT, fp16, its own CUDA graph"
    return Peer("tensorrt", lambda: session.run_with_iobinding(binding), lambda kept=still: y, note)  # type: ignore[misc]


def _onnx(model: nn.Module, x: Tensor, folder: Path, graph: Graph | None) -> Path:
    from cosparse import _C
    from cosparse.bench.peers import onnx_file
    from cosparse.engine import artifact

    if graph is None:
        from cosparse.compress.importer import from_torch

        graph = from_torch(model.cpu(), (x[:1].cpu(),), "dense")
    artifact.write(folder / "dense.cosparse", graph)
    shapes = _C.infer_shapes(_C.read_artifact(folder / "dense.cosparse"), [list(x.shape)])
    return onnx_file.write(graph, shapes, folder)


def _input(x: Tensor, number: torch.dtype) -> Tensor:
    return x.detach().to(device="cuda", dtype=number).contiguous(memory_format=torch.channels_last)


PEERS: dict[str, Callable[..., Peer]] = {
    "cudnn_graph": cudnn_graph,
    "cudnn_fused": cudnn_fused,
    "compile": compiled,
    "tensorrt": tensorrt,
}
"""Each takes the module, x and `number`, the 16-bit dtype that it computes in."""


def require(name: str) -> None:
    """Error for a peer that does not exist, UnsupportedError for one that cannot run here for want of a package."""
    if name not in PEERS:
        raise Error("peer", f"one of {', '.join(PEERS)}", repr(name))
    if name == "tensorrt":
        require_tensorrt()


def installed() -> tuple[str, ...]:
    """The peers whose packages are here."""
    try:
        require_tensorrt()
    except UnsupportedError:
        return tuple(name for name in PEERS if name != "tensorrt")
    return tuple(PEERS)
