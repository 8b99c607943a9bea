"""A main beside a side: as measured where the pair was; else from pressure and sensitivity."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Sequence, Set, Tuple

from .errors import CostModelError, cure, nearest, some_of
from .numbers import divide, ln, total
from .prediction import CorunPrediction, Interval
from .records import CostModelFile

#: Half the interval, relative to the slowdown, where no pair could be held out.
_UNJUDGED = 0.5
#: A mean absolute error covers 1.96 standard deviations of a normal error when multiplied by this.
_MAPE_TO_95 = 2.457
#: Added to the interval where a layer of another shape answers for the one asked for.
_OTHER_MAIN = 0.25
#: The side of the pairs that give the noise floor.
_NOTHING = "nothing"
#: The part of a sensitivity that any side costs.
_PRESENCE = "presence"

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _sizes(main: str) -> Optional[List[float]]:
    """h, a, s, b, t of ``gpt-h512-a8-s128-b1-t1-f32-forward``; ``None`` for another name."""
    if not main.startswith("gpt-"):
        return None
    parts = main[len("gpt-") :].split("-")
    found = []
    for letter, part in zip("hasbt", parts):
        if not part.startswith(letter) or not _NUMBER.fullmatch(part[1:]) or not float(part[1:]) > 0.0:
            return None
        found.append(float(part[1:]))
    return found if len(found) == 5 else None


def _split(key: str) -> Tuple[str, str]:
    mode, slash, resource = key.partition("/")
    return (mode, resource) if slash else ("", "")


class Coruns:
    """Answers for mains beside sides by one model."""

    def __init__(self, model: CostModelFile) -> None:
        self._model = model
        self._scores = model.interference

    def predict(self, main: str, side: str, sharing: str) -> CorunPrediction:
        """The pair as measured, else from pressure and sensitivity; for a layer not measured the nearest one stands in."""
        pairs = self._scores.pairs
        for pair in pairs:
            if (pair.main, pair.side, pair.sharing) == (main, side, sharing):
                rate = self._mean_rate(side, sharing) if pair.side_rate is None else pair.side_rate
                return CorunPrediction(pair.slowdown, rate, True, True)
        if side == _NOTHING:
            return self._beside_nothing(main, sharing)
        near = self._nearest_main(main, sharing)
        if near is not None:
            found = self.predict(near, side, sharing)
            s = found.slowdown
            slowdown = Interval(s.median, s.low / (1.0 + _OTHER_MAIN), s.high * (1.0 + _OTHER_MAIN))
            return CorunPrediction(slowdown, found.side_rate, False, False)
        slowdown_median, complete = self._from_scores(main, side, sharing)
        error = self._model.accuracy.get("corun")
        half = _UNJUDGED if error is None else _MAPE_TO_95 * error / 100.0
        half = half if complete else half + 0.25
        interval = Interval(slowdown_median, slowdown_median / (1.0 + half), slowdown_median * (1.0 + half))
        return CorunPrediction(interval, self._mean_rate(side, sharing), False, complete and error is not None)

    def _beside_nothing(self, main: str, sharing: str) -> CorunPrediction:
        if not any(p.main == main and p.sharing == sharing for p in self._scores.pairs):
            self._sensitivities(main, sharing)
        floor = self._scores.noise_floor
        return CorunPrediction(floor or Interval(1.0, 1.0, 1.0), None, floor is not None, floor is not None)

    def _nearest_main(self, main: str, sharing: str) -> Optional[str]:
        """For a layer nobody ran beside anything: the measured one of the same phase whose sizes are nearest."""
        pairs, sensitivity = self._scores.pairs, self._scores.sensitivity
        known = {p.main for p in pairs} | set(sensitivity)
        wanted = _sizes(main)
        if wanted is None or main in known:
            return None
        under = {p.main for p in pairs if p.sharing == sharing}
        under |= {name for name, keys in sensitivity.items() if any(_in_mode(key, sharing) for key in keys)}
        # Where no layer was measured under this mode, the nearest of any is named in the answer.
        return _closest(under, main, wanted) or _closest(known, main, wanted)

    def _from_scores(self, main: str, side: str, sharing: str) -> Tuple[float, bool]:
        """1 + Σ pressure · sensitivity; false if a pressure is not known and counted as 0."""
        self._main_known(main)
        if side not in self._scores.pressure:
            raise self._unknown("side", side, self._scores.pressure)
        of_mode = self._sensitivities(main, sharing)
        presence = next((value for resource, value in of_mode if resource == _PRESENCE), 0.0)
        slowdown, complete = 1.0 + presence, True
        for resource, value in of_mode:
            if resource == _PRESENCE or not value > 0.0:
                continue
            pressure = self._pressure_of(side, sharing, resource)
            if pressure is None:
                complete = False
            else:
                slowdown += pressure * value
        return slowdown, complete

    def _pressure_of(self, side: str, mode: str, resource: str) -> Optional[float]:
        """As measured under this mode, else under any other."""
        own = self._scores.pressure[side]
        found = own.get(f"{mode}/{resource}")
        if found is not None:
            return found
        return next((own[key] for key in sorted(own) if "/" in key and _split(key)[1] == resource), None)

    def _sensitivities(self, main: str, sharing: str) -> List[Tuple[str, float]]:
        """The main's sensitivities, by resource; an error if it has none under that sharing mode."""
        sensitivity = self._main_known(main)
        of_mode = [(_split(key)[1], sensitivity[key]) for key in sorted(sensitivity) if _in_mode(key, sharing)]
        if not of_mode:
            modes = sorted({_split(key)[0] for key in sensitivity if "/" in key})
            raise CostModelError(f"{main} was not measured under sharing mode {sharing}", cure(sharing, modes))
        return of_mode

    def _main_known(self, main: str) -> Dict[str, float]:
        found = self._scores.sensitivity.get(main)
        if found is None:
            raise self._unknown("main", main, self._scores.sensitivity)
        return found

    def _unknown(self, what: str, name: str, known: Dict[str, Dict[str, float]]) -> CostModelError:
        names = sorted(known)
        listed, near = some_of(names, 12), nearest(name, names)
        text = f"it knows {listed}" if near is None else f"did you mean `{near}`? it knows {listed}"
        if not names:
            text = "measure co-running with `bubblebench measure corun` and fit again"
        return CostModelError(f"the cost model of {self._model.machine} has no {what} `{name}`", text)

    def _mean_rate(self, side: str, sharing: str) -> Optional[float]:
        pairs = [p for p in self._scores.pairs if p.side == side and p.sharing == sharing]
        rates = [p.side_rate for p in pairs if p.side_rate is not None]
        return total(rates) / float(len(rates)) if rates else None


def _in_mode(key: str, sharing: str) -> bool:
    return "/" in key and _split(key)[0] == sharing


def _closest(names: Set[str], main: str, wanted: Sequence[float]) -> Optional[str]:
    phase = main.rsplit("-", 1)[-1]
    found: Optional[Tuple[float, str]] = None
    for name in sorted(names):
        sizes = _sizes(name) if name.rsplit("-", 1)[-1] == phase else None
        if sizes is None:
            continue
        distance = total(abs(ln(divide(a, b))) for a, b in zip(sizes, wanted))
        if found is None or distance < found[0]:
            found = (distance, name)
    return None if found is None else found[1]
