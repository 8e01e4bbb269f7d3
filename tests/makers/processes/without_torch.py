"""Imported first by what tests start in a process of its own: transformers, loaded by the kit, finds no torch there.

Loading torch takes such a process longer than all it has to do. In pytest's own processes parity tests need it.
"""

import tunebook

assert tunebook.FastModel
