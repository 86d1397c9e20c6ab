"""Datasets in an .npz: uint8 `x_train`, `x_test` (N, H, W, C) and integer `y_train`, `y_test`.

What `np.savez` wrote is memory-mapped where it is large, so that it takes memory only where it is drawn; what `np.savez_compressed`
wrote is read once.
"""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy

from ddcore.data.source import KEYS, parts
from ddcore.errors import BadInput

MAPPED_FROM = 1 << 24  # bytes; what is smaller is read, and outlives its file


def read(path: Path) -> dict[str, np.ndarray]:
    """The four arrays. Raises BadInput for a file that is missing, not whole, or without one of them."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; an .npz with {', '.join(KEYS)} is needed")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [key for key in KEYS if key not in names]
            if missing:
                raise BadInput(
                    f"{path}: holds {', '.join(names) or 'nothing'}, but {', '.join(missing)} is missing"
                )
            return {key: _member(path, archive, archive.getinfo(f"{key}.npy")) for key in KEYS}
    except BadInput:
        raise
    except Exception as error:  # whatever the parsers stumble over: numpy and zipfile name no common class
        raise BadInput(f"{path}: not a whole .npz file ({error}); fetch it again") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < MAPPED_FROM:
        with archive.open(info) as member:
            return npy.read_array(member, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack(
            "<26x2H", file.read(30)
        )  # the local header: its last two numbers are lengths of what follows
        begin = info.header_offset + 30 + name + extra
        file.seek(begin)
        version = npy.read_magic(file)
        shape, fortran, kind = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[
            version
        ](file)
        offset = file.tell()
        file.seek(begin)
        head = file.read(offset - begin)
    # Copy on write: torch takes no array that it may not write to.
    array = np.memmap(path, kind, "c", offset, shape, "F" if fortran else "C")
    checksum = zlib.crc32(head)
    for part in parts(array.reshape(-1, order="A")):
        checksum = zlib.crc32(part.data, checksum)
    if checksum != info.CRC or array.nbytes + len(head) != info.file_size:
        raise ValueError(f"the checksum of {info.filename} is not that of its content")
    return array


class Mapped:
    """A memory-mapped array as a dataset reads it: `mapped[rows]` (n,) -> (n, H, W, C) uint8. Raises BadInput once its file was written
    to after it was read: what is drawn would be of another content than the dataset's sha256 says."""

    device = torch.device("cpu")

    def __init__(self, array: np.memmap):
        self.path, self.pixels = Path(array.filename), torch.from_numpy(array)
        self.shape, self._before = array.shape, os.stat(self.path)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        try:
            now = os.stat(self.path)
        except OSError:  # removed, or out of reach: what is mapped stays
            now = self._before
        if now.st_ino == self._before.st_ino and (now.st_mtime_ns, now.st_size) != (
            self._before.st_mtime_ns,
            self._before.st_size,
        ):
            raise BadInput(f"{self.path}: was written to after it was loaded; load it again")
        return self.pixels[rows]
