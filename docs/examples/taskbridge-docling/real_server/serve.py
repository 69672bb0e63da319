"""Starts docling-serve with a CPU build of torch: ``python serve.py run --host 127.0.0.1 --port 5001``.

The wheel of torchvision on the package index is built for CUDA and wants two compiled operators that such a torch
lacks. Their names are declared here; nothing of the server is changed, and nothing that uses them runs in these tests.
"""

import sys
import torch

library = torch.library.Library("torchvision", "DEF")  # must outlive the server
for operator in ("nms", "qnms"):
    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from docling_serve.__main__ import main  # noqa: E402  # imports torchvision

sys.exit(main())
