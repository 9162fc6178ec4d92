"""Image processing as pure functions: arrays, images and tables in, the same out; no files, no tasks."""
