"""What the site's side imports: memory and promises depend on it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["fedistill.federation.client_app", "fedistill.site"])
@pytest.mark.parametrize("heavy", ["torch", "sklearn", "pandas", "onnx", "onnxruntime", "scipy"])
def test_the_sites_side_does_not_import(module: str, heavy: str) -> None:
    code = f"import {module}, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
