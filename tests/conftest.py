"""Settings of all tests: few threads, so that tests measure behaviour and not the machine."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
