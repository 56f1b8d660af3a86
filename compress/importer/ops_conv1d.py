"""Convolutions along one axis: a kernel of height 1 on a map of height 1."""

from __future__ import annotations

from dataclasses import replace

from cosparse.compress.importer.call import Call
from cosparse.compress.importer.convolution import conv_attrs
from cosparse.compress.importer.layout import ONE, Value, stored
from cosparse.compress.importer.ops_conv import weighted
from cosparse.compress.importer.table import handles


@handles("conv1d")
def conv1d(call: Call) -> Value:
    """x [N, C, L] as [N, C, 1, L]."""
    x, weight = call.value(), call.constant("weight")[:, :, None]  # [O, C/G, 1, K]
    dilation, padding = call.integers("dilation", 1)[0], call.arguments["padding"]
    if padding == "same":
        # PyTorch puts the odd place behind.
        total = dilation * (weight.shape[3] - 1)
        before, after = total // 2, total - total // 2
    else:
        before = after = 0 if padding == "valid" else call.integers("padding", 1)[0]
    attrs = conv_attrs(weight, [1, call.integers("stride", 1)[0]], [0, before, 0, after], [1, dilation], call.integer("groups"))
    row = call.as_stored(replace(x, dims=(*x.dims[:2], (), x.dims[2]), shape=(*x.shape[:2], ONE, x.shape[2])))
    n, filters, length = call.shape
    name = call.emit("conv", [row.name], attrs, weighted(weight, call.optional("bias")))
    result = stored(name, (n, filters, ONE, length))
    return replace(result, dims=(*result.dims[:2], result.dims[3]), shape=call.shape)
