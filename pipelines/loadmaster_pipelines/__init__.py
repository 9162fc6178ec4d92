"""What is done: tasks, their connections, pipeline files and the pipeline graph."""
