"""Named random streams: every generator is derived from (seed, names), none touches the global state.

A stream depends on its own names only, so adding one shifts no other, and a resumed run needs no generator state:
the generator of step 700 is `stream(seed, "real", 700)`, whether or not step 699 was run in this process.
On a CPU its numbers are the same bits for the same torch; normal ones for the same kind of vector instructions only (torch draws others
where there are none), and a GPU's are others.
"""

import hashlib

import torch


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded with 63 bits of sha256 over `(seed, *names)`.

    >>> float(torch.rand(1, generator=stream(0, "init"))) == float(torch.rand(1, generator=stream(0, "init")))
    True
    """
    plain = [str(name) if isinstance(name, str) else int(name) for name in names]
    digest = hashlib.sha256(repr((int(seed), *plain)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
