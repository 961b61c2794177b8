"""Where results live: folders and buckets."""
