"""Imported before everything else: the garbage collector waits until a function's modules are imported.

What is imported stays for good, and looking through it again and again was a tenth of a cold start's CPU time. `Api` and
the authorizer start the collector again, without these objects.
"""

import gc

gc.disable()
