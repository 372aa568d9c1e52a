"""How the loops of this folder are compiled: cached on disk, without the GIL, sums may be reordered but nothing else is assumed."""

import numba as nb
from numba.core.compiler_lock import global_compiler_lock

from soapkrr.threads import held_at_fork

held_at_fork(global_compiler_lock)

jit = nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp", "afn"})
