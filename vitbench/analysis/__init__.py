"""Tables in, numbers and figures out. Needs neither Ray nor torch nor a GPU."""
