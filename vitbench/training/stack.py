"""A stack in training: its model, optimiser and data on one device, one epoch at a time.

Shape legend: K members, S streams of batches, L distinct labels, B batch, P parameters.
Nothing is read back from a GPU inside an epoch: losses, hits and the finite check stay there.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitbench.data.image_set import ImageSet, Split
from vitbench.model.layers import Dropout
from vitbench.model.vit import StackedVit, VitShape
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.training import schedules
from vitbench.training.batches import DeviceSplit, Streams
from vitbench.training.optim import StackedOptimizer, clip_rows_
from vitbench.training.parallel import SOLO, Parallel
from vitbench.training.tasks import losses_and_hits

logger = logging.getLogger(__name__)

_EVAL_BATCH = 256
# glibc returns blocks over 32 MB to the system at once and fetches them anew at every use.
_CPU_BLOCK_BYTES = 24 << 20
_WARM_UP_STEPS = 3  # eager steps before a CUDA graph is captured, as torch asks for


def shape_of(plan: StackPlan, images: ImageSet) -> VitShape:
    """The shape of a stack's models on these images."""
    model = plan.model
    return VitShape(
        image_size=images.image_size,
        channels=images.channels,
        patch_grid=model.patch_grid,
        depth=model.depth,
        heads=model.heads,
        width=model.width,
        mlp=model.mlp_width,
        outputs=images.outputs if plan.train.label is None else 1,  # all attributes: one each
        dropout=model.dropout,
    )


class Stack:
    """K members of one plan on one device.

    Args:
        plan: what trains together.
        images: already cut to the sizes that the plan asks for.
        device: where to compute.
        parallel: this worker's place among the workers of the stack.
        dtype: of weights and optimiser; float64 serves tests.
    """

    def __init__(
        self,
        plan: StackPlan,
        images: ImageSet,
        device: torch.device,
        *,
        parallel: Parallel = SOLO,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        train = plan.train
        self.plan = plan
        self._device, self._parallel = device, parallel
        self.binary = train.label is not None or not images.classes
        self._clip_norm = train.clip_norm
        self._batch_size = train.batch_size
        seeds = [member.train.seed for member in plan.members]

        self.model = StackedVit(shape_of(plan, images), plan.size)
        self.model.initialise(seeds)
        self.model = self.model.to(device=device, dtype=dtype)
        self._wrapped = parallel.wrap(self.model)
        self._seeds = seeds

        labels = [member.train.label for member in plan.members]
        distinct = list(dict.fromkeys(labels))
        self._label_K = torch.tensor([distinct.index(label) for label in labels], device=device)
        self._splits = {
            name: DeviceSplit(
                getattr(images, name),
                np.stack([_targets(images, name, label) for label in distinct]),
                images.mean,
                images.std,
                device,
                dtype,
            )
            for name in ("train", "val", "test")
        }
        # Which images a member sees: all, or those that are matched for its label.
        pool_names = [member.train.label if train.matched else None for member in plan.members]
        pools = list(dict.fromkeys(pool_names))
        self._pool_K = torch.tensor([pools.index(name) for name in pool_names], device=device)
        of_split = {
            name: [_pool(images, name, label, train.matched) for label in pools]
            for name in self._splits
        }
        self._streams = Streams.build(
            seeds, pool_names, dict(zip(pools, of_split["train"], strict=True))
        )
        self._stream_K = torch.tensor(self._streams.of_member, device=device)
        self._judged_on = {name: torch.stack(of_split[name]).to(device) for name in ("val", "test")}

        self.steps_per_epoch = math.ceil(self._streams.images / train.batch_size)
        total_steps = train.epochs * self.steps_per_epoch
        warmup_steps = train.warmup_epochs * self.steps_per_epoch
        self.optimizer = StackedOptimizer(
            self.model.flat.detach(),
            rule=train.optimizer,
            lr_K=[member.train.lr for member in plan.members],
            weight_decay_K=[member.train.weight_decay for member in plan.members],
            decayed=self.model.decayed,
            schedule=lambda step: schedules.factor(
                train.schedule, step, total_steps=total_steps, warmup_steps=warmup_steps
            ),
            momentum=train.momentum,
        )
        self.alive_K = torch.ones(plan.size, dtype=torch.bool, device=device)
        self._sums_2K = torch.zeros(2, plan.size, device=device, dtype=dtype)
        self._autocast = _uses_bfloat16(train.precision, device) and dtype == torch.float32
        self._graph: _CapturedStep | None = None
        self._may_capture = True
        self._eager_steps = 0

    @property
    def images_per_epoch(self) -> int:
        """Training images of one member in one epoch."""
        return self._streams.images

    def train_epoch(self, epoch: int, *, max_steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Train on every image once.

        Args:
            epoch: from 1; it names the streams of order and dropout.
            max_steps: end earlier, for a probe.

        Returns:
            Running means of loss and accuracy over the epoch's images, [K] each, on the CPU.
            NaN for a member whose loss was not finite at any step.
        """
        self._sums_2K.zero_()
        self._dropout_streams = self._streams_of_dropout(epoch)
        order_SN = self._streams.order(epoch).to(self._device)
        batches = order_SN.split(self._batch_size, dim=1)[:max_steps]
        for index_SB in batches:
            self._train_step(index_SB)
        sums = self._parallel.all_sum_(self._sums_2K.clone())
        seen = sum(batch.shape[1] for batch in batches)
        loss_K, accuracy_K = (sums / seen).cpu().unbind(0)
        return loss_K, accuracy_K

    @property
    def eval_batch(self) -> int:
        """Images per evaluation batch; on a CPU few enough to keep activations in small blocks."""
        if self._device.type != "cpu":
            return _EVAL_BATCH
        shape = self.model.shape
        image_bytes = self.plan.size * shape.tokens * max(shape.mlp, 3 * shape.width) * 4
        return max(1, min(_EVAL_BATCH, _CPU_BLOCK_BYTES // image_bytes))

    def evaluate(self, name: str, *, max_batches: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of every member on a split, [K] each, on the CPU."""
        split = self._splits[name]
        sums_2K = torch.zeros_like(self._sums_2K)
        batches = self._judged_on[name].split(self.eval_batch, dim=1)[:max_batches]
        with torch.inference_mode(), self._precision():
            for number, index_GB in enumerate(batches):
                if number % self._parallel.size != self._parallel.rank:
                    continue
                logits_KBO = self.model(self._pixels(split, index_GB, self._pool_K))
                targets = self._targets_of(split, index_GB, self._pool_K)
                loss_KB, hit_KB = losses_and_hits(logits_KBO, targets, binary=self.binary)
                sums_2K += torch.stack((loss_KB.sum(1), hit_KB.sum(1)))
        self._parallel.all_sum_(sums_2K)
        seen = sum(batch.shape[1] for batch in batches)
        loss_K, accuracy_K = (sums_2K / seen).cpu().unbind(0)
        return loss_K, accuracy_K

    def predictions(self, name: str) -> tuple[Tensor, Tensor]:
        """Logits [K, N, O] and targets [K, N] or [K, N, O] of a whole split, on the CPU.

        N counts the images that the members are judged on, in the split's order. Every worker
        computes all of them.
        """
        split, logits, targets = self._splits[name], [], []
        with torch.inference_mode(), self._precision():
            for index_GB in self._judged_on[name].split(self.eval_batch, dim=1):
                pixels = self._pixels(split, index_GB, self._pool_K)
                logits.append(self.model(pixels).float().cpu())
                targets.append(self._targets_of(split, index_GB, self._pool_K).cpu())
        return torch.cat(logits, dim=1), torch.cat(targets, dim=1)

    def training_targets(self) -> Tensor:
        """Targets of every image of an epoch, [K, N] or [K, N, O], on the CPU."""
        order_SN = self._streams.order(1).to(self._device)
        return self._targets_of(self._splits["train"], order_SN, self._stream_K).cpu()

    def _pixels(self, split: DeviceSplit, index_GB: Tensor, group_K: Tensor) -> Tensor:
        """Images of a batch: [1, B, ...] where all members share it, else [K, B, ...]."""
        pixels = split.normalised(index_GB)
        return pixels[group_K] if index_GB.shape[0] > 1 else pixels

    def _targets_of(self, split: DeviceSplit, index_GB: Tensor, group_K: Tensor) -> Tensor:
        """Every member's own targets of its images: [K, B], or [K, B, O] for all attributes."""
        return split.targets_LN[self._label_K.unsqueeze(1), index_GB[group_K]]

    def _train_step(self, index_SB: Tensor) -> None:
        if self._device.type != "cuda":
            step = self.optimizer.advance()
            grad_KP = self._backward(index_SB)
            self.optimizer.update_rows(grad_KP, self.alive_K.tolist(), step)
            return
        graphable = (
            self._may_capture
            and self._parallel.size == 1
            and not self._dropout_streams
            and index_SB.shape[1] == self._batch_size
        )
        self.optimizer.advance()
        if graphable and self._eager_steps >= _WARM_UP_STEPS:
            if self._graph is None:
                self._graph = self._capture(index_SB)
            if self._graph is not None:
                self._graph.replay(index_SB)
                return
        self._eager_steps += 1
        self.device_step(index_SB)

    def _capture(self, index_SB: Tensor) -> _CapturedStep | None:
        """The step as a graph; None where it cannot be captured (nothing has run then)."""
        try:
            return _CapturedStep(self, index_SB)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("training without a CUDA graph, which is slower: %s", error)
            self._may_capture = False
            return None

    def device_step(self, index_SB: Tensor) -> None:
        """Forward, backward, clip and update on the device; nothing is read back."""
        grad_KP = self._backward(index_SB)
        self.optimizer.update_stack(grad_KP, self.alive_K)

    def _backward(self, index_SB: Tensor) -> Tensor:
        """Gradients of all members [K, P]; also sums the metrics and finds who diverged."""
        split = self._splits["train"]
        global_batch = index_SB.shape[1]
        share, weight = self._my_share(global_batch)
        index_SB = index_SB[:, share]
        targets = self._targets_of(split, index_SB, self._stream_K)
        pixels = self._pixels(split, index_SB, self._stream_K)
        with self._precision():
            logits_KBO = self._wrapped(pixels, self._dropout_of(global_batch, share))
        loss_KB, hit_KB = losses_and_hits(logits_KBO, targets, binary=self.binary)
        loss_K = loss_KB.sum(1) * (weight / global_batch)
        self.model.flat.grad = None
        # Workers average their gradients; what is wanted is the sum over the global batch.
        (loss_K.sum() * self._parallel.size).backward()
        grad_KP = self.model.flat.grad
        assert grad_KP is not None
        with torch.no_grad():
            self._sums_2K += torch.stack((loss_KB.sum(1), hit_KB.sum(1))) * weight
            finite_K = self._parallel.all_sum_(loss_K.detach().clone()).isfinite()
            if self._clip_norm is not None:
                finite_K &= clip_rows_(grad_KP, self._clip_norm).isfinite()
            self.alive_K &= finite_K
        return grad_KP

    def _my_share(self, global_batch: int) -> tuple[slice, float]:
        """This worker's part of a global batch; a worker with none repeats one with weight 0."""
        if self._parallel.rank >= global_batch:
            return slice(0, 1), 0.0
        return slice(self._parallel.rank, None, self._parallel.size), 1.0

    def _streams_of_dropout(self, epoch: int) -> list[torch.Generator]:
        if not self.model.shape.dropout:
            return []
        return [generator(seed, "dropout", epoch, device=self._device) for seed in self._seeds]

    def _dropout_of(self, global_batch: int, share: slice) -> Dropout | None:
        streams = self._dropout_streams
        return Dropout(streams, global_batch, share) if streams else None

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self._autocast:
            return contextlib.nullcontext()
        # The cache of casted weights would outlive the graph's memory.
        return torch.autocast(self._device.type, dtype=torch.bfloat16, cache_enabled=False)


class _CapturedStep:
    """A whole training step as one CUDA graph: one launch instead of a thousand."""

    def __init__(self, stack: Stack, index_SB: Tensor) -> None:
        self._index_SB = index_SB.clone()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            stack.device_step(self._index_SB)

    def replay(self, index_SB: Tensor) -> None:
        """Run the step on another batch of the same shape."""
        self._index_SB.copy_(index_SB)
        self._graph.replay()


def _targets(images: ImageSet, name: str, label: str | None) -> np.ndarray:
    """Class numbers or one label, [N]; all attributes of a set without classes, [N, O]."""
    split: Split = getattr(images, name)
    if label is not None:
        return images.binary_targets(name, label)
    targets = split.targets[:, 0] if images.classes else split.targets
    return np.asarray(targets, dtype=np.int64)


def _pool(images: ImageSet, name: str, label: str | None, matched: int | None) -> Tensor:
    """The images of a split that members may see: all, or those that are matched for a label."""
    if label is None or matched is None:
        return torch.arange(len(getattr(images, name)))
    return torch.from_numpy(images.matched(name, label, matched))


def _uses_bfloat16(precision: str, device: torch.device) -> bool:
    """`auto` is bfloat16 on CUDA; on a CPU without its instructions it is many times slower."""
    if precision == "auto":
        return device.type == "cuda"
    return precision == "bfloat16"
