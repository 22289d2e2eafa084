"""The largest batch that fits, with few probes: each is a compilation."""

from collections.abc import Callable

LINEAR_PROBES = 4  # guesses by a line; bisection after them
TOLERANCE = 0.05  # of the answer: batches that are nearer to each other need no probe


def largest_batch(
    peak: Callable[[int], int | None], unit: int, limit: int, most: int, known: dict[int, int] | None = None
) -> int:
    """A multiple of `unit` up to `most` whose peak does not exceed `limit`; 0 where not even `unit` fits.

    It is `most`, or the largest such to 5 %: a batch that fits and one a little larger that does not have been probed.
    Memory grows about linearly with the batch: a line through what is known says where to look, then bisection does.

    Args:
      peak: batch size -> bytes; None where the batch does not fit and nobody says by how much.
      limit: bytes.
      known: peaks that need no probe.
    """
    top = most // unit
    peaks = {size // unit: value for size, value in (known or {}).items() if size // unit <= top}
    good, bad, probes = 0, top + 1, 0  # in units: what fits, what does not; above the top nobody looks
    for size, value in peaks.items():
        good, bad = _narrowed(good, bad, size, value, limit)
    while bad - good > (apart := 1 if bad > top else max(1, int(TOLERANCE * good))):
        guess = _guess(peaks, good, limit) if probes < LINEAR_PROBES else (good + bad) // 2
        guess = max(min(guess, bad - apart), good + apart)
        peaks[guess] = peak(guess * unit)
        good, bad = _narrowed(good, bad, guess, peaks[guess], limit)
        probes += 1
    return good * unit


def _narrowed(good, bad, size, value, limit):
    return (max(good, size), bad) if value is not None and value <= limit else (good, min(bad, size))


def _guess(peaks, good, limit):
    """Where the line through the two known peaks next to the limit crosses it; twice what fits where there is none."""
    near = sorted((abs(value - limit), size, value) for size, value in peaks.items() if value is not None)[:2]
    if len(near) < 2 or near[0][2] == near[1][2]:
        return 2 * good
    (_, a, low), (_, b, high) = near
    return int(a + (limit - low) * (b - a) / (high - low))
