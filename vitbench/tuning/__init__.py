"""Ray lives here and nowhere else: cluster, search, trainable, the driver's record and progress."""
