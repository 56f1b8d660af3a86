"""cosparse: neural networks whose weights are sparse in a transform domain, run so that the operations saved are time saved.

    engine = cosparse.load("resnet50.cosparse", threads=2)
    y = engine(x)                     # numpy, torch or anything with DLPack, [N, C, H, W]

Compression lives in `cosparse.compress` (needs torch), benchmarks and example networks in `cosparse.bench`.
"""

from cosparse.engine import Engine, load
from cosparse.errors import ArtifactError, Error, MemoryLimitError, ShapeError, UnsupportedError

__version__ = "0.1.0"
__all__ = ["ArtifactError", "Engine", "Error", "MemoryLimitError", "ShapeError", "UnsupportedError", "__version__", "load"]
