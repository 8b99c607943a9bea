"""Operations of a layer as values: each with its name, its floating-point operations and the bytes it cannot avoid moving."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

#: Bytes of one element, by type, in the order in which wrong names are answered.
FLOATS: Dict[str, int] = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2}
#: The types that a model is trained in.
TRAINED = ("bf16", "f16", "f32")
#: Types that a layer in a file may have.
DTYPES: Dict[str, int] = {**FLOATS, "u32": 4}

GEMM, ATTENTION, STREAMING = "gemm", "attention", "streaming"

#: Of streaming operations over so many elements: FLOPs an element, and of the bytes an element those that are as wide as the
#: element type and those that are not.
_BY_ELEMENTS: Dict[str, Tuple[float, float, float]] = {
    "rotary/forward": (3.0, 2.0, 0.0),
    "rotary/backward": (3.0, 2.0, 0.0),
    "swiglu/forward": (5.0, 3.0, 0.0),
    "swiglu/backward": (9.0, 5.0, 0.0),
    "softmax/forward": (5.0, 2.0, 0.0),
    "softmax/backward": (4.0, 3.0, 0.0),
    "dropout/masked": (1.0, 2.0, 1.0),
    "bias_dropout_residual": (3.0, 3.0, 1.0),
    "bias_gradient": (1.0, 1.0, 0.0),
    "copy": (1.0, 2.0, 0.0),
    "gelu/forward": (10.0, 2.0, 0.0),
    "gelu/backward": (18.0, 3.0, 0.0),
    "residual": (1.0, 3.0, 0.0),
}

#: Of operations row by row: FLOPs an element, elements moved for each, and bytes of statistics a row.
_BY_ROWS: Dict[str, Tuple[float, float, float]] = {
    "layernorm/forward": (8.0, 2.0, 8.0),
    "layernorm/backward_input": (12.0, 4.0, 8.0),
    "layernorm/backward_weight": (5.0, 2.0, 8.0),
    "rmsnorm/forward": (4.0, 2.0, 4.0),
    "rmsnorm/backward_input": (8.0, 3.0, 4.0),
    "rmsnorm/backward_weight": (3.0, 2.0, 4.0),
}


@dataclass(frozen=True)
class Operation:
    """One operation with elements of one type: what its features are computed from."""

    #: The name by which fits are keyed, within the family.
    name: str
    family: str
    #: Floating-point operations, a multiply-add counts two.
    flop: float
    bytes: float
    #: Sizes by the name that ranges hold them under.
    sizes: Tuple[Tuple[str, float], ...] = ()
    #: m, n, k of the product m×k · k×n.
    mnk: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    gelu_elements: float = 0.0
    weights: float = 0.0
    pairs: float = 0.0
    #: Sequences · heads, sequence length and head size.
    attention: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: A GELU in a product's epilogue, as the pass of its own that it is where no fit saw one.
    gelu: Optional["Operation"] = field(default=None, compare=False)
    #: Whether it is a product of every head by itself.
    batched: bool = False


def elements(name: str, count: int, dtype: str) -> Operation:
    """A streaming operation over so many elements."""
    flop, wide, narrow = _BY_ELEMENTS[name]
    amount = float(count)
    moved = (wide * float(DTYPES[dtype]) + narrow) * amount
    return Operation(name, STREAMING, flop * amount, moved, ((f"streaming/{name}/bytes", moved),))


def rowwise(name: str, rows: int, columns: int, dtype: str) -> Operation:
    """A streaming operation row by row."""
    flop, wide, statistics = _BY_ROWS[name]
    amount = float(rows * columns)
    moved = float(DTYPES[dtype]) * wide * amount + statistics * float(rows)
    return Operation(name, STREAMING, flop * amount, moved, ((f"streaming/{name}/bytes", moved),))


def linear(product: str, shape: Tuple[int, int, int], dtype: str, gelu: bool = False) -> Operation:
    """One of a linear layer's three products, ``shape`` being rows, inputs and outputs; ``gelu`` where a GELU (forward) or its
    derivative (backward to the inputs) is in the epilogue."""
    rows, inputs, outputs = shape
    r, i, o = float(rows), float(inputs), float(outputs)
    mnk = {"forward": (r, o, i), "backward_input": (r, i, o), "backward_weight": (o, i, r)}[product]
    extra = 0.0
    behind: Optional[Operation] = None
    if gelu and product == "forward":
        extra, behind = r * o, elements("gelu/forward", rows * outputs, dtype)
    elif gelu:
        extra, behind = r * i, elements("gelu/backward", rows * inputs, dtype)
    return Operation(
        product,
        GEMM,
        2.0 * r * i * o,
        float(DTYPES[dtype]) * (r * i + r * o + i * o + extra),
        (("gemm/rows", r), ("gemm/inputs", i), ("gemm/outputs", o)),
        mnk,
        gelu_elements=mnk[0] * mnk[1] if gelu else 0.0,
        weights=i * o,
        gelu=behind,
    )


def batched(batch: int, m: int, n: int, k: int, dtype: str) -> Operation:
    """``batch`` products of single heads, m×k · k×n."""
    b, fm, fn, fk = float(batch), float(m), float(n), float(k)
    moved = float(DTYPES[dtype]) * b * (fm * fk + fk * fn + fm * fn)
    return Operation("batched", GEMM, 2.0 * b * fm * fn * fk, moved, batched=True)


@dataclass(frozen=True)
class AttentionShape:
    """Dimensions of one rank's attention."""

    batch: int
    heads: int
    kv_heads: int
    sequence: int
    head_size: int
    causal: bool
    context: int

    def rows(self) -> int:
        """Rows of the packed input: batch × sequence ÷ context-parallel ranks."""
        return self.batch * -(-self.sequence // self.context)

    def pairs(self) -> float:
        """Pairs of a query and a key that this rank multiplies."""
        queries, s = float(self.rows() * self.heads), float(self.sequence)
        return queries * (s + 1.0) / 2.0 if self.causal else queries * s

    def operation(self, name: str, dtype: str) -> Operation:
        """``forward`` or ``backward`` as one fused kernel."""
        products, packed, wide = (2.0, 2.0, 4.0) if name == "forward" else (5.0, 4.0, 8.0)
        rows = self.rows()
        widths = rows * (self.heads * self.head_size + self.kv_heads * self.head_size)
        sizes: List[Tuple[str, int]] = [
            ("batch", self.batch),
            ("heads", self.heads),
            ("sequence", self.sequence),
            ("head_size", self.head_size),
        ]
        return Operation(
            name,
            ATTENTION,
            self.pairs() * float(self.head_size) * 2.0 * products,
            float(DTYPES[dtype]) * packed * float(widths) + wide * float(rows * self.heads),
            tuple((f"attention/{size}", float(value)) for size, value in sizes),
            pairs=self.pairs(),
            attention=(float(self.batch * self.heads), float(self.sequence), float(self.head_size)),
        )
