"""The cost model of a machine, asked as ``bubblebench predict`` asks it.

>>> from bubblebench.cost_model import load
>>> model = load("results/published/amd-epyc-2c/cost_model.json")
>>> model.predict_layer(512, 8, 256, 1).forward.median_ns          # doctest: +SKIP

Every number is the program's own: the same arithmetic in the same order of floating-point operations. That holds where
Python and the program use one C library for ``exp`` and ``log``, as they do on one machine; elsewhere the last digits of a
number may differ, far below a nanosecond.

=================  ==================================================================
file               part (and the file of the program that it follows)
=================  ==================================================================
``model``          the class that is asked
``reader``         the file and its version (``src/records``); ``fields``: keys and types
``records``        what stands in the file, as values
``check``          whether its numbers can be used (``src/cost/mod.rs``)
``shape``          a layer and its operations (``src/shape/layer.rs``)
``operation``      FLOPs and bytes of one operation (``src/shape/operation.rs``)
``fits``           features and corrections of a fit (``src/cost/operations.rs``)
``layer``          a layer's phases (``src/cost/predict/layer.rs``)
``fitting``        fits of layers that stand alone; ``regress`` and ``nnls``: how
``collective``     a collective (``src/cost/predict/collective.rs``)
``ranks``          from ranks measured to others (``src/cost/ranks.rs``)
``derived``        from one collective to another (``src/cost/derived.rs``)
``corun``          a main beside a side (``src/cost/predict/corun.rs``)
``prediction``     the answers
=================  ==================================================================
"""

from .errors import CostModelError
from .model import CostModel, load
from .prediction import CollectivePrediction, CorunPrediction, Interval, LayerPrediction, Prediction

__all__ = [
    "CollectivePrediction",
    "CorunPrediction",
    "CostModel",
    "CostModelError",
    "Interval",
    "LayerPrediction",
    "Prediction",
    "load",
]
