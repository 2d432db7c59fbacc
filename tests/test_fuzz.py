"""Ten thousand random calls, many of them wrong: an error that names the argument, or what the oracle gives.

Run under AddressSanitizer and UndefinedBehaviorSanitizer too, this says that no argument makes a kernel read or write
where it must not.
"""

import random
import re

import numpy as np
import pytest
import torch
from cases import INF, NAN, usual_values, wild_values
from checks import assert_same
from conftest import BACKENDS, VECTOR

import warpdraw
from warpdraw.contract import ChoiceSpec, SizeSpec
from warpdraw.op import OPS

CALLS, BATCHES = 10_000, 10
SAMPLING = ("sample", "sample", "filter_logits", "filter_probs")
SIZES = (1, 1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 130, 200, 1000, 3001)
DTYPES = (torch.float64, torch.float16, torch.int16, torch.int64, torch.int32, torch.float32, torch.bool, torch.uint8)


class Call:
    """One call that follows from its number: an op and arguments, of which a fault may spoil one."""

    def __init__(self, number):
        self.random = random.Random(number)
        self.op = OPS[self.random.choice(SAMPLING)]
        self.B, self.V = self.random.choice((0, 1, 1, 2, 3, 5)), self.random.choice(SIZES)
        self.sizes = {"B": self.B, "V": self.V}
        self.share = self.random.choice((0.05, 0.2, 0.8))  # of the arguments that are given
        self.arguments = {}
        for spec in self.op.contract.inputs:
            if spec.name == "logits" or self.random.random() < self.share:
                self.arguments[spec.name] = self.value(spec)
        for spec in self.op.contract.inputs:
            partner = getattr(spec, "partner", None)
            if partner and (spec.name in self.arguments) != (partner in self.arguments):
                self.arguments.pop(spec.name, None)
        for spec in self.op.contract.outputs:
            if self.random.random() < 0.4 and all(self.sizes.get(letter, 0) for letter in spec.sizes[1:]):
                self.arguments[spec.name] = self.output(spec)
        if self.random.random() < 0.4:
            name = self.random.choice(list(self.arguments))
            self.random.choice(FAULTS)(self, name)

    # What is right.

    def value(self, spec):
        if isinstance(spec, ChoiceSpec):
            return self.random.choice(spec.choices)
        if isinstance(spec, SizeSpec):
            self.sizes[spec.letter] = self.random.choice((0, 1, min(3, self.V), self.V))
            return self.sizes[spec.letter]
        if spec.default is not None:
            usual = [0, 2**63 - 1, -(2**63)] if spec.dtypes[0] == torch.int64 else usual_values(spec, self.V)
            usual = [value for value in usual if spec.low <= value <= spec.high]
            if spec.name == "prompt_length" and self.random.random() < 0.9:
                usual = [0, min(1, self.sizes.get("H", 0))]
            if self.random.random() < 0.4:
                return self.random.choice([*usual, spec.default])
            wild = wild_values(spec, self.V) if self.random.random() < 0.03 and spec.dtypes[0] != torch.int64 else []
            values = [self.random.choice([*usual, *wild, spec.default]) for _ in range(self.B)]
            return self.laid_out(torch.tensor(values, dtype=spec.dtypes[0]))
        if spec.name == "logits":
            return self.laid_out(self.rows().to(self.random.choice(spec.dtypes)))
        shape = [self.sizes.setdefault(letter, self.length_of(letter)) for letter in spec.sizes]
        count = int(np.prod(shape))
        if spec.dtypes[0].is_floating_point:
            values = torch.tensor([self.random.choice((-INF, -3.0, 0.5, 2.0, 1e30)) for _ in range(count)])
        elif shape[-1] == self.B and len(shape) == 1:
            values = torch.tensor([self.random.randint(0, self.sizes.get("H", 4)) for _ in range(count)])
        elif spec.sizes[-1] == "vocab_size/32":
            values = torch.tensor([self.random.choice((-1, -1, self.random.getrandbits(31))) for _ in range(count)])
        else:
            few = min(self.V, self.random.choice((2, 4, 500)))
            values = torch.tensor([self.random.choice((-1, self.random.randrange(few))) for _ in range(count)])
            if spec.sizes[-1] == "H" and self.random.random() < 0.95:
                values = values.clamp(min=0)
            if count and self.random.random() < 0.05:
                values[self.random.randrange(count)] = self.random.choice((-2, self.V, 2**31 - 1, -(2**31)))
        return self.laid_out(values.reshape(shape).to(spec.dtypes[0]))

    def length_of(self, letter):
        return (self.V + 31) // 32 if letter == "vocab_size/32" else self.random.choice((1, 2, 7, 30))

    def rows(self):
        generator = torch.Generator().manual_seed(self.random.getrandbits(30))
        rows = self.random.choice((1e-3, 3.0, 3.0, 1e4, 1e38)) * torch.randn(self.B, self.V, generator=generator)
        if self.random.random() < 0.3:
            rows = rows.round()
        if self.random.random() < 0.3:
            bad = torch.rand(self.B, self.V, generator=generator) < self.random.choice((0.1, 0.9))
            rows = rows.masked_fill(bad, self.random.choice((NAN, INF, -INF)))
        return rows

    def output(self, spec):
        if self.random.random() < 0.5:
            return True
        shape = [self.sizes[letter] for letter in spec.sizes]
        dtype = self.arguments[spec.same_dtype_as].dtype if spec.same_dtype_as else self.random.choice(spec.dtypes)
        return self.laid_out(torch.zeros(shape, dtype=dtype), shared=False)

    def laid_out(self, values, shared=True):
        """The same values, dense, inside a larger tensor, or one row for all."""
        kind = self.random.randrange(4)
        if kind == 1:
            larger = torch.full([size + 3 for size in values.shape], 1, dtype=values.dtype)
            inside = larger[tuple(slice(1, 1 + size) for size in values.shape)]
            return inside.copy_(values)
        if kind == 2 and values.dim() == 1:
            return torch.stack([values, values], -1)[:, 0]
        if kind == 3 and shared and values.dim() == 2 and self.B > 1:
            return values[:1].expand(self.B, -1)
        return values

    # What is wrong.

    def another_type(self, name):
        self.arguments[name] = self.random.choice(
            (None, "x", 1.5, True, [1], 1j, np.zeros(self.B), "", 2**70, -1, b"hf")
        )

    def another_number(self, name):
        self.arguments[name] = self.random.choice((-1, -1e-3, NAN, INF, 2**31, 2**63, 1e300, 0, self.V + 1, -(2**70)))

    def another_dtype(self, name):
        if isinstance(self.arguments[name], torch.Tensor):
            self.arguments[name] = self.arguments[name].nan_to_num(0).clamp(0, 100).to(self.random.choice(DTYPES))

    def another_shape(self, name):
        value = self.arguments[name]
        if isinstance(value, torch.Tensor):
            changes = [
                lambda: value[None],
                lambda: value.sum(-1),
                lambda: torch.cat([value, value[:1]]) if self.B else value.new_zeros(2, *value.shape[1:]),
                lambda: value[..., :0],
                lambda: value[:-1],
                lambda: torch.cat([value, value], -1),
                lambda: value.t().contiguous().t(),
                lambda: torch.stack([value, value], -1)[..., 0],
                lambda: value.to("meta"),
                lambda: value.to_sparse(),
            ]
            self.arguments[name] = self.random.choice(changes)()

    def without_it(self, name):
        del self.arguments[name]

    def another_name(self, name):
        self.arguments[name + "s"] = self.arguments.pop(name)

    def missing_partner(self, _):
        alone = self.random.choice(("bias", "bias_ids", "history_length"))
        spec = next(spec for spec in self.op.contract.inputs if spec.name == alone)
        self.arguments.pop(spec.partner, None)
        self.arguments[alone] = self.value(spec)

    def another_mask(self, _):
        words = max(0, (self.V + 31) // 32 + self.random.choice((-2, -1, 1)))
        self.arguments["bitmask"] = torch.full((self.B, words), -1, dtype=torch.int32)

    # The call.

    def run(self, backend):
        """What was returned, or the error."""
        with warpdraw.use(backend):
            try:
                result = self.op(**self.arguments)
            except (TypeError, ValueError) as error:
                return error
        return result._asdict() if isinstance(result, tuple) else {"out": result}


FAULTS = (
    Call.another_type,
    Call.another_type,
    Call.another_number,
    Call.another_number,
    Call.another_dtype,
    Call.another_dtype,
    Call.another_shape,
    Call.another_shape,
    Call.another_shape,
    Call.without_it,
    Call.another_name,
    Call.missing_partner,
    Call.another_mask,
)
ISAS = [name for name in VECTOR if BACKENDS[name].available]


def names_of(op):
    return [op.name, *[spec.name for spec in (*op.contract.inputs, *op.contract.outputs)]]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_call_is_refused_by_name_or_gives_what_the_oracle_gives(batch):
    refused, valid_rows, invalid_rows = [], 0, 0
    for number in range(batch * CALLS // BATCHES, (batch + 1) * CALLS // BATCHES):
        backend = ISAS[number % len(ISAS)]
        call = Call(number)
        found, expected = call.run(backend), Call(number).run("scalar")
        if isinstance(expected, Exception):
            context = f"call {number}: {expected!r}"
            assert type(found) is type(expected), context
            assert str(found) == str(expected), context
            assert re.match(rf"({'|'.join(names_of(call.op))})\b.*: ", str(found)), context
            refused.append(str(found).split(":")[0])
            continue
        assert not isinstance(found, Exception), f"call {number}: {found!r}"
        assert_same(found, expected, f"call {number} on {backend}")
        if "valid" in found:
            valid_rows += int(found["valid"].sum())
            invalid_rows += int((~found["valid"]).sum())
    calls = CALLS // BATCHES
    print(
        f"{len(refused)} of {calls} calls refused, naming {len(set(refused))} arguments; "
        f"{valid_rows} rows drew a token, {invalid_rows} had none to draw"
    )
    assert 0.2 * calls < len(refused) < 0.6 * calls
    assert len(set(refused)) >= 30
    assert valid_rows > 0.3 * calls
    assert invalid_rows > 0.05 * calls
