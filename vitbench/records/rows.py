"""Columns of the tables. Names are a contract: later versions add columns and rename none."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = {
    "planned": "no epoch is recorded yet",
    "running": "no end is recorded: still training, or the sweep died",
    "finished": "trained to its last epoch",
    "stopped": "stopped early by the search's scheduler; its curve is censored",
    "diverged": "its loss was not finite at `diverged_epoch`; frozen there, never best",
    "crashed": "its process failed more often than max_failures; `error` names the cause",
    "oom": "did not fit into memory even alone",
    "interrupted": "ended by Ctrl-C or SIGTERM after an epoch; --resume goes on",
    "budget": "ended by the sweep's budget after an epoch",
}


@dataclass(frozen=True)
class Column:
    """One column: its pandas type and what it means."""

    name: str
    dtype: str
    meaning: str


def _columns(*specs: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*spec) for spec in specs)


TRIALS = _columns(
    ("trial_id", "string", "hash of the resolved configuration"),
    ("stack_id", "string", "the stack it trained in"),
    ("status", "string", "how it ended, see the list of states"),
    ("dataset", "string", "data set that was really used"),
    ("lr", "float64", "peak learning rate"),
    ("seed", "Int64", "fixes initial weights and data order, the same in every arm"),
    ("weight_decay", "float64", "weight decay"),
    ("patch_grid", "Int64", "patches per side"),
    ("depth", "Int64", "encoder blocks"),
    ("heads", "Int64", "attention heads"),
    ("width", "Int64", "hidden size D"),
    ("mlp", "Int64", "hidden size of the MLP"),
    ("parameters", "Int64", "parameters of the model"),
    ("epochs", "Int64", "epochs trained"),
    ("train_loss", "float64", "cross entropy in nats as it trained, mean over the last epoch"),
    ("val_loss", "float64", "validation loss after the last epoch"),
    ("test_loss", "float64", "test loss after the last epoch; reported, never used to choose"),
    ("train_accuracy", "float64", "accuracy as it trained, mean over the last epoch"),
    ("val_accuracy", "float64", "validation accuracy after the last epoch"),
    ("test_accuracy", "float64", "test accuracy after the last epoch"),
    ("best_epoch", "Int64", "epoch of lowest validation loss"),
    ("best_val_loss", "float64", "validation loss at best_epoch"),
    ("best_val_accuracy", "float64", "validation accuracy at best_epoch"),
    ("best_test_loss", "float64", "test loss at best_epoch"),
    ("best_test_accuracy", "float64", "test accuracy at best_epoch"),
    ("images_per_s", "float64", "its training images a second, beside its stack's other members"),
    ("wall_s", "float64", "seconds that its stack trained and evaluated"),
    ("checkpoint", "string", "weights of best_epoch, relative to the results folder"),
    ("error", "string", "cause of a crash"),
    ("label", "string", "the label it was trained on alone; empty for all classes"),
    ("optimizer", "string", "radam, adamw or sgd"),
    ("schedule", "string", "learning-rate schedule"),
    ("batch_size", "Int64", "images per update"),
    ("dropout", "float64", "dropout rate"),
    ("image_size", "Int64", "pixels per side"),
    ("train_images", "Int64", "training images"),
    ("planned_epochs", "Int64", "epochs of a full run"),
    ("stack_size", "Int64", "members of its stack"),
    ("diverged_epoch", "Int64", "epoch at which its loss was not finite"),
    ("initial_val_loss", "float64", "validation loss before training"),
    ("matched", "Int64", "training images with the label, and as many without; empty for all"),
)
EPOCHS = _columns(
    ("trial_id", "string", "which model"),
    ("epoch", "Int64", "from 1"),
    ("train_loss", "float64", "running mean over the epoch's batches, as the model trains"),
    ("val_loss", "float64", "at the epoch's end"),
    ("test_loss", "float64", "at the epoch's end"),
    ("train_accuracy", "float64", "running mean over the epoch's batches"),
    ("val_accuracy", "float64", "at the epoch's end"),
    ("test_accuracy", "float64", "at the epoch's end"),
    ("epoch_s", "float64", "seconds that the stack's epoch took, evaluation included"),
)
LABELS = _columns(
    ("trial_id", "string", "which model"),
    ("label", "string", "which label"),
    ("task", "string", "one label, or all labels where the model learned them together"),
    ("dataset", "string", "data set that was really used"),
    ("seed", "Int64", "of the model"),
    ("lr", "float64", "peak learning rate"),
    ("weight_decay", "float64", "weight decay"),
    ("patch_grid", "Int64", "patches per side"),
    ("depth", "Int64", "encoder blocks"),
    ("heads", "Int64", "attention heads"),
    ("width", "Int64", "hidden size D"),
    ("batch_size", "Int64", "images per update"),
    ("optimizer", "string", "radam, adamw or sgd"),
    ("matched", "Int64", "training images with the label, and as many without; empty for all"),
    ("status", "string", "how the model ended"),
    ("epochs", "Int64", "epochs trained"),
    ("best_epoch", "Int64", "epoch of lowest validation loss; test scores are of its weights"),
    ("train_images", "Int64", "training images of one epoch"),
    ("train_positives", "Int64", "of which so many have the label"),
    ("train_base_rate", "float64", "share of training images with the label"),
    ("val_images", "Int64", "validation images"),
    ("val_positives", "Int64", "of which so many have the label"),
    ("val_base_rate", "float64", "share of validation images with the label"),
    ("test_images", "Int64", "test images"),
    ("test_positives", "Int64", "of which so many have the label"),
    ("test_base_rate", "float64", "share p of test images with the label"),
    (
        "train_loss",
        "float64",
        "training loss in nats, mean over the last epoch; empty for models of all labels",
    ),
    ("test_bce", "float64", "binary cross entropy on the test images in nats"),
    ("constant_bce", "float64", "H(p): that of the best constant answer"),
    ("nce", "float64", "normalised cross entropy, test_bce / constant_bce; 1 is nothing learned"),
    ("rig", "float64", "relative information gain, 1 - nce"),
    ("average_precision", "float64", "area under precision against recall; p by chance"),
    ("ap_norm", "float64", "(average precision - p) / (1 - p); 0 by chance"),
    ("roc_auc", "float64", "area under the ROC curve; 0.5 by chance"),
    ("mcc", "float64", "Matthews correlation at probability 0.5; 0 by chance"),
    ("balanced_accuracy", "float64", "mean of the accuracies on both sides; 0.5 by chance"),
    ("test_accuracy", "float64", "accuracy at probability 0.5"),
    ("majority_rate", "float64", "accuracy of the best constant answer"),
    ("alc", "float64", "area under the learning curve: mean validation RIG over epochs"),
    ("reached", "boolean", "whether validation RIG was 0.25 or more two epochs in a row"),
    ("epochs_to_target", "Int64", "first of those epochs; empty where censored"),
)
TRIAL_COLUMNS = tuple(column.name for column in TRIALS)
EPOCH_COLUMNS = tuple(column.name for column in EPOCHS)
LABEL_COLUMNS = tuple(column.name for column in LABELS)
