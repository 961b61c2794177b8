"""A stack in training: its model, optimiser and data on one device, one epoch at a time.

Shape legend: K members, S streams of batches, G groups of images to judge on, B batch,
P parameters, O outputs.
Nothing is read back from a GPU inside an epoch: losses, hits and the finite check stay there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.config import Precision
from vitbench.config.models import Augment
from vitbench.data.image_set import ImageSet
from vitbench.model.builders import stacked_model
from vitbench.model.fused_check import choose_kernels
from vitbench.model.layers import Dropout
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.training.augment import Augmentation
from vitbench.training.batches import StackData
from vitbench.training.objective import Objective
from vitbench.training.optim import CpuOptimizer, DeviceOptimizer, Step, clip_rows_, schedule_factor
from vitbench.training.parallel import SOLO, Parallel
from vitbench.training.speedup.compiling import compile_for
from vitbench.training.speedup.graphed import EagerSteps, GraphedSteps

# Evaluation: images at most, and bytes of the widest activation. On a CPU glibc returns blocks over
# 32 MB to the system at once and fetches them anew at every use; on a GPU every batch costs some
# hundred launches, however small it is.
_EVAL_BATCH = {"cpu": 256, "cuda": 4096}
_EVAL_BYTES = {"cpu": 24 << 20, "cuda": 512 << 20}


class Stack:
    """K members of one plan on one device.

    `images` are already cut to the sizes that the plan asks for; `evaluate("train")` looks at the
    first `fixed_train_images` of each member's. See `engine.fit` for the others.

    Attributes:
        binary: whether outputs are labels, each there or not.
        precision: what matrix products are computed in, e.g. `bfloat16`.
        alive_K: bool; False for members that have diverged or were stopped.
        images_per_epoch: training images of one member.
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
        precision: Precision = "auto",
    ) -> None:
        train = plan.shared.train
        self.plan = plan
        self._device, self._parallel = device, parallel
        self.binary = plan.shared.has_label or not images.classes
        self._clip_norm, self._batch_size = train.clip_norm, train.batch_size
        self._seeds = [member.train.seed for member in plan.members]

        asked = precision if train.precision == "auto" else train.precision
        rounded = dtype == torch.float32 and uses_bfloat16(asked, device)
        self.precision = str(torch.bfloat16 if rounded else dtype).removeprefix("torch.")
        outputs = 1 if plan.shared.has_label else images.outputs  # all attributes: one each
        facts = {"image_size": images.image_size, "channels": images.channels, "outputs": outputs}
        self.model = stacked_model(plan.shared.model, plan.size, rounded=rounded, **facts)
        self.model.initialise(self._seeds)
        self.model = self.model.to(device=device, dtype=dtype)
        choose_kernels(self.model)
        self._wrapped = parallel.wrap(self.model)
        self._compiled: nn.Module | None = None
        self._dropout_streams: list[torch.Generator] = []

        self._data = StackData(plan, images, device, dtype, fixed_train_images)
        self.images_per_epoch = self._data.images_per_epoch
        self.steps_per_epoch = math.ceil(self.images_per_epoch / train.batch_size)
        total_steps = train.steps or train.epochs * self.steps_per_epoch
        self._total_steps = total_steps
        warmup_steps = train.warmup_epochs * self.steps_per_epoch
        on_gpu = device.type == "cuda"
        self.optimizer = (DeviceOptimizer if on_gpu else CpuOptimizer)(
            self.model.flat.detach(),
            rule=train.optimizer,
            lr_K=[member.train.lr for member in plan.members],
            weight_decay_K=[member.train.weight_decay for member in plan.members],
            decayed=self.model.decayed,
            schedule=lambda step: schedule_factor(
                train.schedule, step, total_steps=total_steps, warmup_steps=warmup_steps
            ),
            momentum=train.momentum,
        )
        self._objective = Objective(train, binary=self.binary)
        self._augmentation: Augmentation | None = None
        self._order_SN: Tensor | None = None  # of the epoch
        self._done = 0  # images of a stream that the epoch has trained on, of all workers
        self.alive_K = torch.ones(plan.size, dtype=torch.bool, device=device)
        self._sums_2K = torch.zeros(2, plan.size, device=device, dtype=dtype)
        self._steps = GraphedSteps(device) if on_gpu else EagerSteps()

    def train_epoch(self, epoch: int, *, max_steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Train on every image once; `epoch`, from 1, names the streams of order and dropout.

        Where the plan counts in steps, the last epoch ends when they are done.

        Returns:
            Running means of loss and accuracy over the epoch's images, [K] each, on the CPU.
            NaN for a member whose loss was not finite at any step.
        """
        self._sums_2K.zero_()
        self._wrapped.train()
        self._dropout_streams = [
            generator(seed, "dropout", epoch, device=self._device)
            for seed in self._seeds
            if self.model.draws
        ]
        self._augmentation = self._augmented(epoch)
        self._order_SN, self._done = None, 0
        drawn = self._dropout_streams or self._augmentation
        alone = self._parallel.size == 1 and not drawn
        with self._steps.stream():
            order_SN = self._order_SN = self._data.order(epoch)
            batches = order_SN.split(self._batch_size, dim=1)
            batches = batches[: self.steps_in(epoch) if max_steps is None else max_steps]
            steps = self.optimizer.advance(len(batches))
            for step, index_SB in zip(steps, batches, strict=True):
                repeats = alone and step.repeats and index_SB.shape[1] == self._batch_size
                self._steps.run(self._train_step, index_SB, step, repeats=repeats)
        self._share_kept()
        return _means(self._parallel.all_sum_(self._sums_2K.clone()), batches)

    def steps_in(self, epoch: int) -> int:
        """Updates of an epoch, from 1."""
        left = self._total_steps - (epoch - 1) * self.steps_per_epoch
        return min(left, self.steps_per_epoch)

    @property
    def eval_batch(self) -> int:
        """Images per evaluation batch."""
        kind, image_bytes = self._device.type, self.plan.size * self.model.image_bytes
        return max(1, min(_EVAL_BATCH[kind], _EVAL_BYTES[kind] // image_bytes))

    def evaluate(self, name: str, *, max_batches: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of every member on a split, [K] each, on the CPU."""
        self.model.eval()
        sums_2K = torch.zeros_like(self._sums_2K)
        batches = self._data.judged_on[name].split(self.eval_batch, dim=1)[:max_batches]
        with torch.inference_mode():
            for number, index_GB in enumerate(batches):
                if number % self._parallel.size != self._parallel.rank:
                    continue
                pixels, targets = self._data.batch(name, index_GB)
                loss_KB, hit_KB = losses_and_hits(self.model(pixels), targets, binary=self.binary)
                sums_2K += torch.stack((loss_KB.sum(1), hit_KB.sum(1)))
        return _means(self._parallel.all_sum_(sums_2K), batches)

    def predictions(self, name: str) -> Tensor:
        """Logits [K, N, O] of the images of a split that the members are judged on, on the CPU.

        Every worker computes all of them.
        """
        self.model.eval()
        batches = self._data.judged_on[name].split(self.eval_batch, dim=1)
        with torch.inference_mode():
            logits = [self.model(self._data.batch(name, index)[0]) for index in batches]
        return torch.cat([part.float().cpu() for part in logits], dim=1)

    @contextmanager
    def weights(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the members these `variables` of the model for the time of the block."""
        own = self.model.variables()
        before = {name: tensor.clone() for name, tensor in own.items()}
        for name, tensor in own.items():
            tensor.copy_(values[name])
        try:
            yield
        finally:
            for name, tensor in own.items():
                tensor.copy_(before[name])

    def first_training_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Pixels and targets of so many training images of each member, always the same."""
        return self._data.first_trained(count)

    def targets(self, name: str) -> Tensor:
        """Targets of the same images, or of an epoch's for `train`: [K, N] or [K, N, O]."""
        index = self._data.order(1) if name == "train" else self._data.judged_on[name]
        return self._data.targets(name, index).cpu()

    def compile(self) -> float | None:
        """Compile the training of full batches; returns the seconds it took, None if it failed.

        Results agree to rounding. Dropout and several workers stay as they are. What is compiled
        is torch's operations, in place of a GPU's own programs.
        """
        if self.model.draws or self._parallel.size > 1:
            return None
        self.model.fused = False
        self._wrapped.train()
        with self._steps.stream():
            first_SB = self._data.order(1)[:, : self._batch_size]
            compiled = compile_for(self.model, self._data.batch("train", first_SB)[0])
        if compiled is None:
            choose_kernels(self.model)
            return None
        self._compiled, seconds = compiled
        self._steps.forget()
        return seconds

    def uncompile(self) -> None:
        """Go back to the plain forward pass."""
        self._compiled = None
        choose_kernels(self.model)
        self._steps.forget()

    def _augmented(self, epoch: int) -> Augmentation | None:
        """The draws of an epoch, where images are changed."""
        settings = self.plan.shared.train.augment
        if settings is None or settings == Augment():
            return None
        return Augmentation(
            settings,
            self._data.seeds,
            epoch,
            images=self.images_per_epoch,
            batch_size=self._batch_size,
            image_size=self.model.shape.image_size,
            device=self._device,
        )

    def _training_batch(
        self, index_SB: Tensor, share: slice
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Pixels and targets of this worker's part; with mixup also how much of which others.

        Returns:
            Pixels, targets, and (share that each image keeps [K, B], targets of the others).
        """
        draw = self._augmentation
        if draw is None:
            return (*self._data.batch("train", index_SB[:, share]), None)
        assert self._order_SN is not None
        rows_B = torch.arange(index_SB.shape[1], device=self._device)[share] + self._done
        self._done += index_SB.shape[1]
        rows_SB = rows_B.expand(len(index_SB), -1)
        mine_SB = index_SB[:, share]
        if draw.lam_SN is None:
            return (*self._data.batch("train", mine_SB, lambda p: draw(p, rows_SB)), None)
        partner_SB = draw.partners(rows_B)
        other_SB = self._order_SN.gather(1, partner_SB)
        lam_SB = draw.lam_SN[:, rows_B].to(self._sums_2K.dtype)
        other = self._data.pixels("train", other_SB)
        other = draw(other, partner_SB)
        weight = lam_SB[:, :, None, None, None]
        pixels, targets = self._data.batch(
            "train", mine_SB, lambda p: weight * draw(p, rows_SB) + (1.0 - weight) * other
        )
        return (
            pixels,
            targets,
            (
                self._data.per_member(lam_SB),
                self._data.targets("train", other_SB),
            ),
        )

    def _share_kept(self) -> None:
        """Let all workers go on with the mean of what each saw of the images (running statistics).

        What a model is judged on must not depend on which worker looks at which image.
        """
        if self._parallel.size > 1:
            for name, tensor in self.model.variables().items():
                if name != "params" and tensor.is_floating_point():
                    self._parallel.all_sum_(tensor).div_(self._parallel.size)

    def _train_step(self, index_SB: Tensor, step: Step) -> None:
        """Forward, backward, clip and update; sums the metrics and finds who diverged."""
        global_batch = index_SB.shape[1]
        rank, workers = self._parallel.rank, self._parallel.size
        share, weight = slice(rank, None, workers), 1.0
        if rank >= global_batch:  # a worker without a part repeats an image, with weight 0
            share, weight = slice(0, 1), 0.0
        pixels, targets, mixed = self._training_batch(index_SB, share)
        if self._compiled is not None and global_batch == self._batch_size:
            logits_KBO = self._compiled(pixels)
        else:
            streams = self._dropout_streams
            dropout = Dropout(streams, global_batch, share) if streams else None
            logits_KBO = self._wrapped(pixels, dropout)
        loss_KB, hit_KB = losses_and_hits(logits_KBO, targets, binary=self.binary)
        trained_KB = loss_KB if self._objective.is_plain else self._objective(logits_KBO, targets)
        if mixed is not None:
            lam_KB, others = mixed
            other_KB, _ = losses_and_hits(logits_KBO, others, binary=self.binary)
            loss_KB = lam_KB * loss_KB + (1.0 - lam_KB) * other_KB
            if not self._objective.is_plain:
                other_KB = self._objective(logits_KBO, others)
            trained_KB = lam_KB * trained_KB + (1.0 - lam_KB) * other_KB
        loss_K = trained_KB.sum(1) * (weight / global_batch)
        self.model.flat.grad = None
        # Workers average their gradients; what is wanted is the sum over the global batch.
        (loss_K.sum() * workers).backward()
        grad_KP = self.model.flat.grad
        assert grad_KP is not None
        with torch.no_grad():
            self._sums_2K += torch.stack((loss_KB.sum(1), hit_KB.sum(1))) * weight
            finite_K = self._parallel.all_sum_(loss_K.detach().clone()).isfinite()
            if self._clip_norm is not None:
                finite_K &= clip_rows_(grad_KP, self._clip_norm).isfinite()
            self.alive_K &= finite_K
        self.optimizer.update(grad_KP, self.alive_K, step)


def losses_and_hits(logits_KBO: Tensor, targets: Tensor, *, binary: bool) -> tuple[Tensor, Tensor]:
    """Loss in nats and correctness of every prediction.

    Args:
        logits_KBO: one output per class, or one per binary label.
        targets: class numbers [K, B]; or 0 and 1, [K, B] for a single label, else [K, B, O].
        binary: whether outputs are labels, each there or not; losses and hits are then means over
            the outputs.

    Returns:
        Cross entropy and correctness (0 or 1), both [K, B] in at least float32.
    """
    logits_KBO = logits_KBO if logits_KBO.dtype == torch.float64 else logits_KBO.float()
    if binary:
        truth_KBO = targets.reshape(logits_KBO.shape).to(logits_KBO.dtype)
        loss_KBO = F.binary_cross_entropy_with_logits(logits_KBO, truth_KBO, reduction="none")
        hit_KBO = ((logits_KBO > 0) == (truth_KBO > 0)).to(logits_KBO.dtype)
        return loss_KBO.mean(-1), hit_KBO.mean(-1)
    log_p_KBO = logits_KBO.log_softmax(dim=-1)
    loss_KB = -log_p_KBO.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return loss_KB, (logits_KBO.argmax(dim=-1) == targets).to(loss_KB.dtype)


def _means(sums_2K: Tensor, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and accuracy, [K] each, on the CPU, from their sums over the images of batches."""
    loss_K, accuracy_K = (sums_2K / sum(batch.shape[1] for batch in batches)).cpu().unbind(0)
    return loss_K, accuracy_K


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are rounded.

    `auto`, where no sweep has decided what it is: on GPUs that have such instructions (compute
    capability 8 and up).
    """
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return precision == "bfloat16"
