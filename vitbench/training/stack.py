"""A stack in training: its model, optimiser and data on one device, one epoch at a time.

Shape legend: K members, S streams of batches, G groups of images to judge on, B batch,
P parameters, O outputs.
Nothing is read back from a GPU inside an epoch: losses, hits and the finite check stay there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitbench.data.image_set import ImageSet
from vitbench.model.layers import Dropout
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.training import schedules
from vitbench.training.optim import CpuOptimizer, DeviceOptimizer, Step, clip_rows_
from vitbench.training.parallel import SOLO, Parallel
from vitbench.training.speedup.compiling import compile_for
from vitbench.training.speedup.graphed import EagerSteps, GraphedSteps
from vitbench.training.stack_data import StackData
from vitbench.training.tasks import losses_and_hits

# Evaluation: images at most, and bytes of the widest activation. On a CPU glibc returns blocks over
# 32 MB to the system at once and fetches them anew at every use; on a GPU every batch costs some
# hundred launches, however small it is.
_EVAL_BATCH = {"cpu": 256, "cuda": 4096}
_EVAL_BYTES = {"cpu": 24 << 20, "cuda": 512 << 20}


def shape_of(plan: StackPlan, images: ImageSet) -> VitShape:
    """The shape of a stack's models on these images."""
    model = plan.shared.model
    return VitShape(
        image_size=images.image_size,
        channels=images.channels,
        patch_grid=model.patch_grid,
        depth=model.depth,
        heads=model.heads,
        width=model.width,
        mlp=model.mlp_width,
        outputs=images.outputs if not plan.shared.has_label else 1,  # all attributes: one each
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
        fixed_train_images: training images of each member that `evaluate("train")` looks at.
    """

    def __init__(
        self,
        plan: StackPlan,
        images: ImageSet,
        device: torch.device,
        *,
        parallel: Parallel = SOLO,
        dtype: torch.dtype = torch.float32,
        fixed_train_images: int = 0,
    ) -> None:
        train = plan.shared.train
        self.plan = plan
        self._device, self._parallel = device, parallel
        self.binary = plan.shared.has_label or not images.classes
        self._clip_norm = train.clip_norm
        self._batch_size = train.batch_size
        seeds = [member.train.seed for member in plan.members]

        rounded = dtype == torch.float32 and uses_bfloat16(train.precision, device)
        self.model = StackedVit(shape_of(plan, images), plan.size, rounded=rounded)
        self.model.initialise(seeds)
        self.model = self.model.to(device=device, dtype=dtype)
        self._wrapped = parallel.wrap(self.model)
        self._compiled: nn.Module | None = None
        self._seeds = seeds
        self._dropout_streams: list[torch.Generator] = []

        self._data = StackData(plan, images, device, dtype, fixed_train_images)
        self.steps_per_epoch = math.ceil(self._data.images_per_epoch / train.batch_size)
        total_steps = train.epochs * self.steps_per_epoch
        warmup_steps = train.warmup_epochs * self.steps_per_epoch
        on_gpu = device.type == "cuda"
        self.optimizer = (DeviceOptimizer if on_gpu else CpuOptimizer)(
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
        self._steps = GraphedSteps(device) if on_gpu else EagerSteps()

    @property
    def images_per_epoch(self) -> int:
        """Training images of one member in one epoch."""
        return self._data.images_per_epoch

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
        alone = self._parallel.size == 1 and not self._dropout_streams
        with self._steps.stream():
            order_SN = self._data.order(epoch)
            batches = order_SN.split(self._batch_size, dim=1)[:max_steps]
            steps = self.optimizer.advance(len(batches))
            for step, index_SB in zip(steps, batches, strict=True):
                repeats = alone and step.repeats and index_SB.shape[1] == self._batch_size
                self._steps.run(self._train_step, index_SB, step, repeats=repeats)
        sums = self._parallel.all_sum_(self._sums_2K.clone())
        seen = sum(batch.shape[1] for batch in batches)
        loss_K, accuracy_K = (sums / seen).cpu().unbind(0)
        return loss_K, accuracy_K

    @property
    def eval_batch(self) -> int:
        """Images per evaluation batch."""
        shape, kind = self.model.shape, self._device.type
        image_bytes = self.plan.size * shape.tokens * max(shape.mlp, 3 * shape.width) * 4
        return max(1, min(_EVAL_BATCH[kind], _EVAL_BYTES[kind] // image_bytes))

    def evaluate(self, name: str, *, max_batches: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of every member on a split, [K] each, on the CPU."""
        sums_2K = torch.zeros_like(self._sums_2K)
        batches = self._data.judged_on[name].split(self.eval_batch, dim=1)[:max_batches]
        with torch.inference_mode():
            for number, index_GB in enumerate(batches):
                if number % self._parallel.size != self._parallel.rank:
                    continue
                pixels, targets = self._data.judged(name, index_GB)
                loss_KB, hit_KB = losses_and_hits(self.model(pixels), targets, binary=self.binary)
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
        logits, targets = [], []
        with torch.inference_mode():
            for index_GB in self._data.judged_on[name].split(self.eval_batch, dim=1):
                pixels, wanted = self._data.judged(name, index_GB)
                logits.append(self.model(pixels).float().cpu())
                targets.append(wanted.cpu())
        return torch.cat(logits, dim=1), torch.cat(targets, dim=1)

    @contextmanager
    def weights(self, flat_KP: Tensor) -> Iterator[None]:
        """Give the members these weights for the time of the block."""
        own_KP = self.model.flat.detach()
        before_KP = own_KP.clone()
        own_KP.copy_(flat_KP)
        try:
            yield
        finally:
            own_KP.copy_(before_KP)

    def first_training_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Pixels and targets of so many training images of each member, always the same."""
        return self._data.first_trained(count)

    def training_targets(self) -> Tensor:
        """Targets of every image of an epoch, [K, N] or [K, N, O], on the CPU."""
        return self._data.trained(self._data.order(1))[1].cpu()

    def compile(self) -> float | None:
        """Compile the training of full batches; returns the seconds it took, None if it failed.

        Results agree to rounding. Dropout and several workers stay as they are.
        """
        if self.model.shape.dropout or self._parallel.size > 1:
            return None
        with self._steps.stream():
            first_SB = self._data.order(1)[:, : self._batch_size]
            compiled = compile_for(self.model, self._data.trained(first_SB)[0])
        if compiled is None:
            return None
        self._use(compiled.module)
        return compiled.compile_s

    def uncompile(self) -> None:
        """Go back to the plain forward pass."""
        self._use(None)

    def _use(self, compiled: nn.Module | None) -> None:
        self._compiled = compiled
        self._steps.forget()

    def _train_step(self, index_SB: Tensor, step: Step) -> None:
        """Forward, backward, clip and update; on a GPU nothing is read back."""
        grad_KP = self._backward(index_SB)
        self.optimizer.update(grad_KP, self.alive_K, step)

    def _backward(self, index_SB: Tensor) -> Tensor:
        """Gradients of all members [K, P]; also sums the metrics and finds who diverged."""
        global_batch = index_SB.shape[1]
        share, weight = self._my_share(global_batch)
        pixels, targets = self._data.trained(index_SB[:, share])
        if self._compiled is not None and global_batch == self._batch_size:
            logits_KBO = self._compiled(pixels)
        else:
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


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are rounded.

    `auto` does it on GPUs that have such instructions (compute capability 8 and up); on a CPU
    without them it is many times slower.
    """
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return precision == "bfloat16"
