"""`trivium bench kernel`: on CUDA where there is one, else on the CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where it is")
    parser.add_argument("--json", type=Path, help="write the figures here, the picture beside it")
    parser.add_argument("--ggml", type=Path, help="CPU only: folder of llama.cpp's libggml-*.so")
    options = parser.parse_args()
    given = [] if options.json is None else ["--json", str(options.json)]
    if options.device == "cuda" or (options.device is None and torch.cuda.is_available()):
        from tests.benchmarks import kernel_cuda

        kernel_cuda.main(given)
    else:
        from tests.benchmarks import kernel_cpu

        kernel_cpu.main(given if options.ggml is None else [*given, "--ggml", str(options.ggml)])


if __name__ == "__main__":
    main()
