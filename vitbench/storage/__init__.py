"""Where results live: folders and buckets."""

# Folders of a run's results that workers write to; the driver writes everything else.
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
