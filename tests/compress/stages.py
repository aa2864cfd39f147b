"""What was measured on a file, made up."""

from fedistill.compress.gate import Stage

STAGE = Stage(
    stage="float",
    precision="float32",
    shipped=False,
    parameters=100,
    bytes=1000,
    bytes_deflated=900,
    metric=0.8,
    agreement=1.0,
    latency_ms_batch_1=0.1,
    latency_ms_batch_256=1.0,
)
