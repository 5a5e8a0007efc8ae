"""Scales that stay put while a run grows, ticks at numbers people know, and their labels. Pure arithmetic."""

import bisect
import itertools
import math
from typing import NamedTuple

_LARGEST = 1.7e308
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_GROWTH = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_TICKS = 60
_BODY = 0.98
"""The share of the values that makes up the body of a curve."""
_FAR = 3.0
"""Further from the body than so many times its height, a value would leave the body a quarter of the chart or less."""
_MANY = 30
"""With fewer values each one counts, as in evaluations, and none is left out."""


class Scale(NamedTuple):
    """A range of values, linear or logarithmic, and where in it a value lies."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`; values beyond them are put on the edge. Rises with the value."""
        low, high = self.low, self.high
        if self.log:
            if value <= 0:
                return 0.0
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        # Halves: the span of two huge numbers of opposite sign is infinite, that of their halves is not.
        span = high / 2 - low / 2
        share = (value / 2 - low / 2) / span if span > 0 else 0.5
        return min(max(share, 0.0), 1.0)

    def value(self, share: float) -> float:
        """The value at a share of the range: the inverse of `share`."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return 10 ** (low + share * (high - low))
        return self.low * (1 - share) + self.high * share


def body(lows: list[float], highs: list[float], log: bool = False) -> tuple[float, float]:
    """The range in which curves can be read, of the lowest and the highest value in each column.

    All of it, unless a few values lie so far outside that they would squeeze the rest: the first steps of a fine-tune,
    a spike of the gradient norm. Those end at the edge. With `log`, all must be above 0, and distances are ratios.
    """
    low, high = min(lows), max(highs)
    if len(highs) < _MANY:
        return low, high
    way = math.log10 if log else float
    below, above = sorted(map(way, lows)), sorted(map(way, highs))
    spare = int(len(above) * (1 - _BODY)) + 1
    bottom, top = below[spare], above[-1 - spare]
    height = top - bottom
    if height <= 0:
        return low, high
    if way(high) - top > _FAR * height:
        high = max(value for value in highs if way(value) <= top + height)
    if bottom - way(low) > _FAR * height:
        low = min(value for value in lows if way(value) >= bottom - height)
    return low, high


def grown(high: float) -> float:
    """The end of an axis whose data grows: the next of few values, so that old columns move seldom."""
    if not math.isfinite(high) or high <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(high))
    if decade == 0:
        return high
    for factor in _GROWTH:
        if high <= factor * decade * (1 + 1e-12):
            return factor * decade
    return high


def y_scale(low: float, high: float, log: bool, ticks: int) -> Scale:
    """A range around finite data, its ends at round numbers, so that it changes seldom while values come in.

    With `log`, both must be above 0.
    """
    low, high = max(min(low, high), -_LARGEST), min(max(low, high), _LARGEST)
    if log and high / low >= 10:
        return Scale(_log_floor(low), _log_ceiling(high), True)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
        if log:
            low = max(low, high / 4)
    step = nice_step(high / 2 - low / 2, ticks / 2) / 5
    snapped_low, snapped_high = low, high
    if step > 0 and math.isfinite(step) and abs(low) / step < 1e15 and abs(high) / step < 1e15:
        snapped_low = min(low, math.floor(low / step) * step)
        snapped_high = max(high, math.ceil(high / step) * step)
    if log and snapped_low <= 0:
        snapped_low = low
    return Scale(max(snapped_low, -_LARGEST), min(snapped_high, _LARGEST), log)


def nice_step(span: float, count: float) -> float:
    """The smallest step of 1, 2, 2.5 or 5 times a power of ten that divides `span` into at most `count` parts."""
    rough = span / max(count, 1)
    if not rough > 0 or not math.isfinite(rough):
        return 1.0
    decade = 10.0 ** math.floor(math.log10(rough))
    if decade == 0:
        return rough
    return next((factor * decade for factor in _NICE if rough <= factor * decade * (1 + 1e-9)), 10.0 * decade)


def ticks(scale: Scale, count: int) -> list[float]:
    """At most about `count` round values inside the scale, rising."""
    if scale.log:
        powers = _log_ticks(scale, count)
        if len(powers) >= 3:
            return powers
    span = scale.high / 2 - scale.low / 2
    step = nice_step(span, count / 2)
    return _multiples(scale, step)


def x_ticks(scale: Scale, count: int, unit: str) -> list[float]:
    """Ticks of an x axis: whole steps and tokens, round times."""
    step = nice_step(scale.high - scale.low, count)
    if unit == "time":
        rough = (scale.high - scale.low) / max(count, 1)
        at = bisect.bisect_left(_SECONDS, rough)
        step = _SECONDS[at] if at < len(_SECONDS) else 86400 * nice_step((scale.high - scale.low) / 86400, count)
    elif step < 10:
        step = next(whole for whole in (1.0, 2.0, 5.0, 10.0) if whole >= step)
    return _multiples(scale, step)


def _multiples(scale: Scale, step: float) -> list[float]:
    if not 0 < step < _LARGEST or max(abs(scale.low), abs(scale.high)) / step > 1e15:
        return [scale.low, scale.high]
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    if last - first > _MOST_TICKS:
        return [scale.low, scale.high]
    return [index * step for index in range(first, last + 1)]


def _log_ticks(scale: Scale, count: int) -> list[float]:
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    every = max(1, math.ceil((last - first) / max(count, 1)))
    factors = (1, 2, 5) if (last - first) * 3 <= count + 2 else (1,)
    powers = []
    for exponent in range(first, last + 1, every):
        for factor in factors:
            value = _power(factor, exponent)
            if value > 0 and scale.low * (1 - 1e-9) <= value <= min(scale.high * (1 + 1e-9), _LARGEST):
                powers.append(value)
    return powers


def _power(factor: float, exponent: int) -> float:
    """factor * 10**exponent; 0 where that is no ordinary number."""
    return factor * 10.0**exponent if -308 < exponent < 308 else 0.0


def _log_floor(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return next((factor * decade for factor in (5, 2, 1) if 0 < factor * decade <= value), value)


def _log_ceiling(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    ceiling = next((factor * decade for factor in (1, 2, 5, 10) if factor * decade >= value), value)
    return ceiling if ceiling > 0 and math.isfinite(ceiling) else value


def labels(values: list[float]) -> list[str]:
    """The values as text, all with as many decimals as tell them apart."""
    if not values:
        return []
    largest = max(map(abs, values))
    step = min((b - a for a, b in itertools.pairwise(values) if b > a), default=largest)
    if largest != 0 and (largest < 1e-3 or largest >= 1e15):
        return [_scientific(value) for value in values]
    if largest >= 1e5:
        exponent = min(int(math.log10(largest)) // 3, 4)
        unit, divisor = " kMGT"[exponent], 1000.0**exponent
        decimals = _decimals(step / divisor)
        return ["0" if value == 0 else f"{value / divisor:.{decimals}f}{unit}" for value in values]
    decimals = _decimals(step)
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


def time_label(seconds: float) -> str:
    """`0`, `30s`, `5m`, `1h`, `1h30`, `2d`, `1d6h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s" if whole else "0"
    if whole < 3600:
        return f"{whole // 60}m" + (f"{whole % 60:02d}" if whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600}h" + (f"{whole % 3600 // 60:02d}" if whole % 3600 // 60 else "")
    return f"{whole // 86400}d" + (f"{whole % 86400 // 3600}h" if whole % 86400 // 3600 else "")


def x_labels(values: list[float], unit: str) -> list[str]:
    return [time_label(value) for value in values] if unit == "time" else labels(values)


def _decimals(step: float) -> int:
    """Decimals that show a step of 1, 2, 2.5 or 5 times a power of ten."""
    if not step > 0 or not math.isfinite(step):
        return 2
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6 * step * 10**decimals:
        decimals += 1
    return min(decimals, 6)


def _scientific(value: float) -> str:
    """`2e-4`, `1.5e-4`: without the zeros that Python puts there."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def value_text(value: float | None) -> str:
    """A value in the legend: four significant digits, and no more than nine cells."""
    if value is None or not math.isfinite(value):
        return "—"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e15:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if size >= 1e5:
        return labels([0.0, value])[1] if size >= 1e6 else f"{value / 1000:.1f}k"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"
