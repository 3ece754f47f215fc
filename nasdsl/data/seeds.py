"""Seeds derived from several numbers."""

from __future__ import annotations


def mixed_seed(*numbers: int) -> int:
    """Hash several integers of any size to one seed of 63 bits.

    Applies the finalizer of splitmix64 (https://prng.di.unimi.it/splitmix64.c) once for each number.
    """
    state = 0
    for number in numbers:
        state = (state + number * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state >> 1
