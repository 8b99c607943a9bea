"""The class that is asked: one cost model, and the questions that ``bubblebench predict`` takes."""

from __future__ import annotations

import os
from typing import Optional, Sequence, Tuple, Union

from .check import check
from .collective import CollectiveQuery, Collectives
from .corun import Coruns
from .errors import CostModelError, cure
from .fitting import with_layer_fits
from .layer import Layers, usual_dtype
from .operation import FLOATS
from .prediction import CollectivePrediction, CorunPrediction, LayerPrediction
from .reader import read
from .records import CostModelFile
from .shape import ATTENTION_KINDS, MOST, NORMS, POSITIONS, RECOMPUTE, LayerShape


def load(path: "Union[str, os.PathLike[str]]") -> "CostModel":
    """Reads ``cost_model.json``, of this format's version or an earlier one.

    Raises :class:`CostModelError` if the file is missing, is no cost model, is of a later version, has a key that this
    version does not know, or a number that cannot be used.
    """
    file = read(path)
    try:
        check(file)
    except CostModelError as error:
        raise CostModelError(f"{os.fspath(path)}: {error}", "nothing was computed from it") from error
    return CostModel(file)


class CostModel:
    """A cost model that answers as ``bubblebench predict`` does. :func:`load` reads one from its file."""

    def __init__(self, file: CostModelFile) -> None:
        self._file = with_layer_fits(file)
        self._layers = Layers(self._file)
        self._collectives = Collectives(file)
        self._coruns = Coruns(file)

    @property
    def machine(self) -> str:
        """Name of the machine that the times are of."""
        return self._file.machine

    @property
    def schema(self) -> str:
        """Name and version of the file's format."""
        return self._file.schema

    def operations(self) -> Tuple[str, ...]:
        """Names of the collectives that have a curve, sorted."""
        return tuple(sorted({fit.operation for fit in self._file.collectives}))

    def pairs(self) -> Tuple[Tuple[str, str, str], ...]:
        """Main, side and sharing mode of every pair that was measured."""
        return tuple((p.main, p.side, p.sharing) for p in self._file.interference.pairs)

    def __repr__(self) -> str:
        return f"<CostModel of {self.machine}>"

    def predict_layer(
        self,
        hidden: int,
        heads: int,
        sequence: int,
        micro_batch: int,
        tensor: int = 1,
        dtype: Optional[str] = None,
        recompute: str = "none",
        kv_heads: Optional[int] = None,
        ffn_hidden: Optional[int] = None,
        gated: bool = False,
        norm: str = "layernorm",
        positions: str = "learned",
        bias: bool = True,
        causal: bool = True,
        attention: str = "flash",
        sequence_parallel: bool = False,
    ) -> LayerPrediction:
        """A GPT layer's phases for one micro-batch on one tensor-parallel rank.

        :param hidden: Hidden size of the whole layer, in elements.
        :param heads: Attention heads of the whole layer; they divide the hidden size.
        :param sequence: Length of a sequence, in tokens.
        :param micro_batch: Sequences of one micro-batch.
        :param tensor: Tensor-parallel ranks that the layer is divided over; the answer is one rank's time.
        :param dtype: Type of activations, parameters and gradients; ``None`` for the one measured.
        :param recompute: What the backward pass computes again: ``none``, ``selective`` (attention) or ``full``.
        :param kv_heads: Heads of keys and values of the whole layer; ``None`` for as many as heads.
        :param ffn_hidden: Inner width of the MLP of the whole layer, in elements; ``None`` for 4 · ``hidden``.
        :param gated: A gated MLP (SwiGLU): its first product is twice as wide.
        :param norm: ``layernorm`` or ``rmsnorm``.
        :param positions: ``learned`` or ``rotary``.
        :param bias: Whether products add biases.
        :param causal: Whether attention is causal; BERT's is not.
        :param attention: ``flash`` (one kernel) or ``materialised`` (scores in memory).
        :param sequence_parallel: Normalisations and skip paths divided along the sequence, over the tensor-parallel ranks.
        :raises CostModelError: If the shape is invalid, or nothing that was measured in its type can predict it.
        """
        hidden, heads = _count("hidden", hidden), _count("heads", heads)
        sequence, micro_batch = _count("sequence", sequence), _count("micro_batch", micro_batch)
        if dtype is not None and dtype not in FLOATS:
            raise CostModelError(f"dtype {dtype} is unknown", cure(dtype, FLOATS))
        tensor = _count("tensor", tensor)
        shape = LayerShape(
            hidden=hidden,
            heads=heads,
            kv_heads=heads if kv_heads is None else _count("kv_heads", kv_heads),
            ffn_hidden=min(4 * hidden, MOST) if ffn_hidden is None else _count("ffn_hidden", ffn_hidden),
            gated=_truth("gated", gated),
            norm=_one_of("norm", norm, NORMS),
            positions=_one_of("positions", positions, POSITIONS),
            bias=_truth("bias", bias),
            causal=_truth("causal", causal),
            attention=_one_of("attention", attention, ATTENTION_KINDS),
            sequence=sequence,
            micro_batch=micro_batch,
            tensor=tensor,
            sequence_parallel=_truth("sequence_parallel", sequence_parallel) and tensor > 1,
            context=1,
            dtype=usual_dtype(self._file) if dtype is None else dtype,
            recompute=_one_of("recompute", recompute, RECOMPUTE),
        )
        return self._layers.predict(shape)

    def predict_collective(
        self,
        operation: str,
        ranks: int,
        bytes: int,
        nodes: int = 1,
        dtype: Optional[str] = None,
        isolated: bool = False,
    ) -> CollectivePrediction:
        """A collective or send/recv.

        :param operation: ``all_reduce``, …; of send_recv a pattern may be named too, as in ``send_recv/one_way``.
        :param ranks: Ranks that take part (GPUs, or threads of the host).
        :param bytes: Message size in bytes, as nccl-tests counts it.
        :param nodes: Nodes that the ranks are spread over.
        :param dtype: Element type; ``None`` for any measured.
        :param isolated: One operation synchronised on its own instead of one of a back-to-back run.
        :raises CostModelError: If the numbers make no collective, or nothing is known about its network.
        """
        query = CollectiveQuery(
            operation=_text("operation", operation),
            ranks=_count("ranks", ranks),
            nodes=_count("nodes", nodes),
            bytes=_count("bytes", bytes),
            isolated=_truth("isolated", isolated),
            dtype=None if dtype is None else _text("dtype", dtype),
        )
        p = self._collectives.predict(query)
        return CollectivePrediction(p.median_ns, p.low_ns, p.high_ns, p.in_range)

    def predict_corun(self, main: str, side: str, sharing: str) -> CorunPrediction:
        """A main beside a side that shares its device.

        :param main: The main, as it stands in the measurements, e.g. ``gpt-h512-a8-s256-b1-t1-f32-forward``.
        :param side: The side, e.g. ``mlp-b32``, ``convnet-b16``, ``pressure-memory``.
        :param sharing: ``free``, ``split`` and ``nice`` on a CPU, ``stream`` and ``priority`` on a GPU.
        :raises CostModelError: If the main, the side or the sharing mode is not known.
        """
        return self._coruns.predict(_text("main", main), _text("side", side), _text("sharing", sharing))


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise CostModelError(f"{name} is {value!r}", "give a whole number that is not negative")
    return value


def _truth(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise CostModelError(f"{name} is {value!r}", "give True or False")
    return value


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise CostModelError(f"{name} is {value!r}", "give a name")
    return value


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise CostModelError(f"{name} {value} is unknown", cure(str(value), known))
    return value
