"""Pictures from files that nobody vouches for: RGB bytes, or `BadImage` with the file's name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finet_deploy.data.dataset import BadImage

__all__ = ["MAX_PIXELS", "read_picture"]

# Of one image, before it is decoded: ImageNet's largest has 20 million, a small file can claim 10^9.
MAX_PIXELS = 1 << 26
# Pillow looks at the content, not at the suffix: without this list an `.jpg` of EPS text would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_picture(source: Path | IO[bytes], name: str) -> Tensor:
    """uint8 (3, H, W), whatever the picture's own mode. Raises BadImage: missing, damaged, too large, no picture."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"{width} x {height} pixels are more than {MAX_PIXELS:,}", name)
            pixels = np.array(image.convert("RGB"))
    except _ERRORS as error:
        reason = str(error).strip().splitlines()
        raise BadImage(reason[0][:200] if reason else type(error).__name__, name) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
