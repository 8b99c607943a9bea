"""The shape of a GPT layer on one tensor-parallel rank, and what follows from it: its operations phase by phase, its
parameters and the activations it keeps. docs/cost-model.md has the formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

from .errors import CostModelError
from .numbers import total
from .operation import DTYPES, AttentionShape, Operation, batched, elements, linear, rowwise

FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = "forward", "backward_input", "backward_weight"
FORWARD_BACKWARD = "forward_backward"
#: The three phases that a layer's time is put together from.
PARTS = (FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT)

RECOMPUTE = ("none", "selective", "full")
NORMS = ("layernorm", "rmsnorm")
POSITIONS = ("learned", "rotary")
ATTENTION_KINDS = ("flash", "materialised")

#: The largest count that the program's 64 bits hold.
MOST = 2**64 - 1

#: An operation with its name within the layer.
Named = Tuple[str, Operation]


@dataclass(frozen=True)
class LayerShape:
    """One layer on one tensor-parallel rank: sizes of the whole layer in elements, a sequence in tokens."""

    hidden: int
    heads: int
    kv_heads: int
    ffn_hidden: int
    gated: bool
    norm: str
    positions: str
    bias: bool
    causal: bool
    attention: str
    sequence: int
    micro_batch: int
    tensor: int
    sequence_parallel: bool
    context: int
    dtype: str
    recompute: str

    def validate(self) -> None:
        """Raises an error that says what is wrong with the shape, and what would be right."""
        limits = [
            ("hidden", self.hidden, 1 << 17),
            ("heads", self.heads, 1 << 12),
            ("kv_heads", self.kv_heads, 1 << 12),
            ("ffn_hidden", self.ffn_hidden, 1 << 20),
            ("sequence", self.sequence, 1 << 22),
            ("micro_batch", self.micro_batch, 1 << 16),
            ("tensor", self.tensor, 1 << 12),
            ("context", self.context, 1 << 12),
        ]
        for name, value, most in limits:
            if value == 0 or value > most:
                raise CostModelError(f"{name} is {value}", f"give 1 to {most}")
        self._validate_divisors()

    def _validate_divisors(self) -> None:
        if self.hidden % self.heads:
            raise CostModelError(
                f"hidden {self.hidden} cannot be divided by heads {self.heads}",
                "choose heads so that hidden / heads is a whole head size (64 and 128 are usual)",
            )
        if self.heads % self.tensor:
            raise CostModelError(
                f"heads {self.heads} cannot be divided by tensor {self.tensor}",
                "every tensor-parallel rank holds whole heads: choose tensor as a divisor of heads",
            )
        if self.heads % self.kv_heads:
            raise CostModelError(
                f"heads {self.heads} cannot be divided by kv_heads {self.kv_heads}",
                "every head of keys and values serves equally many heads of queries",
            )
        if self.kv_heads % self.tensor and self.tensor % self.kv_heads:
            raise CostModelError(
                f"kv_heads {self.kv_heads} and tensor {self.tensor} do not divide each other",
                "every tensor-parallel rank holds whole heads of keys and values, or one that others hold too",
            )
        if self.ffn_hidden % self.tensor:
            raise CostModelError(
                f"ffn_hidden {self.ffn_hidden} cannot be divided by tensor {self.tensor}",
                "every tensor-parallel rank holds an equal part of the MLP's inner width",
            )

    def like(self, other: "LayerShape") -> bool:
        """Whether the layer has the same parts as another, whatever the sizes of either."""
        return self._parts() == other._parts()

    def _parts(self) -> Tuple[bool, str, str, bool, str, bool]:
        return (self.gated, self.norm, self.positions, self.causal, self.attention, self.kv_heads == self.heads)

    def slug(self) -> str:
        """The shape as case names spell it: ``h512-a8-s256-b1-t1-f32`` and what is not GPT-3's behind it."""
        name = f"h{self.hidden}-a{self.heads}-s{self.sequence}-b{self.micro_batch}-t{self.tensor}-{self.dtype}"
        parts = [
            (self.kv_heads != self.heads, f"-kv{self.kv_heads}"),
            (self.ffn_hidden != min(4 * self.hidden, MOST), f"-ffn{self.ffn_hidden}"),
            (self.gated, "-gated"),
            (self.norm == "rmsnorm", "-rms"),
            (self.positions == "rotary", "-rope"),
            (not self.bias, "-nobias"),
            (not self.causal, "-noncausal"),
            (self.attention == "materialised", "-materialised"),
            (self.sequence_parallel, "-sp"),
            (self.context > 1, f"-c{self.context}"),
            (self.recompute != "none", f"-{self.recompute}"),
        ]
        return name + "".join(part for differs, part in parts if differs)

    def rows(self) -> int:
        """Rows of the layer's activation matrices on this rank, one per token."""
        return self.micro_batch * -(-self.sequence // self.context)

    def head_size(self) -> int:
        """Elements of an attention head."""
        return self.hidden // self.heads

    def local_width(self) -> int:
        """Width of this rank's heads together."""
        return self.hidden // self.tensor

    def local_kv_heads(self) -> int:
        """Heads of keys and values that this rank holds, or one that other ranks hold too."""
        return max(self.kv_heads // self.tensor, 1)

    def local_qkv(self) -> int:
        """Width of this rank's queries, keys and values together."""
        return self.local_width() + 2 * self.local_kv_heads() * self.head_size()

    def local_inner(self) -> int:
        """This rank's share of the MLP's inner width."""
        return self.ffn_hidden // self.tensor

    def local_inner_outputs(self) -> int:
        """This rank's share of what the MLP's first product gives."""
        return 2 * self.local_inner() if self.gated else self.local_inner()

    def norm_rows(self) -> int:
        """Rows of each of the two normalisations."""
        return -(-self.rows() // self.tensor) if self.sequence_parallel else self.rows()

    def attention_shape(self) -> AttentionShape:
        """Dimensions of this rank's attention."""
        return AttentionShape(
            self.micro_batch,
            self.heads // self.tensor,
            self.local_kv_heads(),
            self.sequence,
            self.head_size(),
            self.causal,
            self.context,
        )

    def parameter_bytes(self) -> int:
        """Bytes of this rank's parameters in the layer's element type, biases and both normalisations included."""
        h, w, f = self.hidden, self.local_width(), self.local_inner()
        qkv, fc1 = self.local_qkv(), self.local_inner_outputs()
        biases = qkv + h + fc1 + h if self.bias else 0
        norms = 4 * h if self.norm == "layernorm" else 2 * h
        return (h * qkv + w * h + h * fc1 + f * h + biases + norms) * DTYPES[self.dtype]

    def activation_bytes(self) -> int:
        """Bytes of activations that this rank keeps between forward and backward for one micro-batch."""
        rows, norm_rows, element = self.rows(), self.norm_rows(), DTYPES[self.dtype]
        if self.recompute == "full":
            return norm_rows * self.hidden * element
        statistics = norm_rows * (16 if self.norm == "layernorm" else 8)
        heads = rows * (self.heads // self.tensor)
        flash = self.attention == "flash"
        scores = 0 if flash else min(min(heads * self.sequence, MOST) * (2 * element + 1), MOST)
        lse = 4 * heads if flash else 0
        masks = 0 if flash else 2 * norm_rows * self.hidden
        whole = norm_rows * 4 * self.hidden
        whole += rows * (self.local_qkv() + self.local_inner_outputs() + self.local_inner())
        kept = min(whole * element + statistics + masks, MOST)
        context = rows * self.local_width() * element
        if self.recompute == "none":
            return min(min(kept + context + lse, MOST) + scores, MOST)
        return kept if flash else min(kept + context, MOST)

    def flop(self, phase: str) -> float:
        """Floating-point operations of a phase on this rank."""
        return total(operation.flop for _, operation in self.operations(phase))

    def operations(self, phase: str) -> List[Named]:
        """Every operation of a phase in the order it runs, with its name within the layer."""
        if phase == FORWARD:
            return self._forward()
        if phase == BACKWARD_INPUT:
            again = {"none": lambda: [], "selective": self._attention_forward, "full": self._forward}
            return again[self.recompute]() + self._backward()
        if phase == BACKWARD_WEIGHT:
            return self._weights()
        return [named for part in PARTS for named in self.operations(part)]

    def _elements(self, name: str, count: int) -> Operation:
        return elements(name, count, self.dtype)

    def _linear(self, product: str, name: str, gelu: bool = False) -> Operation:
        rows, hidden = self.rows(), self.hidden
        shape = {
            "qkv": (rows, hidden, self.local_qkv()),
            "projection": (rows, self.local_width(), hidden),
            "fc1": (rows, hidden, self.local_inner_outputs()),
            "fc2": (rows, self.local_inner(), hidden),
        }[name]
        return linear(product, shape, self.dtype, gelu)

    def _norm(self, phase: str) -> Operation:
        return rowwise(f"{self.norm}/{phase}", self.norm_rows(), self.hidden, self.dtype)

    def _query_elements(self) -> int:
        return self.rows() * self.local_width()

    def _key_elements(self) -> int:
        return self.rows() * self.local_kv_heads() * self.head_size()

    def _inner_elements(self) -> int:
        return self.rows() * self.local_inner()

    def _forward(self) -> List[Named]:
        fused = self.attention == "flash"
        norm = self._norm("forward")
        skip = self.norm_rows() * self.hidden
        residual = self._elements("residual" if fused else "bias_dropout_residual", skip)
        queries, keys = self._query_elements(), self._key_elements()
        found: List[Named] = [("ln1", norm), ("qkv", self._linear("forward", "qkv"))]
        if self.positions == "rotary":
            found += [("copy", self._elements("copy", count)) for count in (queries, keys)]
            found += [("rotary", self._elements("rotary/forward", count)) for count in (queries, keys)]
        if not fused:
            found.append(("copy", self._elements("copy", queries + 2 * keys)))
        found += self._attention_forward()
        if not fused:
            found.append(("copy", self._elements("copy", queries)))
        found += [("projection", self._linear("forward", "projection")), ("residual1", residual), ("ln2", norm)]
        found.append(("fc1", self._linear("forward", "fc1", gelu=fused and not self.gated)))
        if self.gated:
            found.append(("swiglu", self._elements("swiglu/forward", self._inner_elements())))
        elif not fused:
            found.append(("gelu", self._elements("gelu/forward", self._inner_elements())))
        return found + [("fc2", self._linear("forward", "fc2")), ("residual2", residual)]

    def _norm_backward(self, name: str) -> List[Named]:
        found: List[Named] = [(name, self._norm("backward_input"))]
        if self.norm == "rmsnorm":
            # Behind each RMS normalisation the skip path's gradient is added by itself.
            found.append(("skip", self._elements("residual", self.norm_rows() * self.hidden)))
        return found

    def _backward(self) -> List[Named]:
        fused = self.attention == "flash"
        queries, keys = self._query_elements(), self._key_elements()
        dropout: List[Named] = []
        if not fused:
            dropout = [("dropout", self._elements("dropout/masked", self.norm_rows() * self.hidden))]
        found = list(dropout)
        found.append(("fc2", self._linear("backward_input", "fc2", gelu=fused and not self.gated)))
        if self.gated:
            found.append(("swiglu", self._elements("swiglu/backward", self._inner_elements())))
        elif not fused:
            found.append(("gelu", self._elements("gelu/backward", self._inner_elements())))
        found.append(("fc1", self._linear("backward_input", "fc1")))
        found += self._norm_backward("ln2") + dropout
        found.append(("projection", self._linear("backward_input", "projection")))
        if not fused:
            found.append(("copy", self._elements("copy", queries)))
        found += self._attention_backward()
        if self.positions == "rotary":
            found += [("rotary", self._elements("rotary/backward", count)) for count in (queries, keys)]
        if self.positions == "rotary" or not fused:
            found.append(("copy", self._elements("copy", queries + 2 * keys)))
        found.append(("qkv", self._linear("backward_input", "qkv")))
        return found + self._norm_backward("ln1")

    def _weights(self) -> List[Named]:
        norm = self._norm("backward_weight")
        weight = {name: self._linear("backward_weight", name) for name in ("fc2", "fc1", "projection", "qkv")}
        found: List[Named] = [
            ("fc2", weight["fc2"]),
            ("fc1", weight["fc1"]),
            ("ln2", norm),
            ("projection", weight["projection"]),
            ("qkv", weight["qkv"]),
            ("ln1", norm),
        ]
        if self.bias and self.attention != "flash":
            rows, inner = self.rows(), self.local_inner_outputs()
            outputs = (self.hidden, self.hidden, inner, self.local_qkv())
            found += [("bias", self._elements("bias_gradient", rows * output)) for output in outputs]
        return found

    def _scores(self) -> int:
        return min(self.rows() * (self.heads // self.tensor) * self.sequence, MOST)

    def _score_products(self) -> Tuple[Operation, Operation]:
        batch = self.micro_batch * (self.heads // self.tensor)
        m, s, d = -(-self.sequence // self.context), self.sequence, self.head_size()
        return batched(batch, m, s, d, self.dtype), batched(batch, m, d, s, self.dtype)

    def _attention_forward(self) -> List[Named]:
        if self.attention == "flash":
            return [("attention", self.attention_shape().operation("forward", self.dtype))]
        to_scores, from_scores = self._score_products()
        return [
            ("scores", to_scores),
            ("softmax", self._elements("softmax/forward", self._scores())),
            ("dropout", self._elements("dropout/masked", self._scores())),
            ("context", from_scores),
        ]

    def _attention_backward(self) -> List[Named]:
        if self.attention == "flash":
            return [("attention", self.attention_shape().operation("backward", self.dtype))]
        to_scores, from_scores = self._score_products()
        return [
            ("context", from_scores),
            ("context", to_scores),
            ("dropout", self._elements("dropout/masked", self._scores())),
            ("softmax", self._elements("softmax/backward", self._scores())),
            ("scores", from_scores),
            ("scores", from_scores),
        ]
