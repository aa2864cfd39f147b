"""From a trained student to the smallest file that answers like it."""

from fedistill.compress.export import load_student, weights_to_bytes
from fedistill.compress.gate import Stage, predict_file
from fedistill.compress.pipeline import Compression, compress

__all__ = ["Compression", "Stage", "compress", "load_student", "predict_file", "weights_to_bytes"]
