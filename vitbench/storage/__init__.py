"""Where results live: folders and buckets."""

# The folder of a run's results that workers write to; the driver writes everything else.
CHECKPOINTS = "checkpoints"
