"""GPU programs in Triton: each does in one pass over memory what would be several of torch's.

Every program treats one member's rows (or images) and accumulates in float32. Sums over rows, the
gradients of biases and of LayerNorm's weights, come as one part per program, which the caller adds
up: in a fixed order, so that a run repeats bit for bit.

Names of blocks: ROWS and WIDTH, TOKENS and CHANNELS are powers of two that hold `rows` a step and
`width`, `tokens` and `channels`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_norm_forward(
    x,  # [K, rows, width] float32
    y,  # [K, rows, width], added to x with its bias; unused without HAS_Y
    bias,  # [K, width], `bias_row` values from one member to the next
    gain,  # [K, width], `gain_row`; shift has the same
    shift,
    total,  # out: x + y + bias, [K, rows, width] float32
    normal,  # out: normalised, scaled and shifted, [K, rows, width]
    mean,  # out, [K, rows]
    rstd,  # out: 1 / standard deviation, [K, rows]
    rows,
    width,
    bias_row,
    gain_row,
    eps,
    HAS_Y: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    member = tl.program_id(1)
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col_W = tl.arange(0, WIDTH)
    in_R, in_W = row_R < rows, col_W < width
    in_RW = in_R[:, None] & in_W[None, :]
    line_R = member.to(tl.int64) * rows + row_R
    at_RW = line_R[:, None] * width + col_W[None, :]
    value = tl.load(x + at_RW, mask=in_RW, other=0.0)
    if HAS_Y:
        value += tl.load(y + at_RW, mask=in_RW, other=0.0).to(tl.float32)
        value += tl.load(bias + member * bias_row + col_W, mask=in_W, other=0.0)[None, :].to(
            tl.float32
        )
        tl.store(total + at_RW, value, mask=in_RW)
    mean_R = tl.sum(value, axis=1) / width
    centred = tl.where(in_RW, value - mean_R[:, None], 0.0)
    rstd_R = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / width + eps)
    tl.store(mean + line_R, mean_R, mask=in_R)
    tl.store(rstd + line_R, rstd_R, mask=in_R)
    gain_W = tl.load(gain + member * gain_row + col_W, mask=in_W, other=0.0)
    shift_W = tl.load(shift + member * gain_row + col_W, mask=in_W, other=0.0)
    out = centred * rstd_R[:, None] * gain_W[None, :] + shift_W[None, :]
    tl.store(normal + at_RW, out.to(normal.dtype.element_ty), mask=in_RW)


@triton.jit
def add_norm_backward(
    total,  # what was normalised, [K, rows, width] float32
    mean,
    rstd,
    gain,
    normal_grad,  # [K, rows, width]
    total_grad,  # of what else total went into, [K, rows, width] float32; unused without HAS_TOTAL
    x_grad,  # out, [K, rows, width] float32
    y_grad,  # out: the same in y's type; unused without HAS_Y
    part,  # out: of gain, shift and bias, [K, programs, 3, width] float32
    rows,
    width,
    gain_row,
    HAS_Y: tl.constexpr,
    HAS_TOTAL: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    STEPS: tl.constexpr,
):
    member = tl.program_id(1)
    col_W = tl.arange(0, WIDTH)
    in_W = col_W < width
    gain_W = tl.load(gain + member * gain_row + col_W, mask=in_W, other=0.0)
    gain_grad = tl.zeros([WIDTH], tl.float32)
    shift_grad = tl.zeros([WIDTH], tl.float32)
    bias_grad = tl.zeros([WIDTH], tl.float32)
    for step in range(STEPS):
        row_R = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        in_R = row_R < rows
        in_RW = in_R[:, None] & in_W[None, :]
        line_R = member.to(tl.int64) * rows + row_R
        at_RW = line_R[:, None] * width + col_W[None, :]
        mean_R = tl.load(mean + line_R, mask=in_R, other=0.0)
        rstd_R = tl.load(rstd + line_R, mask=in_R, other=0.0)
        value = tl.load(total + at_RW, mask=in_RW, other=0.0)
        normed = tl.where(in_RW, (value - mean_R[:, None]) * rstd_R[:, None], 0.0)
        grad = tl.load(normal_grad + at_RW, mask=in_RW, other=0.0).to(tl.float32)
        gain_grad += tl.sum(grad * normed, axis=0)
        shift_grad += tl.sum(grad, axis=0)
        scaled = grad * gain_W[None, :]
        along_R = tl.sum(scaled * normed, axis=1) / width
        level_R = tl.sum(scaled, axis=1) / width
        grad = (scaled - normed * along_R[:, None] - level_R[:, None]) * rstd_R[:, None]
        if HAS_TOTAL:
            grad += tl.load(total_grad + at_RW, mask=in_RW, other=0.0)
        grad = tl.where(in_RW, grad, 0.0)
        tl.store(x_grad + at_RW, grad, mask=in_RW)
        if HAS_Y:
            tl.store(y_grad + at_RW, grad.to(y_grad.dtype.element_ty), mask=in_RW)
            bias_grad += tl.sum(grad, axis=0)
    part += (member * tl.num_programs(0) + tl.program_id(0)) * 3 * width
    tl.store(part + col_W, gain_grad, mask=in_W)
    tl.store(part + width + col_W, shift_grad, mask=in_W)
    if HAS_Y:
        tl.store(part + 2 * width + col_W, bias_grad, mask=in_W)


@triton.jit
def _query_key_value(
    qkv, bias, image, member, head, tokens, heads, channels, bias_row, in_TC, t_T, c_C
):
    """Query, key and value of a head with their biases, each [TOKENS, CHANNELS]; and where."""
    width = heads * channels
    at_TC = (image.to(tl.int64) * tokens + t_T)[:, None] * (3 * width)
    at_TC += (head * channels + c_C)[None, :]
    bias += member * bias_row + head * channels + c_C
    in_C = c_C < channels
    kind = qkv.dtype.element_ty
    q = tl.load(qkv + at_TC, mask=in_TC, other=0.0) + tl.load(bias, mask=in_C, other=0.0)[None, :]
    k = tl.load(qkv + at_TC + width, mask=in_TC, other=0.0)
    k += tl.load(bias + width, mask=in_C, other=0.0)[None, :]
    v = tl.load(qkv + at_TC + 2 * width, mask=in_TC, other=0.0)
    v += tl.load(bias + 2 * width, mask=in_C, other=0.0)[None, :]
    q = tl.where(in_TC, q, 0.0).to(kind)
    k = tl.where(in_TC, k, 0.0).to(kind)
    v = tl.where(in_TC, v, 0.0).to(kind)
    return q, k, v, at_TC


@triton.jit
def _attention_weights(q, k, scale, tokens, t_T):
    """softmax(Q K^T scale) over the tokens that there are, [TOKENS, TOKENS] float32."""
    score = tl.dot(q, tl.trans(k)) * scale
    score = tl.where((t_T < tokens)[None, :], score, float("-inf"))
    score = tl.exp(score - tl.max(score, axis=1)[:, None])
    return score / tl.sum(score, axis=1)[:, None]


@triton.jit
def attention_forward(
    qkv,  # [K, images, tokens, 3, heads, channels]
    bias,  # [K, 3, heads, channels], `bias_row` values from one member to the next
    out,  # [K, images, tokens, heads, channels]
    images,  # of one member
    tokens,
    heads,
    channels,
    bias_row,
    scale,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    image, head = tl.program_id(0), tl.program_id(1)
    t_T, c_C = tl.arange(0, TOKENS), tl.arange(0, CHANNELS)
    in_TC = (t_T < tokens)[:, None] & (c_C < channels)[None, :]
    q, k, v, _ = _query_key_value(
        qkv, bias, image, image // images, head, tokens, heads, channels, bias_row, in_TC, t_T, c_C
    )
    weights = _attention_weights(q, k, scale, tokens, t_T)
    mixed = tl.dot(weights.to(v.dtype), v)
    at_TC = (image.to(tl.int64) * tokens + t_T)[:, None] * (heads * channels)
    at_TC += (head * channels + c_C)[None, :]
    tl.store(out + at_TC, mixed.to(out.dtype.element_ty), mask=in_TC)


@triton.jit
def attention_backward(
    qkv,
    bias,
    out_grad,  # [K, images, tokens, heads, channels]
    qkv_grad,  # out, as qkv
    part,  # out: of the bias, [K, programs, 3, heads, channels] float32
    images,
    tokens,
    heads,
    channels,
    bias_row,
    scale,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    IMAGES: tl.constexpr,
):
    head, member = tl.program_id(1), tl.program_id(2)
    width = heads * channels
    t_T, c_C = tl.arange(0, TOKENS), tl.arange(0, CHANNELS)
    q_sum = tl.zeros([CHANNELS], tl.float32)
    k_sum = tl.zeros([CHANNELS], tl.float32)
    v_sum = tl.zeros([CHANNELS], tl.float32)
    for step in range(IMAGES):
        number = tl.program_id(0) * IMAGES + step
        image = member * images + number
        in_TC = (t_T < tokens)[:, None] & (c_C < channels)[None, :] & (number < images)
        q, k, v, at_TC = _query_key_value(
            qkv, bias, image, member, head, tokens, heads, channels, bias_row, in_TC, t_T, c_C
        )
        weights = _attention_weights(q, k, scale, tokens, t_T)
        out_TC = (image.to(tl.int64) * tokens + t_T)[:, None] * width
        out_TC += (head * channels + c_C)[None, :]
        grad = tl.load(out_grad + out_TC, mask=in_TC, other=0.0)
        v_grad = tl.dot(tl.trans(weights.to(grad.dtype)), grad)
        weights_grad = tl.dot(grad, tl.trans(v))
        level_T = tl.sum(weights * weights_grad, axis=1)
        score_grad = (weights * (weights_grad - level_T[:, None]) * scale).to(q.dtype)
        q_grad = tl.dot(score_grad, k)
        k_grad = tl.dot(tl.trans(score_grad), q)
        kind = qkv_grad.dtype.element_ty
        tl.store(qkv_grad + at_TC, q_grad.to(kind), mask=in_TC)
        tl.store(qkv_grad + at_TC + width, k_grad.to(kind), mask=in_TC)
        tl.store(qkv_grad + at_TC + 2 * width, v_grad.to(kind), mask=in_TC)
        q_sum += tl.sum(tl.where(in_TC, q_grad, 0.0), axis=0)
        k_sum += tl.sum(tl.where(in_TC, k_grad, 0.0), axis=0)
        v_sum += tl.sum(tl.where(in_TC, v_grad, 0.0), axis=0)
    part += (member * tl.num_programs(0) + tl.program_id(0)) * 3 * width + head * channels + c_C
    in_C = c_C < channels
    tl.store(part, q_sum, mask=in_C)
    tl.store(part + width, k_sum, mask=in_C)
    tl.store(part + 2 * width, v_sum, mask=in_C)


@triton.jit
def bias_gelu_forward(
    x,  # [K, rows, width]
    bias,  # [K, width], `bias_row` values from one member to the next
    out,  # [K, rows, width]
    rows,
    width,
    bias_row,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    member = tl.program_id(2)
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col_W = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    in_W = col_W < width
    in_RW = (row_R < rows)[:, None] & in_W[None, :]
    at_RW = (member.to(tl.int64) * rows + row_R)[:, None] * width + col_W[None, :]
    value = tl.load(x + at_RW, mask=in_RW, other=0.0).to(tl.float32)
    bias_W = tl.load(bias + member * bias_row + col_W, mask=in_W, other=0.0)
    value += bias_W[None, :].to(tl.float32)
    value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    tl.store(out + at_RW, value.to(out.dtype.element_ty), mask=in_RW)


@triton.jit
def bias_gelu_backward(
    x,
    bias,
    out_grad,  # [K, rows, width]
    x_grad,  # out, [K, rows, width]
    part,  # out: of the bias, [K, programs, width] float32
    rows,
    width,
    bias_row,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    STEPS: tl.constexpr,
):
    member = tl.program_id(2)
    col_W = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    in_W = col_W < width
    bias_W = tl.load(bias + member * bias_row + col_W, mask=in_W, other=0.0).to(tl.float32)
    bias_grad = tl.zeros([WIDTH], tl.float32)
    for step in range(STEPS):
        row_R = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        in_RW = (row_R < rows)[:, None] & in_W[None, :]
        at_RW = (member.to(tl.int64) * rows + row_R)[:, None] * width + col_W[None, :]
        value = tl.load(x + at_RW, mask=in_RW, other=0.0).to(tl.float32) + bias_W[None, :]
        grad = tl.load(out_grad + at_RW, mask=in_RW, other=0.0).to(tl.float32)
        below = 0.5 * (1.0 + tl.erf(value * 0.7071067811865476))
        grad *= below + value * 0.3989422804014327 * tl.exp(-0.5 * value * value)
        tl.store(x_grad + at_RW, grad.to(x_grad.dtype.element_ty), mask=in_RW)
        bias_grad += tl.sum(grad, axis=0)
    part += (member * tl.num_programs(0) + tl.program_id(0)) * width
    tl.store(part + col_W, bias_grad, mask=in_W)


@triton.jit
def adam(
    flat,  # the weights, [K, size] float32, updated in place as are the moments
    grad,
    first,
    second,
    lr_K,
    decay_K,
    alive_K,
    factors,  # training.optim.Factors
    size,
    decayed,  # columns with weight decay, from the first
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    ADAMW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """RAdam (rectified) or AdamW; a member that is not alive keeps what it has."""
    member = tl.program_id(1)
    if tl.load(alive_K + member):
        col_P = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        in_P = col_P < size
        at_P = member.to(tl.int64) * size + col_P
        lr = tl.load(lr_K + member) * tl.load(factors)
        scale, eps = tl.load(factors + 1), tl.load(factors + 2)
        decay_P = tl.where(col_P < decayed, tl.load(decay_K + member), 0.0)
        weight = tl.load(flat + at_P, mask=in_P, other=0.0)
        slope = tl.load(grad + at_P, mask=in_P, other=0.0)
        if ADAMW:
            weight *= 1.0 - lr * decay_P
        else:
            slope += weight * decay_P
        average = tl.load(first + at_P, mask=in_P, other=0.0)
        average += (slope - average) * (1.0 - BETA1)
        square = tl.load(second + at_P, mask=in_P, other=0.0) * BETA2
        square += slope * slope * (1.0 - BETA2)
        weight -= average * (lr * scale) / (tl.sqrt(square) + eps)
        tl.store(first + at_P, average, mask=in_P)
        tl.store(second + at_P, square, mask=in_P)
        tl.store(flat + at_P, weight, mask=in_P)
