"""Where and how work is done: pools of threads or workers, blocks that fit into memory, and the division of the work."""
