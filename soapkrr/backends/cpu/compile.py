"""How the loops of this folder are compiled: cached on disk, without the GIL, sums may be reordered but nothing else is assumed."""

import numba as nb

jit = nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp", "afn"})
