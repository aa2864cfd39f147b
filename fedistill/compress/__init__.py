"""From a trained student to the smallest file that answers like it."""

from fedistill.compress.export import load_student
from fedistill.compress.gate import Stage
from fedistill.compress.pipeline import Compression, compress

__all__ = ["Compression", "Stage", "compress", "load_student"]
