"""The element types a save can hold, with their names in both files."""

from __future__ import annotations

import torch

# structure.json's name -> (torch's, safetensors', bytes an element)
DTYPES: dict[str, tuple[torch.dtype, str, int]] = {
    "bool": (torch.bool, "BOOL", 1),
    "uint8": (torch.uint8, "U8", 1),
    "int8": (torch.int8, "I8", 1),
    "uint16": (torch.uint16, "U16", 2),
    "int16": (torch.int16, "I16", 2),
    "uint32": (torch.uint32, "U32", 4),
    "int32": (torch.int32, "I32", 4),
    "uint64": (torch.uint64, "U64", 8),
    "int64": (torch.int64, "I64", 8),
    "float8_e4m3fn": (torch.float8_e4m3fn, "F8_E4M3", 1),
    "float8_e5m2": (torch.float8_e5m2, "F8_E5M2", 1),
    "float16": (torch.float16, "F16", 2),
    "bfloat16": (torch.bfloat16, "BF16", 2),
    "float32": (torch.float32, "F32", 4),
    "float64": (torch.float64, "F64", 8),
    "complex64": (torch.complex64, "C64", 8),
}

BY_TORCH = {entry[0]: name for name, entry in DTYPES.items()}
BY_SAFETENSORS = {entry[1]: name for name, entry in DTYPES.items()}
