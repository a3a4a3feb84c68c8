"""Chance: streams of random numbers, and what is shuffled with them, a part at a time.

All randomness is counter-based (Philox), keyed by the seed handed in and by what it is for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import CrystalError

Array = np.ndarray
FEWEST = 19  # permutations: the least p-value is 1/(n+1)
MOST = 100_000
BLOCK = 2**22  # numbers held at once of what is shuffled: memory does not grow with permutations
DEALS = 2**24  # the same of tables dealt anew, which are looked at one by one
CELLS = 5 * 10**7  # numbers in the relabelled options of one task


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Independent streams for each (seed, purpose): a new test shifts no number of another.

    Raises: CrystalError for a negative seed.
    """
    if seed < 0:
        raise CrystalError(f"the seed is {seed}", mend="choose a whole number of 0 or more")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()])))


def check_permutations(n: int) -> None:
    """Raises: CrystalError for fewer than FEWEST, which reach no p-value, or more than MOST."""
    if not FEWEST <= n <= MOST:
        raise CrystalError(
            f"{n} permutations, where {FEWEST} to {MOST} make sense",
            mend="say 999, whose least p-value is 0.001",
        )


def log_factorial(n: Array) -> Array:
    """log n!, elementwise."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, np.max(n) + 1)))])[n]


def parts(n: int, size: int, block: int = BLOCK) -> list[int]:
    """How many of n things of `size` numbers each are taken at a time, `block` numbers at most."""
    most = max(1, block // size)
    return [min(most, n - done) for done in range(0, n, most)]


def relabellings(options: int, n: int, seed: int) -> Array:
    """n random permutations of the options, (n, options): a law keeps its shape, not its meaning.

    Raises: CrystalError if they are more than CELLS numbers.
    """
    if n * options > CELLS:
        fewer = max(FEWEST, CELLS // options)
        raise CrystalError(
            f"{n} permutations of {options} options are too many to hold",
            mend=f"merge the rare options into one, or say --permutations {fewer}",
        )
    return generator(seed, "relabel").permuted(np.tile(np.arange(options), (n, 1)), axis=1)


def dealt(counts: Array, n: int, rng: np.random.Generator) -> Iterator[Array]:
    """n tables like `counts` (prompts, options), all draws dealt out again.

    Rows and columns keep their sums.
    """
    from scipy import stats

    table = stats.random_table(counts.sum(1), counts.sum(0))
    for part in parts(n, counts.size, DEALS):
        yield from table.rvs(part, random_state=rng)
