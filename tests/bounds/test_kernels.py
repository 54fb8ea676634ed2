"""The compiled element-wise parts of optimised bounds against tensor operations."""

import pytest
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.build import fused
from certtrain.bounds.optimised import kernels
from certtrain.bounds.optimised.region import Held


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_parts_compute_what_tensor_operations_do(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every length, shared lines and own ones, zeros and NaN among the coefficients."""
    if fused(dtype) is None:
        pytest.skip("no C compiler works here")
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    for count in (1, 7, 16, 37):
        rows, z, shift = drawn(5, count), drawn(5, count), drawn(5, count)
        rows[0, 0], rows[1, count // 2] = torch.nan, 0.0
        for lead in (1, 5):
            line = Held(drawn(lead, count).sigmoid(), drawn(lead, count).sigmoid(), drawn(lead, count).abs())
            arguments = [(kernels.follow, (rows, line)), (kernels.follow, (rows, line, shift))]
            arguments += [(kernels.chosen, (line, rows, z)), (kernels.corner, (rows, line.lower, line.intercept))]
            compiled = [function(*given) for function, given in arguments]
            with monkeypatch.context() as patch:
                patch.setattr(kernels, "_code", lambda *tensors: None)
                plain = [function(*given) for function, given in arguments]
            for found, expected in zip(compiled, plain, strict=True):
                pair = isinstance(found, tuple)
                for one, other in zip(found, expected, strict=True) if pair else [(found, expected)]:
                    # A NaN goes on in the row; whether it is among the sums already is another matter.
                    own = slice(1 if one.dim() == 1 else 0, None)
                    torch.testing.assert_close(one[own], other[own], equal_nan=True, rtol=1e-4, atol=1e-5)
